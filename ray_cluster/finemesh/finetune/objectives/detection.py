"""Detection: boxes and classes of objects, by the model's own matching loss.

A step's loss is what the model's own loss would be over all its pictures at once, however they are cut into
micro batches (`families/detector.py`). What looks at several pictures at once is the exception, and lies in
the models: padding, which a mask hides from attention but not from convolutions; batch norms that are
trained; denoising; distillation.

Shape legend: B pictures, N boxes, K parts of the loss; C, H, W channels, height and width of a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune.families.detector import Detector, queries_of
from finemesh.finetune.jsonlines import write_lines
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.detection_scores import (
    Detections,
    Scene,
    average_precisions,
    evaluate,
    items,
)
from finemesh.finetune.objectives.objective import Criterion, Split, moved
from finemesh.finetune.objectives.pictures import PictureObjective
from finemesh.finetune.pictures import (
    ArrayCache,
    Arrays,
    PictureRow,
    lost,
)
from finemesh.finetune.rows import Location
from finemesh.finetune.sight import load_image

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class DetectionSample:
    """One picture and what is to be found in it.

    Attributes:
        scene: the truth, in pixels of the picture as it is stored.
        shown_px: height and width as the model sees it.
        mirrored: whether left and right are swapped.
    """

    scene: Scene
    location: Location
    shown_px: tuple[int, int]
    mirrored: bool = False

    @property
    def row_id(self) -> str:
        return self.scene.row_id

    @property
    def size(self) -> int:
        """Equal for pictures of one shape, and near for those that pad each other little."""
        height, width = self.shown_px
        return (height << 16) + width


@dataclass(frozen=True, slots=True)
class DetectionBatch:
    """One forward pass.

    Attributes:
        inputs: `pixel_values` (B, C, H, W), `labels`, and `pixel_mask` (B, H, W) for models that take one.
        weight: (K,), what the parts of the loss are divided by.
        units: pictures.
        extents_px: of each picture, the height and width in stored pixels that a box of the model is relative
            to.
    """

    inputs: dict[str, Any]
    weight: torch.Tensor
    units: int
    extents_px: list[tuple[float, float]]

    def to(self, device: torch.device) -> DetectionBatch:
        return replace(self, inputs=moved(self.inputs, device), weight=moved(self.weight, device))


class Detection(PictureObjective[DetectionSample, DetectionBatch]):
    """Learns boxes and classes; the best checkpoint is the one with the highest mean average precision."""

    unit = "pictures"
    criterion: ClassVar[Criterion] = Criterion("val/map", higher_is_better=True)

    def __init__(self, spec: FineTuneSpec, model: Model, dataset: Path) -> None:
        super().__init__(spec, model, dataset)
        self._ids: dict[str, int] = {name: int(index) for index, name in model.config.id2label.items()}
        self._detector = detector_of(model)
        self._pixels = ArrayCache(self._make)

    def encode(self, split: str, limit: int = 0) -> Split[DetectionSample]:
        """See `Objective.encode`. Truncated are pictures with more objects than the model can find.

        Raises:
            InvalidError: NO_BOXES, nothing is to be found in the split.
        """
        encoded = super().encode(split, limit)
        queries = queries_of(self.model.config)
        encoded.truncated = sum(sample.scene.count > queries for sample in encoded.samples)
        if not any(sample.scene.count for sample in encoded.samples):
            raise InvalidError.of(
                "spec.dataset",
                f"no box is left in the split {split!r}, so there is nothing to find: see ledger.jsonl for "
                "what became of its rows, or name another split",
                reason="NO_BOXES",
            )
        return encoded

    def sample(self, row: PictureRow, picture: Image.Image) -> DetectionSample | LedgerEntry:
        boxes: list[tuple[float, float, float, float]] = []
        for index, thing in enumerate(row.objects):
            where = f"objects[{index}]"
            if thing.class_name is None:
                message = "it has no class: in training the model would be told that there is nothing"
                return lost(row, "OBJECT_WITHOUT_CLASS", message, f"{where}.class_name")
            box = clipped(thing.bbox_px, picture.size)
            if box is None:
                message = f"{thing.bbox_px} covers no part of a picture of {picture.size} pixels"
                return lost(row, "BOX_OUTSIDE_PICTURE", message, f"{where}.bbox")
            boxes.append(box)
        scene = Scene(
            row_id=row.row_id,
            group=row.group,
            size_px=(picture.height, picture.width),
            boxes_N4=np.asarray(boxes, np.float64).reshape(-1, 4),
            labels_N=np.asarray([self._ids[thing.class_name or ""] for thing in row.objects], np.int64),
            crowd_N=np.asarray([thing.iscrowd for thing in row.objects], np.bool_),
        )
        _, height, width = self._pixels.keep(row.location, self._process(picture))["pixels_CHW"].shape
        return DetectionSample(scene, row.location, (height, width))

    def vary(self, sample: DetectionSample, epoch: int) -> DetectionSample:
        """Mirrored or not, by seed, epoch and row alone."""
        share = self.spec.pictures.horizontal_flip
        if not share:
            return sample
        key = f"{self.spec.optimization.seed}/{epoch}/{sample.row_id}"
        drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
        return replace(sample, mirrored=drawn < share)

    def collate(self, split: Split[DetectionSample], samples: Sequence[DetectionSample]) -> DetectionBatch:
        del split
        pixels = [self._pixels.load(sample.location)["pixels_CHW"] for sample in samples]
        height, width = (max(each.shape[axis] for each in pixels) for axis in (1, 2))
        canvas_BCHW = np.zeros((len(samples), pixels[0].shape[0], height, width), np.float32)
        mask_BHW = np.zeros((len(samples), height, width), np.int64)
        labels: list[dict[str, torch.Tensor]] = []
        extents: list[tuple[float, float]] = []
        for index, (sample, shown) in enumerate(zip(samples, pixels, strict=True)):
            _, rows, columns = shown.shape
            canvas_BCHW[index, :, :rows, :columns] = shown[:, :, ::-1] if sample.mirrored else shown
            mask_BHW[index, :rows, :columns] = 1
            share = (1.0, 1.0) if self._detector.masked else (rows / height, columns / width)
            labels.append(_target(sample, share))
            stored = sample.scene.size_px
            extents.append((stored[0] / share[0], stored[1] / share[1]))
        inputs: dict[str, Any] = {"pixel_values": torch.from_numpy(canvas_BCHW), "labels": labels}
        if self._detector.masked:
            inputs["pixel_mask"] = torch.from_numpy(mask_BHW)
        weights = self._detector.loss.weights(self.model.config, [len(each["boxes"]) for each in labels])
        return DetectionBatch(inputs, torch.tensor(weights), len(samples), extents)

    def loss(self, batch: DetectionBatch) -> torch.Tensor:
        return self._sums(self._forward(self.model, batch), batch)

    def validate(self, split: Split[DetectionSample], folder: Path) -> dict[str, float]:
        loss, found = self._find(self.model, split)
        result = evaluate([sample.scene for sample in split.samples], found, self._ids)
        write_lines(folder / "val.jsonl", items(result))
        return {"val/loss": loss, **average_precisions(result, "val/")}

    def test(self, split: Split[DetectionSample], base_model: Path, folder: Path) -> dict[str, float]:
        """See `Objective.test`. `test.jsonl` has, per picture, what was found and its average precision."""
        metrics = {"test/items": float(len(split.samples))}
        metrics |= self._test(self.model, split, "test/", folder / "test.jsonl")
        if self.spec.evaluation.baselines:
            with self.model.untrained(base_model) as untrained:
                metrics |= self._test(untrained, split, "test/untrained_", folder / "test_untrained.jsonl")
        return metrics

    def _test(self, model: Model, split: Split[DetectionSample], prefix: str, path: Path) -> dict[str, float]:
        loss, found = self._find(model, split)
        scenes = [sample.scene for sample in split.samples]
        result = evaluate(scenes, found, self._ids)
        write_lines(path, items(result))
        low, high = result.interval(self.spec.optimization.seed)
        precisions = average_precisions(result, prefix)
        return {f"{prefix}loss": loss, **precisions, f"{prefix}map_low": low, f"{prefix}map_high": high}

    def _find(self, model: Model, split: Split[DetectionSample]) -> tuple[float, list[Detections]]:
        """The loss over a split, and what the model finds in each of its pictures."""
        found: dict[str, Detections] = {}
        sums_K, weights_K = 0.0, 0.0
        samples = sorted(split.samples, key=lambda sample: sample.shown_px)
        size = self.spec.optimization.micro_batch_size
        with model.evaluating():
            for start in range(0, len(samples), size):
                part = samples[start : start + size]
                batch = self.collate(split, part).to(model.device)
                output = self._forward(model, batch)
                sums_K, weights_K = sums_K + self._sums(output, batch).double(), weights_K + batch.weight
                for sample, each in zip(part, self._detections(model, output, batch), strict=True):
                    found[sample.row_id] = each
        loss = float((sums_K / torch.as_tensor(weights_K).clamp(min=1e-9)).sum())
        return loss, [found[sample.row_id] for sample in split.samples]

    def _forward(self, model: Model, batch: DetectionBatch) -> Any:
        with model.autocast():
            return model.module(**batch.inputs)

    def _sums(self, output: Any, batch: DetectionBatch) -> torch.Tensor:
        return self._detector.loss.sums(self.model.config, output, batch.weight)

    def _detections(self, model: Model, output: Any, batch: DetectionBatch) -> list[Detections]:
        extents = torch.tensor(batch.extents_px, device=model.device)
        output.logits, output.pred_boxes = output.logits.float(), output.pred_boxes.float()
        made = model.processor.post_process_object_detection(output, threshold=0.0, target_sizes=extents)
        return [
            Detections.of(*(each[key].cpu().numpy() for key in ("boxes", "scores", "labels")))
            for each in made
        ]

    def _make(self, location: Location) -> Arrays:
        return self._process(load_image(self.dataset, location))

    def _process(self, picture: Image.Image) -> Arrays:
        shown = self.model.processor(images=[picture], do_pad=False, return_tensors="np")
        return {"pixels_CHW": np.asarray(shown["pixel_values"][0], np.float32)}


def detector_of(model: Model) -> Detector:
    assert model.family.detector  # families of the task have one
    return model.family.detector


def clipped(
    box_px: tuple[float, float, float, float], size_px: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """What of a box (x, y, width, height) lies in a picture of a width and height; None if nothing does."""
    (x, y, width, height), (columns, rows) = box_px, size_px
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, float(columns)), min(y + height, float(rows))
    if right <= left or bottom <= top:
        return None
    return left, top, right - left, bottom - top


def _target(sample: DetectionSample, share: tuple[float, float]) -> dict[str, torch.Tensor]:
    """Boxes as centre x, centre y, width, height from 0 to 1 of what they are relative to. Crowds are left
    out: nobody knows how many objects they are.
    """
    scene = sample.scene
    alone = ~scene.crowd_N
    height, width = scene.size_px
    boxes_N4: npt.NDArray[np.float64] = scene.boxes_N4[alone] / [width, height, width, height]
    boxes_N4[:, :2] += boxes_N4[:, 2:] / 2
    if sample.mirrored:
        boxes_N4[:, 0] = 1 - boxes_N4[:, 0]
    boxes_N4 *= [share[1], share[0], share[1], share[0]]
    return {
        "class_labels": torch.from_numpy(scene.labels_N[alone]),
        "boxes": torch.from_numpy(boxes_N4.astype(np.float32)),
    }
