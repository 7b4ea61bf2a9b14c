"""Semantic segmentation: the class of every pixel is learnt, from the masks of objects.

Masks are painted into one map of classes, larger ones first: where objects overlap, the smaller one is seen.
What no object covers is background, as the spec says.

Shape legend: B pictures of a batch, C classes (of pixels: channels), H, W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import torch
from torch.nn import functional

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import Background, FineTuneSpec
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.finetune import confusion
from finemesh.finetune.confusion import Counts
from finemesh.finetune.heads import BACKGROUND
from finemesh.finetune.masks import ObjectMask, masks_of, paint
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.counted import CountedObjective, Judged
from finemesh.finetune.objectives.objective import Criterion, Split, moved
from finemesh.finetune.pictures import ArrayCache, Arrays, PictureRow
from finemesh.finetune.rows import Location
from finemesh.finetune.sight import load_image

if TYPE_CHECKING:
    from PIL import Image

UNLABELLED: Final = 255  # of a pixel that carries no loss and is not measured
_COUNTS: Final = ("there", "said", "hits", "iou")


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture.

    Attributes:
        masks: the largest first.
        size_px: height and width as it is stored.
        size: pixels that the model is shown.
        weight: those of them that have a class.
    """

    row_id: str
    group: str
    location: Location
    masks: tuple[ObjectMask, ...]
    size_px: tuple[int, int]
    size: int
    weight: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures with their maps of classes, as the model is shown them."""

    pixels_BCHW: torch.Tensor
    labels_BHW: torch.Tensor
    weight: float
    units: int

    def to(self, device: torch.device) -> Batch:
        pixels_BCHW, labels_BHW = moved([self.pixels_BCHW, self.labels_BHW], device)
        return replace(self, pixels_BCHW=pixels_BCHW, labels_BHW=labels_BHW)


class SemanticSegmentation(CountedObjective[Sample, Batch]):
    """The loss is the cross entropy, in nats, over pixels that have a class; logits are upsampled to them.

    Figures are measured on pictures as they are stored, not as the model is shown them.
    """

    unit = "pictures"
    criterion: ClassVar[Criterion] = Criterion("val/mean_iou", higher_is_better=True)
    figures: ClassVar = {"mean_iou": confusion.mean_iou, "pixel_accuracy": confusion.accuracy}

    def __init__(self, spec: FineTuneSpec, model: Model, dataset: Path) -> None:
        super().__init__(spec, model, dataset)
        self._labels: Final = {name: label for label, name in enumerate(self.names)}
        covers = spec.segmentation.background is Background.CLASS
        self._uncovered: Final = self._labels[BACKGROUND] if covers else UNLABELLED
        self._arrays: Final = ArrayCache(
            lambda location, masks: self._process(load_image(dataset, location), masks)
        )
        if len(self.names) > UNLABELLED:
            raise InvalidError.of(
                "spec.dataset",
                f"{len(self.names)} classes, at most {UNLABELLED} go into a map: join some",
                reason="TOO_MANY_CLASSES",
            )

    def sample(self, row: PictureRow, picture: Image.Image) -> Sample | LedgerEntry:
        size_px = (picture.height, picture.width)
        masks = masks_of(row, size_px, self._labels)
        if isinstance(masks, LedgerEntry):
            return masks
        arrays = self._process(picture, masks)
        labels_HW = arrays["labels"]
        self.check_shape(row, labels_HW.shape)
        weight = int((labels_HW != UNLABELLED).sum())
        if not weight:
            message = "no pixel has a class: no object covers one at the size that the model is shown"
            return LedgerEntry(row.row_id, Disposition.DROPPED, "NO_LABELLED_PIXELS", message, "objects")
        self._arrays.keep(row.location, arrays)
        return Sample(row.row_id, row.group, row.location, masks, size_px, labels_HW.size, weight)

    def amounts(self, split: Split[Sample]) -> Counts:
        counts_256 = np.zeros(UNLABELLED + 1)
        for sample in split.samples:
            counts_256 += np.bincount(self._load(sample)["labels"].ravel(), minlength=256)
        return counts_256[: len(self.names)]

    def collate(self, split: Split[Sample], samples: Sequence[Sample]) -> Batch:
        del split
        arrays = [self._load(sample) for sample in samples]
        return Batch(
            pixels_BCHW=torch.from_numpy(np.stack([each["pixels"] for each in arrays])),
            labels_BHW=torch.from_numpy(np.stack([each["labels"] for each in arrays])),
            weight=float(sum(sample.weight for sample in samples)),
            units=len(samples),
        )

    def loss(self, batch: Batch) -> torch.Tensor:
        return _losses(_logits(self.model, batch), batch).sum()

    def judge(
        self, model: Model, samples: Sequence[Sample], batch: Batch, *, blank: bool
    ) -> Iterator[Judged]:
        if blank:
            batch = replace(batch, pixels_BCHW=torch.zeros_like(batch.pixels_BCHW))
        logits_BCHW = _logits(model, batch)
        losses_B = _losses(logits_BCHW, batch).sum((1, 2)).tolist()
        for sample, logits_CHW, loss in zip(samples, logits_BCHW, losses_B, strict=True):
            predicted_HW = _upsampled(logits_CHW[None], sample.size_px)[0].argmax(0).cpu().numpy()
            expected_HW = paint(sample.masks, sample.size_px, self._uncovered)
            counted_HW = expected_HW != UNLABELLED
            sums_3C = confusion.counts(
                expected_HW[counted_HW].astype(np.int64), predicted_HW[counted_HW], len(self.names)
            )
            line: dict[str, Any] = {
                name: float(figure(sums_3C[None])[0]) for name, figure in self.figures.items()
            }
            classes = [each for each in confusion.table(sums_3C, self.names) if each["said"] or each["there"]]
            line["classes"] = {each["class"]: {key: each[key] for key in _COUNTS} for each in classes}
            yield Judged(sample.row_id, sample.group, sums_3C, loss, sample.weight, line)

    def _load(self, sample: Sample) -> Arrays:
        return self._arrays.load(sample.location, sample.masks)

    def _process(self, picture: Image.Image, masks: Sequence[ObjectMask]) -> Arrays:
        """What the model is shown. Processors that count classes from 1 are told that these begin at 0."""
        map_HW = paint(masks, (picture.height, picture.width), self._uncovered)
        shown = self.model.processor(picture, segmentation_maps=map_HW, do_reduce_labels=False)
        return {
            "pixels": np.asarray(shown["pixel_values"][0], np.float32),
            "labels": np.asarray(shown["labels"][0], np.uint8),
        }


def _logits(model: Model, batch: Batch) -> torch.Tensor:
    with model.autocast():
        return model.module(pixel_values=batch.pixels_BCHW).logits.float()


def _upsampled(logits_BCHW: torch.Tensor, size_px: tuple[int, int]) -> torch.Tensor:
    return functional.interpolate(logits_BCHW, size=size_px, mode="bilinear", align_corners=False)


def _losses(logits_BCHW: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, H, W), 0 where a pixel has no class."""
    _, height, width = batch.labels_BHW.shape
    return functional.cross_entropy(
        _upsampled(logits_BCHW, (height, width)),
        batch.labels_BHW.long(),
        ignore_index=UNLABELLED,
        reduction="none",
    )
