"""What the loop asks of an objective. The loop knows steps, batches and losses; all else is known here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar, cast

import torch

from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import LedgerEntry, LedgerSummary

if TYPE_CHECKING:  # a model knows its batches, and these are made here
    from finemesh.finetune.models import Model


class Sample(Protocol):
    """One row, ready to be collated. `size` is what its computation grows with: tokens, pixels."""

    @property
    def row_id(self) -> str: ...
    @property
    def size(self) -> int: ...


class Batch(Protocol):
    """One forward pass.

    Attributes:
        weight: what the loss of the batch is a sum over; the losses of a step are divided by the sum of their
            weights. Of a loss in several parts, each a sum over something else, a tensor with one for each.
        units: how much is computed, in the objective's unit, padding left out.
    """

    @property
    def weight(self) -> float | torch.Tensor: ...
    @property
    def units(self) -> int: ...
    def to(self, device: torch.device) -> Self: ...


S = TypeVar("S", bound=Sample)
B = TypeVar("B", bound=Batch)


@dataclass(slots=True)
class Split(Generic[S]):
    """The samples of one split in the order of the dataset, and what became of every row."""

    samples: list[S]
    entries: list[LedgerEntry]
    truncated: int

    @property
    def ledger(self) -> LedgerSummary:
        return LedgerSummary.of(len(self.entries), self.entries).check()


@dataclass(frozen=True, slots=True)
class Criterion:
    """The validation metric that says which of two checkpoints is better."""

    metric: str
    higher_is_better: bool = False

    def better(self, value: float, than: float, by: float = 0.0) -> bool:
        """Whether `value` is better, by more than `by`."""
        return value > than + by if self.higher_is_better else value < than - by


LOWEST_LOSS: Final = Criterion("val/loss")


class Objective(ABC, Generic[S, B]):
    """What one run learns from one dataset with one model.

    Attributes:
        unit: of `Batch.units`, in the plural, as metrics name it.
        criterion: what the best checkpoint is chosen by.
    """

    unit: ClassVar[str]
    criterion: ClassVar[Criterion] = LOWEST_LOSS

    def __init__(self, spec: FineTuneSpec, model: Model, dataset: Path) -> None:
        self.spec = spec
        self.model = model
        self.dataset = dataset

    @abstractmethod
    def encode(self, split: str, limit: int = 0) -> Split[S]:
        """Make the samples of a split, or of its first `limit` rows.

        Raises:
            PreconditionError: SPLIT_EMPTY, the dataset has no row in it.
            InvalidError: the rows cannot be used as the spec says.
        """

    def restore(self, samples: list[S], entries: list[LedgerEntry], truncated: int) -> Split[S]:
        """A split as `encode` made it, of what was kept of it (see `prepared`)."""
        return Split(samples, entries, truncated)

    def begin(self, splits: Mapping[str, Split[S]]) -> None:
        """Told the splits by role (`train`, `val`, `test`), once, while the model is still untrained."""

    def vary(self, sample: S, epoch: int) -> S:
        """The sample as it is shown in an epoch, from 0: as it is, or changed by seed, epoch and row."""
        del epoch
        return sample

    @abstractmethod
    def collate(self, split: Split[S], samples: Sequence[S]) -> B:
        """The batch of some samples of a split, on the CPU. May be called from another thread."""

    @abstractmethod
    def loss(self, batch: B) -> torch.Tensor:
        """The sum of the losses over `batch.weight`, or those of its parts, to be differentiated."""

    @abstractmethod
    def validate(self, split: Split[S], folder: Path) -> dict[str, float]:
        """Score the validation split: `val/loss` and others. `folder` takes `val.jsonl`, as in `test`."""

    @abstractmethod
    def test(self, split: Split[S], base_model: Path, folder: Path) -> dict[str, float]:
        """Score the test split: `test/loss` and others, with intervals, and baselines if the spec asks.

        Args:
            split: the test split.
            base_model: folder of the untrained model.
            folder: takes the results of each item, as JSON lines, for paired comparison of runs.
        """


AnyObjective = Objective[Any, Any]
AnySplit = Split[Any]


def moved(value: Any, device: torch.device) -> Any:
    """`value` with every tensor in it, through lists and dicts, on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [moved(item, device) for item in cast("list[Any]", value)]
    return value
