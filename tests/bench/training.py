"""`make bench-training`: the training loop against its peers, a JSON line per bar.

`ratio` says how many times our time per unit of work (tokens without padding, pictures) goes into the peer's;
`goal` is the least. Contenders take turns, each in a process of its own; the time of a training is that
between the end of its first step and that of its last, so that loading and tokenising are left out. All have
one thread and compute in fp32: two threads were slower for models of this size. `--only` names some of the
groups, `--against` some of the comparisons of `text`, of which each can be made alone in a few minutes. A
bare loop takes turns with ours after each step, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, Self

from tests.bench import checkpoint_stall, launch, steady
from tests.bench.measuring import FEW, PAIRS, ROOT, Board
from tests.bench.peers import peer_python
from tests.bench.training_common import Trained
from tests.bench.training_data import write_language, write_scenes, write_shapes

TRL: Final = (
    "torch==2.13.0",
    "transformers==5.23.0",
    "peft==0.21.2",
    "accelerate==1.15.0",
    "datasets==5.2.0",
    "trl==1.16.0",
    "pillow",
    "scipy",
)
LLAMA_FACTORY: Final = ("torch==2.13.0", "llamafactory==0.9.5")
THREADS: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Contender:
    """A process that trains once for every seed it is given."""

    def __init__(self, name: str, folder: Path, python: Path | str) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # it lives as long as the process
        self._process = subprocess.Popen(
            [str(python), "-m", "tests.bench.training_contenders", name, str(folder)],
            cwd=ROOT,
            env=os.environ | THREADS,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._log.close()

    def wait(self) -> None:
        """Until its packages are imported."""
        self._answer()

    def train(self, seed: int) -> Trained:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        trained = Trained(**json.loads(self._answer()))
        cpu, wall = (1000 * seconds / trained.units for seconds in (trained.cpu, trained.wall))
        told = f"{self.name}, seed {seed}: {cpu:.4f} s of CPU for 1000 units, {wall:.4f} on the wall"
        print(told, file=sys.stderr, flush=True)
        return trained

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            sys.exit(f"{self.name} failed:\n{self._log.read()[-4000:]}")
        return line


def by_turns(entries: Sequence[tuple[str, Path, Path | str]], rounds: int) -> list[list[Trained]]:
    """What each of the entries (name, folder, Python) made of each seed; they take turns."""
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender(*entry)) for entry in entries]
        for contender in contenders:
            contender.wait()
        made = [[contender.train(seed) for contender in contenders] for seed in range(rounds)]
    return [list(each) for each in zip(*made, strict=True)]


def rate_bars(
    board: Board, what: str, ours: Sequence[Trained], peer: Sequence[Trained], goal: float, unit: str
) -> None:
    """Two bars: CPU time and time on the wall for a thousand units."""
    cpu = [[1000 * each.cpu / each.units for each in trained] for trained in (ours, peer)]
    wall = [[1000 * each.wall / each.units for each in trained] for trained in (ours, peer)]
    for clock, (mine, theirs) in (("CPU", cpu), ("wall", wall)):
        board.ratio(f"{what}, {clock}", mine, theirs, goal, f"s per 1000 {unit}")


def memory_bar(board: Board, what: str, ours: Sequence[Trained], peer: Sequence[Trained]) -> None:
    """Peaks of whole processes."""
    mine, theirs = (max(each.peak for each in trained) for trained in (ours, peer))
    board.show(f"{what}, peak memory", mine, 1.0, "MB", theirs, theirs / mine)


def trl_python() -> Path:
    return peer_python("trl", TRL)


def llama_factory_python() -> Path:
    return peer_python("llama-factory", LLAMA_FACTORY, ("torchvision", "torchaudio"))


class Close(NamedTuple):
    """A comparison whose goal is near 1: over seven pairs."""

    name: str
    what: str
    goal: float
    python: Callable[[], Path]


CLOSE: Final = {
    "grouped": Close("hf-text-grouped", "HF Trainer grouped by length", 1.0, trl_python),
    "llama-factory": Close(
        "llama-factory-text-packed", "LLaMA-Factory with packing", 1.0, llama_factory_python
    ),
}


def text_bars(board: Board, folder: Path, against: Sequence[str]) -> None:
    data = write_language(folder / "language")
    if "bare" in against:
        bare_bars(board, data)
    close = [each for each in against if each in CLOSE]
    if close:
        ours, *peers = by_turns(
            [
                ("finemesh-text", data, sys.executable),
                *((CLOSE[each].name, data, CLOSE[each].python()) for each in close),
            ],
            PAIRS,
        )
        for each, peer in zip(close, peers, strict=True):
            rate_bars(board, f"text LoRA, against {CLOSE[each].what}", ours, peer, CLOSE[each].goal, "tokens")
    if "trl" in against:
        padded_text_bars(board, data, trl_python())
    if "trl-packed" in against:
        entries = [("finemesh-text", data, sys.executable), ("trl-text-packed", data, trl_python())]
        ours, packed = by_turns(entries, FEW)
        rate_bars(board, "text LoRA, against TRL with packing", ours, packed, 2.0, "tokens")


def bare_bars(board: Board, data: Path) -> None:
    """Step by step by turns, in one process."""
    command = [sys.executable, "-m", "tests.bench.training_steps", str(data)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | THREADS, stdout=subprocess.PIPE, text=True, check=True
    )
    spent = json.loads(done.stdout)
    for clock, name in enumerate(("CPU", "wall")):
        ours, bare = ([block[clock] for block in spent[loop]] for loop in ("ours", "bare"))
        what = f"text LoRA, against a bare loop over the same batches, {name}"
        board.ratio(what, ours, bare, 0.97, "s per 8 steps")


def padded_text_bars(board: Board, data: Path, trl: Path) -> None:
    """Against those who pad: three rounds tell them apart."""
    ours, plain, padded = by_turns(
        [
            ("finemesh-text", data, sys.executable),
            ("hf-text", data, trl),
            ("trl-text", data, trl),
        ],
        FEW,
    )
    rate_bars(board, "text LoRA, against TRL", ours, padded, 2.3, "tokens")
    memory_bar(board, "text LoRA, against HF Trainer", ours, plain)
    losses = [[each.loss or 0.0 for each in trained] for trained in (ours, plain, padded)]
    noise = max(statistics.stdev(each) for each in losses)
    mine, *theirs = (statistics.mean(each) for each in losses)
    worst = max(abs(mine - each) for each in theirs)
    board.show(f"text LoRA, final loss over {FEW} seeds, difference", worst, max(3 * noise, 0.01), "nats")


def llava_bars(board: Board, folder: Path) -> None:
    data, trl = write_scenes(folder / "scenes"), trl_python()
    ours, theirs = by_turns([("finemesh-llava", data, sys.executable), ("hf-llava", data, trl)], PAIRS)
    rate_bars(board, "LLaVA LoRA, against HF Trainer", ours, theirs, 1.5, "pictures")
    memory_bar(board, "LLaVA LoRA, against HF Trainer", ours, theirs)


def detection_bars(board: Board, folder: Path) -> None:
    data, trl = write_shapes(folder / "shapes"), trl_python()
    ours, theirs = by_turns([("finemesh-yolos", data, sys.executable), ("hf-yolos", data, trl)], PAIRS)
    rate_bars(board, "YOLOS in full, against HF Trainer", ours, theirs, 1.2, "pictures")
    memory_bar(board, "YOLOS in full, against HF Trainer", ours, theirs)


GROUPS: Final[dict[str, Callable[[Board, Path, Sequence[str]], None]]] = {
    "text": text_bars,
    "llava": lambda board, folder, _: llava_bars(board, folder),
    "detection": lambda board, folder, _: detection_bars(board, folder),
    "checkpoints": lambda *_: checkpoint_stall.main(),
    "launch": lambda *_: launch.main(),
    "steady": lambda *_: steady.main(),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    against = ["bare", *CLOSE, "trl", "trl-packed"]
    parser.add_argument("--against", nargs="+", choices=against, default=against, help="comparisons of text")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
        for name in given.only:
            board = Board(f"python -m tests.bench.training --only {name}")
            GROUPS[name](board, Path(folder), given.against)


if __name__ == "__main__":
    main()
