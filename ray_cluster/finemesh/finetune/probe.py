"""`python -m finemesh.finetune probe spec.yaml …`: measure what was only forecast.

The real run is prepared, and takes its steps over its largest micro batch: one to warm up, three that count.
Peak memory is that of the process on a CPU, and of the allocator on a GPU; weights are moved and thrown away.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch

from finemesh.core.spec.estimate.base_model import FamilyParts
from finemesh.core.spec.estimate.duration import TimeForecast, time_of
from finemesh.core.spec.estimate.folder import read_folder
from finemesh.core.spec.estimate.memory import Load, MemoryForecast, memory_of
from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec
from finemesh.finetune.batches import cut
from finemesh.finetune.families import family_of
from finemesh.finetune.families.family import Family
from finemesh.finetune.feed import Feed, StepInput
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.objectives.objective import Sample
from finemesh.finetune.run import Run, prepare, sample_order
from finemesh.finetune.step import take_step
from finemesh.finetune.usage import peak_memory_bytes

_STEPS: Final = 3
# Steps of a run that are looked at for its largest micro batch.
_LOOKED_AT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Probe:
    """What three steps came to, beside the forecast.

    Attributes:
        peak_memory_bytes: highest memory of the process, or of the GPU where it trains on one.
        step_seconds: of an optimiser step, its micro batches taken to be as large as the largest.
        longest_batch_size: tokens or pixels of that, padding included.
        rows: of it.
    """

    peak_memory_bytes: int
    step_seconds: float
    longest_batch_size: int
    rows: tuple[str, ...]
    memory: MemoryForecast
    time: TimeForecast

    @property
    def inside(self) -> bool:
        """Whether the forecast holds what was measured."""
        return self.memory.peak.holds(self.peak_memory_bytes)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"peak": asdict(self.memory.peak), "inside": self.inside}


def probe(spec: FineTuneSpec, base_model: Path, dataset: Path) -> Probe:
    """Take a few steps of `spec` over its largest micro batch. Raises what `train` raises before its end."""
    spec.validate()
    torch.set_num_threads(max(1, int(spec.resources.cpus)))
    alone = replace(spec, validation_split="", test_split="", resources=replace(spec.resources, workers=1))
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(alone, base_model, dataset, Path(folder), NoHooks(), None)
        with run.feed:
            return _measure(run, base_model)


def parts_of(family: Family) -> FamilyParts:
    """What an estimate needs to know of a family."""
    return FamilyParts(family.name, family.task, family.towers, family.lora_targets)


def _measure(run: Run, base_model: Path) -> Probe:
    samples = largest_micro_batch(run.spec, run.splits["train"].samples)
    run.feed = cast("Feed", _Again(run, samples))
    run.model.train()
    seconds: list[float] = []
    for _ in range(1 + _STEPS):
        started = time.perf_counter()
        take_step(run)
        seconds.append(time.perf_counter() - started)
    size, times = computed_size(run.spec, samples), run.spec.optimization.gradient_accumulation_steps
    base, parts = read_folder(base_model), parts_of(family_of(base_model, run.spec.task))
    load = Load(
        longest_batch_tokens=size if run.spec.task in TEXT_TOWERS else 0, classes=len(run.model.classes)
    )
    rows = run.splits["train"].samples
    mean = sum(sample.size for sample in rows) / len(rows)
    return Probe(
        peak_memory_bytes=peak_memory_bytes(),
        step_seconds=statistics.median(seconds[1:]) * times,
        longest_batch_size=size,
        rows=tuple(sample.row_id for sample in samples),
        memory=memory_of(run.spec, base, parts, load),
        time=time_of(run.spec, base, parts, rows=len(rows), row_tokens=mean),
    )


class _Again:
    """The same micro batch for every step, made anew each time as the feed does."""

    def __init__(self, run: Run, samples: Sequence[Sample]) -> None:
        self._run = run
        self._samples = samples

    def at(self, _position: int) -> StepInput:
        batch = self._run.objective.collate(self._run.splits["train"], self._samples)
        return StepInput([sample.row_id for sample in self._samples], [batch], [])


def largest_micro_batch(spec: FineTuneSpec, samples: Sequence[Sample]) -> list[Sample]:
    """Of the micro batches of a run, in its order."""
    optimization = spec.optimization
    per_step = optimization.micro_batch_size * optimization.gradient_accumulation_steps
    order, steps = sample_order(spec, samples), -(-len(samples) // per_step)
    taken = (
        [samples[index] for index in order.take(step * per_step, per_step)]
        for step in range(min(steps, _LOOKED_AT))
    )
    parts = (part for step in taken for part in cut(step, optimization.micro_batch_size))
    return max(parts, key=lambda part: computed_size(spec, part))


def computed_size(spec: FineTuneSpec, samples: Sequence[Sample]) -> int:
    """Tokens or pixels of a forward pass, padding included."""
    sizes = [sample.size for sample in samples]
    packed = spec.task in TEXT_TOWERS and spec.sequence.packing
    return sum(sizes) if packed else max(sizes) * len(sizes)
