"""Image classification: the class of the whole picture is learnt.

Shape legend: B pictures of a batch, C, H, W channels, height and width of a picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune import confusion
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.objective import Split, moved
from finemesh.finetune.objectives.pictures import PictureObjective, evaluating, with_interval, write_lines
from finemesh.finetune.pictures import ArrayCache, Arrays, PictureRow, load_picture, lost
from finemesh.finetune.rows import Location, read_manifest
from finemesh.finetune.statistics import clustered


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture. `label` is the index of its class, `size` counts pixels that the model is shown."""

    row_id: str
    group: str
    location: Location
    label: int
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures with their classes."""

    pixels_BCHW: torch.Tensor
    labels_B: torch.Tensor

    @property
    def weight(self) -> float:
        return len(self.labels_B)

    @property
    def units(self) -> int:
        return len(self.labels_B)

    def to(self, device: torch.device) -> Batch:
        return replace(
            self, pixels_BCHW=moved(self.pixels_BCHW, device), labels_B=moved(self.labels_B, device)
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What the model made of one picture. `loss` is in nats, `probability` that of the predicted class."""

    sample: Sample
    predicted: int
    probability: float
    loss: float


class Classification(PictureObjective[Sample, Batch]):
    """The loss is the cross entropy, in nats, over pictures.

    The class of a picture is that of its row where rows of the dataset have classes; otherwise the one that
    all its visible objects share.
    """

    unit = "pictures"

    def __init__(self, spec: FineTuneSpec, model: Model, dataset: Path) -> None:
        super().__init__(spec, model, dataset)
        self._names: Final = [name for _, name in sorted(model.config.id2label.items())]
        self._labels: Final = dict(model.config.label2id)
        self._rows_have_classes: Final = bool(read_manifest(dataset).row_classes)
        self._arrays: Final = ArrayCache(lambda location: self._process(load_picture(dataset, location)))
        self._shape: tuple[int, ...] = ()
        self._majority = 0

    def sample(self, row: PictureRow, picture: Image.Image) -> Sample | LedgerEntry:
        found = {row.class_name} if self._rows_have_classes else {each.class_name for each in row.objects}
        if len(found) > 1:
            return lost(row, "SEVERAL_CLASSES", f"its objects are of {len(found)} classes", "objects")
        label = self._labels.get(next(iter(found), None) or "")
        if label is None:
            return lost(row, "NO_CLASS", "nothing says which of the dataset's classes it is of", "class_name")
        pixels_CHW = self._arrays.keep(row.location, self._process(picture))["pixels"]
        self._shape = self._shape or pixels_CHW.shape
        if pixels_CHW.shape != self._shape:
            raise InvalidError.of(
                "spec.base_model",
                f"its processor makes {pixels_CHW.shape} of the picture of row {row.row_id}, {self._shape} "
                "of others: let its preprocessor_config.json resize or crop them to one size",
                reason="BASE_MODEL_UNSUITABLE",
            )
        _, height, width = pixels_CHW.shape
        return Sample(row.row_id, row.group, row.location, label, height * width)

    def begin(self, splits: Mapping[str, Split[Sample]]) -> None:
        self._majority = Counter(sample.label for sample in splits["train"].samples).most_common(1)[0][0]

    def collate(self, split: Split[Sample], samples: Sequence[Sample]) -> Batch:
        del split
        pixels_BCHW = np.stack([self._arrays.load(sample.location)["pixels"] for sample in samples])
        return Batch(torch.from_numpy(pixels_BCHW), torch.tensor([sample.label for sample in samples]))

    def loss(self, batch: Batch) -> torch.Tensor:
        return functional.cross_entropy(_logits(self.model, batch), batch.labels_B, reduction="sum")

    def validate(self, split: Split[Sample]) -> dict[str, float]:
        return self._averages("val", self._decide(self.model, split))

    def test(self, split: Split[Sample], base_model: Path, folder: Path) -> dict[str, float]:
        decisions = self._decide(self.model, split)
        write_lines(folder / "test.jsonl", map(self._line, decisions))
        classes = confusion.table(_sums(decisions, self._names).sum(0), self._names)
        write_lines(folder / "test_classes.jsonl", classes)
        metrics = {"test/items": float(len(decisions)), **self._averages("test", decisions)}
        metrics |= self._intervals("test/", decisions)
        if not self.spec.evaluation.baselines:
            return metrics
        majority = [replace(each, predicted=self._majority) for each in decisions]
        metrics |= self._intervals("test/majority_", majority)
        blanked = self._decide(self.model, split, blank=True)
        write_lines(folder / "test_blanked.jsonl", map(self._line, blanked))
        metrics |= self._intervals("test/blanked_", blanked)
        with self.model.untrained(base_model) as untrained:
            decisions = self._decide(untrained, split)
        write_lines(folder / "test_untrained.jsonl", map(self._line, decisions))
        return metrics | self._intervals("test/untrained_", decisions)

    def _process(self, picture: Image.Image) -> Arrays:
        pixels_CHW = self.model.processor(picture)["pixel_values"][0]
        return {"pixels": np.asarray(pixels_CHW, dtype=np.float32)}

    def _decide(self, model: Model, split: Split[Sample], *, blank: bool = False) -> list[Decision]:
        """In the order of the split. `blank` shows the processor's mean colour in place of every picture."""
        with evaluating(model):
            return [each for batch in self._batches(split) for each in _decisions(model, *batch, blank=blank)]

    def _batches(self, split: Split[Sample]) -> Iterator[tuple[Sequence[Sample], Batch]]:
        size = self.spec.optimization.micro_batch_size
        for start in range(0, len(split.samples), size):
            samples = split.samples[start : start + size]
            yield samples, self.collate(split, samples)

    def _averages(self, split: str, decisions: Sequence[Decision]) -> dict[str, float]:
        sums_13C = _sums(decisions, self._names).sum(0, keepdims=True)
        return {
            f"{split}/loss": sum(each.loss for each in decisions) / len(decisions),
            f"{split}/accuracy": float(confusion.accuracy(sums_13C)[0]),
            f"{split}/macro_f1": float(confusion.macro_f1(sums_13C)[0]),
        }

    def _intervals(self, prefix: str, decisions: Sequence[Decision]) -> dict[str, float]:
        sums_I3C = _sums(decisions, self._names)
        groups = [each.sample.group for each in decisions]
        return {
            key: value
            for name, metric in (("accuracy", confusion.accuracy), ("macro_f1", confusion.macro_f1))
            for key, value in with_interval(
                prefix + name, clustered(sums_I3C, groups, metric, self.spec.optimization.seed)
            ).items()
        }

    def _line(self, decision: Decision) -> dict[str, Any]:
        names, sample = self._names, decision.sample
        return {
            "row_id": sample.row_id,
            "group": sample.group,
            "prediction": names[decision.predicted],
            "expected": names[sample.label],
            "correct": decision.predicted == sample.label,
            "probability": decision.probability,
            "loss": decision.loss,
        }


def _logits(model: Model, batch: Batch) -> torch.Tensor:
    with model.autocast():
        return model.module(pixel_values=batch.pixels_BCHW).logits.float()


def _decisions(model: Model, samples: Sequence[Sample], batch: Batch, *, blank: bool) -> Iterator[Decision]:
    batch = batch.to(model.device)
    if blank:
        batch = replace(batch, pixels_BCHW=torch.zeros_like(batch.pixels_BCHW))
    logits_BC = _logits(model, batch)
    losses_B = functional.cross_entropy(logits_BC, batch.labels_B, reduction="none").tolist()
    best_B = logits_BC.softmax(-1).max(-1)
    yield from map(Decision, samples, best_B.indices.tolist(), best_B.values.tolist(), losses_B)


def _sums(decisions: Sequence[Decision], classes: Sequence[str]) -> confusion.Counts:
    """What each decision adds to `confusion`, (I, 3 * C)."""
    return np.stack(
        [
            confusion.counts(np.array([each.sample.label]), np.array([each.predicted]), len(classes))
            for each in decisions
        ]
    )
