"""Measuring against peers: contenders in processes of their own, run by turns; a JSON line per bar.

What they write goes to memory where the system has /dev/shm: on ext4 files that were removed just before make
every new one slower, by how much is chance.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path(__file__).parents[2]
SCRATCH: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
PAIRS: Final = 7  # for a goal below 2, where the lower end of the interval counts
FEW: Final = 3
GROWTH: Final = 1.2
GROWTH_MB: Final = 30.0
# The peers were compiled when they were installed; what is compiled anew at every start says nothing of us.
ENVIRONMENT: Final = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
_STUDENT: Final = 2.447  # t at 97.5% with PAIRS - 1 degrees of freedom


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds on the wall, CPU seconds, and the peak of the memory in MB."""

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender by name, with the Python it runs under."""

    name: str
    source: Path
    python: Path | str = sys.executable

    def command(self, out: Path, *switches: str) -> list[str]:
        told = [self.name, str(self.source), str(out), *switches]
        return [str(self.python), "-m", "tests.bench.contenders", *told]


class Contender:
    """An entry that has started and has done its job once, to be warm; `run` does it again."""

    def __init__(self, entry: Entry) -> None:
        self._name, self._folder = entry.name, Path(tempfile.mkdtemp(prefix="finemesh-bench-", dir=SCRATCH))
        self._log = (self._folder / "log").open("w+")
        self._process = subprocess.Popen(
            entry.command(self._folder / "out"),
            cwd=ROOT,
            env=ENVIRONMENT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._answer()
        self.run()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._log.close()
        shutil.rmtree(self._folder)

    def run(self) -> Spent:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Spent(**json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            sys.exit(f"{self._name} failed:\n{self._log.read()[-4000:]}")
        return line


def by_turns(entries: Sequence[Entry], rounds: int) -> list[list[Spent]]:
    """What each entry spent in each round; all are warm, and take turns."""
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender(entry)) for entry in entries]
        made = [[contender.run() for contender in contenders] for _ in range(rounds)]
    return [list(each) for each in zip(*made, strict=True)]


def whole_process(entry: Entry) -> Spent:
    """One run, with the start and the end of the process in its wall time. Bytecode of modules that have
    never been run is made by the first one, which should be another.
    """
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-", dir=SCRATCH) as folder:
        began = time.perf_counter()
        command = entry.command(Path(folder) / "out", "--once")
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{entry.name} failed:\n{done.stderr[-4000:]}")
    spent = Spent(**json.loads(done.stdout))
    return Spent(wall, spent.cpu, spent.peak)


def show_profile(entry: Entry) -> None:
    """Say on stderr where the time of an entry goes."""
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-", dir=SCRATCH) as folder:
        command = entry.command(Path(folder) / "out", "--profile")
        subprocess.run(command, cwd=ROOT, check=False)


@dataclass(frozen=True, slots=True)
class Board:
    """Prints the bars of one command."""

    command: str

    def ratio(self, bar: str, ours: Sequence[float], peer: Sequence[float], goal: float, unit: str) -> bool:
        """How many times ours goes into the peer's, run by run, is at least `goal`. The median of the runs
        counts; for a goal below 2 the lower end of the 95% interval of their geometric mean.
        """
        ratios = [theirs / our for our, theirs in zip(ours, peer, strict=True)]
        ratio = lower_end(ratios) if goal < 2 else statistics.median(ratios)
        return self.show(bar, statistics.median(ours), goal, unit, statistics.median(peer), ratio)

    def growth(self, bar: str, few: float, many: float) -> None:
        """Two bars for peaks of memory in MB: at most GROWTH times, and at most GROWTH_MB more."""
        self.show(bar, many, 1 / GROWTH, "MB", few, few / many)
        self.show(f"{bar}, growth", max(many - few, 0), GROWTH_MB, "MB")

    def show(
        self,
        bar: str,
        ours: float,
        goal: float,
        unit: str,
        peer: float | None = None,
        ratio: float | None = None,
    ) -> bool:
        """One bar; returns whether it is met. Without a ratio the goal is the largest ours."""
        met = ours <= goal if ratio is None else ratio >= goal
        line = {
            "bar": bar,
            "ours": round(ours, 3),
            "peer": round(peer, 3) if peer is not None else None,
            "ratio": round(ratio, 3) if ratio is not None else None,
            "goal": round(goal, 3),
            "unit": unit,
            "met": met,
            "command": self.command,
        }
        print(json.dumps(line), flush=True)
        return met


def lower_end(ratios: Sequence[float]) -> float:
    """Of the 95% interval of the geometric mean of PAIRS ratios."""
    assert len(ratios) == PAIRS
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(statistics.mean(logs) - _STUDENT * statistics.stdev(logs) / math.sqrt(PAIRS))
