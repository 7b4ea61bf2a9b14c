"""`python -m tests.bench.training_contenders NAME FOLDER`: one way to train, ours or a peer's.

A contender imports its packages, says `ready`, and trains once for every line with a seed that it is sent. It
answers with the seconds on the wall and of the CPU from the end of the first step to that of the last, the
units of those steps (tokens without padding, or pictures), the number of optimiser steps, the peak of its
memory in MB, and the loss on held-out texts where there are some. Peers run under a Python of their own, and
that has no finemesh: so everything is imported where it is needed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.bench.training_common import (
    EPOCHS,
    LINEAR,
    RANK,
    RATE,
    ROWS,
    Clock,
    Train,
    Trained,
    held_out_loss,
    texts_of,
    trained_in,
    with_adapter,
)
from tests.bench.training_peers import PEERS

if TYPE_CHECKING:
    from finemesh.core.spec.finetune import FineTuneSpec

ADAPTERS: Final = {"lora": {"rank": RANK, "alpha": 2.0 * RANK, "target_modules": LINEAR}}
WHOLE: Final = {"full": {"towers": ["VISION", "HEAD"]}}


def _finemesh(task: str, objective: str, method: dict[str, Any], epochs: int = 1) -> Train:
    def train(folder: Path, seed: int) -> Trained:
        from finemesh.finetune.hooks import NoHooks
        from finemesh.finetune.loop import train as run

        clock = Clock()

        class Hooks(NoHooks):
            def on_metrics(self, step: int, values: dict[str, float]) -> None:
                if "train/loss" in values:
                    clock.step_ended()

        spec = _spec(task, objective, method, epochs, seed)
        with tempfile.TemporaryDirectory() as work:
            base, dataset = folder / "model", folder / "dataset"
            run(spec, base_model=base, dataset=dataset, work=Path(work), hooks=Hooks())
            adapters = [*Path(work).glob("checkpoints/*/adapter")]
            loss = held_out_loss(with_adapter(folder, adapters[0]), folder) if adapters else None
        return trained_in(clock, epochs * _units(folder, task) - _first_step(folder, task, seed), loss)

    return train


def language_spec(seed: int) -> FineTuneSpec:
    """What `finemesh-text` trains."""
    return _spec("LANGUAGE", "TEXT", ADAPTERS, 1, seed)


def _spec(task: str, objective: str, method: dict[str, Any], epochs: int, seed: int) -> FineTuneSpec:
    from finemesh.core.spec.finetune import FineTuneSpec

    return FineTuneSpec.from_dict(
        {
            "task": task,
            "objective": objective,
            "base_model": "benchmark",
            "dataset": "projects/benchmark/datasets/benchmark",
            "validation_split": "",
            "test_split": "",
            "method": method,
            "optimization": {
                "learning_rate": RATE,
                "micro_batch_size": ROWS,
                "seed": seed,
                "epochs": float(epochs),
            },
        }
    )


def _first_step(folder: Path, task: str, seed: int) -> int:
    """The units of the first step, which the clock leaves out."""
    if task != "LANGUAGE":
        return ROWS
    from finemesh.finetune.order import epoch_order
    from finemesh.finetune.rows import read_rows

    rows = list(read_rows(folder / "dataset", "train", ("row_id", "text")))
    first = epoch_order([row.row_id for row in rows], seed, 0)[:ROWS]
    return sum(len(rows[index].text.split()) + 1 for index in first)


def _units(folder: Path, task: str) -> int:
    texts = texts_of(folder, "train") if task == "LANGUAGE" else []
    return sum(len(text.split()) + 1 for text in texts) or _pictures(folder)


def _pictures(folder: Path) -> int:
    return json.loads((folder / "dataset/manifest.json").read_bytes())["rows"]


CONTENDERS: Final[dict[str, Train]] = {
    "finemesh-text": _finemesh("LANGUAGE", "TEXT", ADAPTERS),
    "finemesh-llava": _finemesh("VISION_LANGUAGE", "CONVERSATION", ADAPTERS),
    "finemesh-yolos": _finemesh("DETECTION", "CONVERSATION", WHOLE, EPOCHS),
    **PEERS,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(CONTENDERS[given.name](given.folder, int(line)))), file=answers, flush=True)


if __name__ == "__main__":
    main()
