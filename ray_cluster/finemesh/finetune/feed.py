"""What each optimiser step trains on: a pure function of the order and the position in it.

Steps are made ahead of the training, by a thread: decoding of pictures and much of numpy leave the
interpreter to others meanwhile. What it makes depends on positions alone: being ahead changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final, Self, cast

import torch

from finemesh.core.errors import FinemeshError, UnavailableError
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune.batches import shares
from finemesh.finetune.distributed import ALONE, Group
from finemesh.finetune.objectives.objective import AnyObjective, AnySplit, Batch, Sample
from finemesh.finetune.order import SampleOrder
from finemesh.finetune.sight import row_unreadable

# Steps that are ready or being made while one is trained on: more hold memory and gain nothing.
_AHEAD: Final = 2


@dataclass(frozen=True, slots=True)
class StepInput:
    """The samples of one optimiser step.

    Attributes:
        row_ids: of all of them, in order.
        batches: this rank's share of them, as micro batches on the CPU.
        idle: batches that are passed and count nothing, so that every rank passes as many.
    """

    row_ids: list[str]
    batches: list[Batch]
    idle: list[Batch]


class Feed:
    """The steps over a training split. Close it: its thread is over then.

    Args:
        objective: makes batches of samples, in the thread.
        split: the training split.
        order: which sample comes when.
        spec: says how many samples a step has, and whether a GPU takes them. For one, batches are put into
            page-locked memory, from which it fetches them while it computes.
        total_steps: of the run; nothing is made beyond.
        group: the ranks that share each step.

    Attributes:
        micro_batch_size: rows of a forward pass; fewer than the spec says cut the same steps smaller.
        given: rows of the step that was given last.
    """

    def __init__(
        self,
        objective: AnyObjective,
        split: AnySplit,
        order: SampleOrder,
        spec: FineTuneSpec,
        total_steps: int,
        group: Group = ALONE,
    ) -> None:
        self._objective = objective
        self._split = split
        self._order = order
        self._group = group
        self.micro_batch_size = spec.optimization.micro_batch_size
        self.given: list[str] = []
        self._pin = spec.resources.gpus > 0
        self._thread = ThreadPoolExecutor(1, "feed")
        self._coming: deque[tuple[int, Future[StepInput]]] = deque()
        self.samples_per_step = self.micro_batch_size * spec.optimization.gradient_accumulation_steps
        self._end = total_steps * self.samples_per_step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def at(self, position: int) -> StepInput:
        """The step that begins after `position` samples; quickest for the one after that given last.

        Raises:
            FinemeshError: what making a batch of the step's samples raises, with the row named.
        """
        if not self._coming or self._coming[0][0] != position:
            self._drop()
            self._order_at(position)
        while (
            len(self._coming) <= _AHEAD and (next_ := self._coming[-1][0] + self.samples_per_step) < self._end
        ):
            self._order_at(next_)
        step = self._coming.popleft()[1].result()
        self.given = step.row_ids
        return step

    def close(self) -> None:
        """Make nothing more, and wait for what is in the making."""
        self._drop()
        self._thread.shutdown(wait=True)

    def _order_at(self, position: int) -> None:
        self._coming.append((position, self._thread.submit(self._make, position)))

    def _drop(self) -> None:
        for _, step in self._coming:
            step.cancel()
        self._coming.clear()

    def _make(self, position: int) -> StepInput:
        count = len(self._split.samples)
        samples = [
            self._objective.vary(self._split.samples[index], (position + offset) // count)
            for offset, index in enumerate(self._order.take(position, self.samples_per_step))
        ]
        parts = shares(samples, self.micro_batch_size, self._group.size)
        mine = parts[self._group.rank]
        smallest = min(samples, key=lambda sample: sample.size)
        idle = [[smallest]] * (max(map(len, parts)) - len(mine))
        row_ids = [sample.row_id for sample in samples]
        made = StepInput(row_ids, list(map(self._collate, mine)), list(map(self._collate, idle)))
        return _pinned(made) if self._pin else made

    def _collate(self, samples: Sequence[Sample]) -> Batch:
        try:
            return self._objective.collate(self._split, samples)
        except UnavailableError:  # which names the row
            raise
        except (FinemeshError, OSError, ValueError) as error:
            raise self._named(samples, error) from error

    def _named(self, samples: Sequence[Sample], error: Exception) -> FinemeshError:
        """The error of the first sample that does not make a batch by itself either."""
        for sample in samples:
            try:
                self._objective.collate(self._split, [sample])
            except (FinemeshError, OSError, ValueError) as its_own:
                return row_unreadable(sample.row_id, its_own)
        return row_unreadable(", ".join(sample.row_id for sample in samples), error)


def _pinned(value: Any) -> Any:
    """`value` with every tensor in it, through lists, dicts and dataclasses, in page-locked memory."""
    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if isinstance(value, dict):
        return {key: _pinned(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_pinned(item) for item in cast("list[Any]", value)]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _pinned(getattr(value, each.name)) for each in fields(value)})
    return value
