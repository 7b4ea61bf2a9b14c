"""`python -m tests.bench.training_steps FOLDER`: our loop and a bare one in one process, by turns after each
step.

Both take the same packed batches in the same order. A shared machine is faster or slower for seconds at a
time, and whole trainings by turns measure that. Prints the seconds of each block of steps, of both.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from finemesh.finetune.attention import PACKED, register
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.order import epoch_order
from finemesh.finetune.run import Run, prepare
from finemesh.finetune.step import take_step

from tests.bench.measuring import PAIRS
from tests.bench.training_common import RATE, ROWS, encoded, with_lora
from tests.bench.training_contenders import language_spec

WARM_STEPS: Final = 4
BLOCK_STEPS: Final = 8
Step = Callable[[], object]


def blocks(folder: Path) -> dict[str, list[list[float]]]:
    """Seconds of CPU and on the wall of each of PAIRS blocks, for `ours` and `bare`."""
    spent: dict[str, list[list[float]]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as work:
        base, dataset = folder / "model", folder / "dataset"
        run = prepare(language_spec(seed=0), base, dataset, Path(work), NoHooks(), None)
        run.model.train()
        bare = _bare_steps(folder)
        loops: list[tuple[str, Step]] = [("ours", lambda: _our_step(run)), ("bare", lambda: next(bare))]
        with run.feed, run.saver:
            for number in range(WARM_STEPS + PAIRS * BLOCK_STEPS):
                for name, step in loops if number % 2 else reversed(loops):
                    took = _timed(step)
                    if number < WARM_STEPS:
                        continue
                    if (number - WARM_STEPS) % BLOCK_STEPS == 0:
                        spent[name].append([0.0, 0.0])
                    spent[name][-1] = [sum(pair) for pair in zip(spent[name][-1], took, strict=True)]
    return spent


def _timed(step: Step) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.process_time() - cpu, time.perf_counter() - wall


def _our_step(run: Run) -> None:
    run.saver.poll()
    run.check_stop()
    take_step(run)


def _bare_steps(folder: Path) -> Iterator[None]:
    """Nobody's loop: batches were packed before, by the attention that keeps samples apart."""
    register()
    ids = encoded(folder)
    order = epoch_order([f"text-{number}" for number in range(len(ids))], 0, 0)
    chosen = [sorted((ids[i] for i in order[at : at + ROWS]), key=len) for at in range(0, len(order), ROWS)]
    batches = [_packed(part) for part in chosen]
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation=PACKED)
    model = with_lora(base)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, len(batches) // 33 + 1, len(batches))
    model.train()
    for inputs, keep, targets in batches:
        logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits
        torch.nn.functional.cross_entropy(logits, targets).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        yield


def _packed(part: Sequence[Sequence[int]]) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    keep = torch.tensor([[at < len(ids) - 1 for ids in part for at in range(len(ids))]])
    inputs = {
        "input_ids": torch.tensor([[token for ids in part for token in ids]]),
        "position_ids": torch.tensor([[at for ids in part for at in range(len(ids))]]),
        "sequence_lengths": [len(ids) for ids in part],
    }
    return inputs, keep, torch.tensor([token for ids in part for token in ids[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    print(json.dumps(blocks(given.folder)), file=answers)


if __name__ == "__main__":
    main()
