"""Image classification: the class of the whole picture is learnt.

Shape legend: B pictures of a batch, C, H, W channels, height and width of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import torch
from torch.nn import functional

from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune import confusion
from finemesh.finetune.confusion import Counts
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.counted import CountedObjective, Judged
from finemesh.finetune.objectives.objective import Split, moved
from finemesh.finetune.pictures import ArrayCache, Arrays, PictureRow, lost
from finemesh.finetune.rows import Location, read_manifest
from finemesh.finetune.sight import load_image

if TYPE_CHECKING:
    from PIL import Image


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


class Classification(CountedObjective[Sample, Batch]):
    """The loss is the cross entropy, in nats, over pictures.

    The class of a picture is that of its row where rows of the dataset have classes; otherwise the one that
    all its visible objects share.
    """

    unit = "pictures"
    figures: ClassVar = {"accuracy": confusion.accuracy, "macro_f1": confusion.macro_f1}

    def __init__(self, spec: FineTuneSpec, model: Model, dataset: Path) -> None:
        super().__init__(spec, model, dataset)
        self._labels: Final = {name: label for label, name in enumerate(self.names)}
        self._rows_have_classes: Final = bool(read_manifest(dataset).row_classes)
        self._arrays: Final = ArrayCache(lambda location: self._process(load_image(dataset, location)))

    def sample(self, row: PictureRow, picture: Image.Image) -> Sample | LedgerEntry:
        found = {row.class_name} if self._rows_have_classes else {each.class_name for each in row.objects}
        if len(found) > 1:
            return lost(row, "SEVERAL_CLASSES", f"its objects are of {len(found)} classes", "objects")
        label = self._labels.get(next(iter(found), None) or "")
        if label is None:
            return lost(row, "NO_CLASS", "nothing says which of the dataset's classes it is of", "class_name")
        pixels_CHW = self._arrays.keep(row.location, self._process(picture))["pixels"]
        self.check_shape(row, pixels_CHW.shape)
        _, height, width = pixels_CHW.shape
        return Sample(row.row_id, row.group, row.location, label, height * width)

    def amounts(self, split: Split[Sample]) -> Counts:
        labels = [sample.label for sample in split.samples]
        return np.bincount(labels, minlength=len(self.names)).astype(np.float64)

    def collate(self, split: Split[Sample], samples: Sequence[Sample]) -> Batch:
        del split
        pixels_BCHW = np.stack([self._arrays.load(sample.location)["pixels"] for sample in samples])
        return Batch(torch.from_numpy(pixels_BCHW), torch.tensor([sample.label for sample in samples]))

    def loss(self, batch: Batch) -> torch.Tensor:
        smoothing = self.spec.optimization.label_smoothing
        logits_BC = _logits(self.model, batch)
        return functional.cross_entropy(logits_BC, batch.labels_B, reduction="sum", label_smoothing=smoothing)

    def judge(
        self, model: Model, samples: Sequence[Sample], batch: Batch, *, blank: bool
    ) -> Iterator[Judged]:
        if blank:
            batch = replace(batch, pixels_BCHW=torch.zeros_like(batch.pixels_BCHW))
        logits_BC = _logits(model, batch)
        losses_B = functional.cross_entropy(logits_BC, batch.labels_B, reduction="none").tolist()
        best_B = logits_BC.softmax(-1).max(-1)
        found = zip(samples, best_B.indices.tolist(), best_B.values.tolist(), losses_B, strict=True)
        for sample, label, probability, loss in found:
            sums_3C = confusion.counts(np.array([sample.label]), np.array([label]), len(self.names))
            line = {
                "prediction": self.names[label],
                "expected": self.names[sample.label],
                "correct": label == sample.label,
                "probability": probability,
            }
            yield Judged(sample.row_id, sample.group, sums_3C, loss, 1.0, line)

    def _process(self, picture: Image.Image) -> Arrays:
        pixels_CHW = self.model.processor(picture)["pixel_values"][0]
        return {"pixels": np.asarray(pixels_CHW, dtype=np.float32)}


def _logits(model: Model, batch: Batch) -> torch.Tensor:
    with model.autocast():
        return model.module(pixel_values=batch.pixels_BCHW).logits.float()
