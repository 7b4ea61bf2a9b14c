"""What each optimiser step trains on: a pure function of the order and the position in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finemesh.core.spec.finetune import Optimization
from finemesh.finetune.batches import cut
from finemesh.finetune.objectives.objective import AnyObjective, AnySplit, Batch, Sample
from finemesh.finetune.order import SampleOrder


@dataclass(frozen=True, slots=True)
class StepInput:
    """The samples of one optimiser step by their ids, in order, and as micro batches on the CPU."""

    row_ids: list[str]
    batches: list[Batch]


class Feed:
    """The endless sequence of steps over a training split."""

    def __init__(
        self, objective: AnyObjective, split: AnySplit, order: SampleOrder, optimization: Optimization
    ) -> None:
        self._objective = objective
        self._split = split
        self._order = order
        self._micro_batch_size = optimization.micro_batch_size
        self.samples_per_step = optimization.micro_batch_size * optimization.gradient_accumulation_steps

    def at(self, position: int) -> StepInput:
        """The step that begins after `position` samples."""
        samples = [self._split.samples[i] for i in self._order.take(position, self.samples_per_step)]
        return StepInput([sample.row_id for sample in samples], self._collate(samples))

    def _collate(self, samples: Sequence[Sample]) -> list[Batch]:
        parts = cut(samples, self._micro_batch_size)
        return [self._objective.collate(self._split, part) for part in parts]
