"""Objectives that are judged by counting: how much of each class is there, was said to be, and was found.

Every figure of the test follows from what it writes of its items.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune import confusion
from finemesh.finetune.confusion import Counts
from finemesh.finetune.jsonlines import write_lines
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.objective import B, S, Split
from finemesh.finetune.objectives.pictures import PictureObjective
from finemesh.finetune.statistics import clustered


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model made of one picture.

    Attributes:
        sums_3C: what it adds to the counts of `confusion`.
        loss: a sum over `weight`, in nats.
        line: what is written of it beside ids and loss.
    """

    row_id: str
    group: str
    sums_3C: Counts
    loss: float
    weight: float
    line: dict[str, Any]


class CountedObjective(PictureObjective[S, B]):
    """An objective whose figures are computed from counts of its classes.

    Attributes:
        figures: by name, what is measured: sums (R, 3 * C) -> (R,).
        names: of the model's classes, in the order of its outputs.
    """

    figures: ClassVar[Mapping[str, Callable[[Counts], Counts]]]

    def __init__(self, spec: FineTuneSpec, model: Model, dataset: Path) -> None:
        super().__init__(spec, model, dataset)
        self.names: list[str] = [name for _, name in sorted(model.config.id2label.items())]
        self._majority = 0

    @abstractmethod
    def amounts(self, split: Split[S]) -> Counts:
        """How much of each class a split holds, (C,)."""

    @abstractmethod
    def judge(self, model: Model, samples: Sequence[S], batch: B, *, blank: bool) -> Iterator[Judged]:
        """What `model` makes of a batch. `blank` shows it the mean colour in place of every picture."""

    def begin(self, splits: Mapping[str, Split[S]]) -> None:
        if self.spec.evaluation.baselines:
            self._majority = int(self.amounts(splits["train"]).argmax())

    def validate(self, split: Split[S], folder: Path) -> dict[str, float]:
        judged = self._judged(self.model, split)
        _write(folder / "val.jsonl", judged)
        return self._averages("val/", judged)

    def test(self, split: Split[S], base_model: Path, folder: Path) -> dict[str, float]:
        """Baselines: the class that is most frequent in training for everything (`majority`), the trained
        model without pictures (`blanked`), and the untrained model.
        """
        judged = self._judged(self.model, split)
        table = confusion.table(_total(judged)[0], self.names)
        write_lines(folder / "test_classes.jsonl", table)
        metrics = {"test/items": float(len(judged)), **self._averages("test/", judged)}
        metrics |= self._intervals("test/", judged)
        _write(folder / "test.jsonl", judged)
        if not self.spec.evaluation.baselines:
            return metrics
        label = self._majority
        blind = [replace(each, sums_3C=confusion.constant(each.sums_3C, label)) for each in judged]
        metrics |= self._intervals("test/majority_", blind)
        blanked = self._judged(self.model, split, blank=True)
        _write(folder / "test_blanked.jsonl", blanked)
        metrics |= self._intervals("test/blanked_", blanked)
        with self.model.untrained(base_model) as untrained:
            judged = self._judged(untrained, split)
        _write(folder / "test_untrained.jsonl", judged)
        return metrics | self._intervals("test/untrained_", judged)

    def _judged(self, model: Model, split: Split[S], *, blank: bool = False) -> list[Judged]:
        """In the order of the split."""
        size = self.spec.optimization.micro_batch_size
        judged: list[Judged] = []
        with model.evaluating():
            for start in range(0, len(split.samples), size):
                samples = split.samples[start : start + size]
                batch = self.collate(split, samples).to(model.device)
                judged += self.judge(model, samples, batch, blank=blank)
        return judged

    def _averages(self, prefix: str, judged: Sequence[Judged]) -> dict[str, float]:
        figures = {name: float(figure(_total(judged))[0]) for name, figure in self.figures.items()}
        loss = sum(each.loss for each in judged) / sum(each.weight for each in judged)
        return {f"{prefix}{name}": value for name, value in {"loss": loss, **figures}.items()}

    def _intervals(self, prefix: str, judged: Sequence[Judged]) -> dict[str, float]:
        sums_I3C = np.stack([each.sums_3C for each in judged])
        groups = [each.group for each in judged]
        metrics: dict[str, float] = {}
        for name, figure in self.figures.items():
            interval = clustered(sums_I3C, groups, figure, self.spec.optimization.seed)
            metrics |= interval.named(prefix + name)
        return metrics


def _total(judged: Sequence[Judged]) -> Counts:
    return np.sum([each.sums_3C for each in judged], axis=0, keepdims=True)


def _write(path: Path, judged: Sequence[Judged]) -> None:
    write_lines(
        path,
        (
            {
                "row_id": each.row_id,
                "group": each.group,
                **each.line,
                "loss": each.loss / each.weight,
                "weight": each.weight,
            }
            for each in judged
        ),
    )
