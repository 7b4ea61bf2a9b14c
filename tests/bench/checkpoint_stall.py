"""The part of `make bench-training` about checkpoints: how long training waits for them.

A model of 10 million parameters is tuned in full: with AdamW's moments a state of 0.13 GB, saved every 50
steps. The bar is the share of the time of all steps that the training thread spends on checkpoints; the peer
is what it would be if that thread wrote them as well.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from finemesh.core.spec.finetune import Checkpointing, FineTuneSpec, Full, Optimization, Task, Tower
from finemesh.finetune import checkpoint as checkpoints
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.loop import train
from finemesh.finetune.saving import Saver

from tests.bench.measuring import Board
from tests.support.conversations import DATASET, text_rows, tiny_model, write_dataset

STEPS: Final = 150
EVERY: Final = 50
GOAL_PERCENT: Final = 5.0


class Steps(NoHooks):
    """When each step had ended, its checkpoint included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_progress(self, fraction: float, message: str) -> None:
        if message.startswith("step "):
            self.ends.append(time.perf_counter())


class Stopwatch:
    """Seconds spent in functions while the steps were taken."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.spans.append((began, time.perf_counter()))

        return timed

    def until(self, end: float) -> float:
        return sum(min(stop, end) - start for start, stop in self.spans if start < end)


def main() -> None:
    waited, written, steps = Stopwatch(), Stopwatch(), Steps()
    Saver.begin = waited.around(Saver.begin)  # waits for the one before, and copies
    Saver.poll = waited.around(Saver.poll)  # tells of one that has become whole
    checkpoints.write_checkpoint = written.around(checkpoints.write_checkpoint)
    # On a disk, unlike the other benchmarks: it is what checkpoints wait for.
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
        _train(Path(folder), steps)
    end = steps.ends[-1]
    whole = end - steps.ends[0]
    ours, apart = waited.until(end), written.until(end)
    print(f"{len(steps.ends)} steps in {whole:.1f} s, {apart:.2f} s of writing beside", file=sys.stderr)
    share, peer = 100 * ours / whole, 100 * (ours + apart) / whole
    Board("make bench-training").show("checkpoint stall", share, GOAL_PERCENT, "% of the steps", peer)


def _train(folder: Path, steps: Steps) -> None:
    base = bench_model(folder / "base")
    dataset = write_dataset(folder / "texts", list(text_rows({"train": 400})))
    spec = FineTuneSpec(
        task=Task.LANGUAGE,
        base_model="bench",
        dataset=DATASET,
        validation_split="",
        test_split="",
        method=Full((Tower.LANGUAGE,)),
        optimization=Optimization(max_steps=STEPS, micro_batch_size=8),
        checkpoint=Checkpointing(every_steps=EVERY),
    )
    train(spec, base_model=base, dataset=dataset, work=folder / "work", hooks=steps)


def bench_model(folder: Path) -> Path:
    """Random weights in a shape of our own, with the tokenizer of a tiny model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tiny_model(folder, "llama")
    config = AutoConfig.from_pretrained(folder)
    config.update(
        {
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "head_dim": 64,
        }
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
