"""Instance segmentation: the mask and class of every object, by the model's own matching loss.

The loss pairs queries with objects and has two parts: classes, a mean over all queries of the step in which
those without an object count less, and masks, divided by the objects of the step
(https://arxiv.org/abs/2112.01527, section 3.3, as transformers computes it). Groups that were not told apart
are not learnt; that a model finds them is not counted against it.

Shape legend: B pictures, N objects or found masks, Q queries, C classes (of pixels: channels), H, W height
and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune.jsonlines import write_lines
from finemesh.finetune.masks import ObjectMask, decode, masks_of
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.detection_scores import (
    MOST_DETECTIONS,
    Detections,
    Evaluated,
    Scene,
    average_precisions,
    evaluate,
    items,
)
from finemesh.finetune.objectives.objective import Criterion, Split, moved
from finemesh.finetune.objectives.pictures import PictureObjective
from finemesh.finetune.pictures import ArrayCache, Arrays, PictureRow
from finemesh.finetune.rows import Location
from finemesh.finetune.sight import load_image

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and what is to be found in it.

    Attributes:
        scene: the truth, in pixels of the picture as it is stored.
        masks: in the order of the scene.
        shown_px: height and width as the model is shown it.
    """

    scene: Scene
    masks: tuple[ObjectMask, ...]
    location: Location
    shown_px: tuple[int, int]

    @property
    def row_id(self) -> str:
        return self.scene.row_id

    @property
    def size(self) -> int:
        return self.shown_px[0] * self.shown_px[1]


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass.

    Attributes:
        inputs: `pixel_values` (B, C, H, W) and `pixel_mask` (B, H, W).
        targets: `mask_labels`, (N, H, W) of each picture, and `class_labels`, (N,).
        weight: (2,), what the parts of the loss are divided by.
        units: pictures.
    """

    inputs: dict[str, Any]
    targets: dict[str, list[torch.Tensor]]
    weight: torch.Tensor
    units: int

    def to(self, device: torch.device) -> Batch:
        inputs, targets, weight = moved([self.inputs, self.targets, self.weight], device)
        return replace(self, inputs=inputs, targets=targets, weight=weight)


class InstanceSegmentation(PictureObjective[Sample, Batch]):
    """The best checkpoint is the one with the highest mean average precision of its masks."""

    unit = "pictures"
    criterion: ClassVar[Criterion] = Criterion("val/map", higher_is_better=True)

    def __init__(self, spec: FineTuneSpec, model: Model, dataset: Path) -> None:
        super().__init__(spec, model, dataset)
        model.module.criterion.float()  # its weights of classes meet logits of 32 bits
        self._labels: Final[dict[str, int]] = dict(model.config.label2id)
        self._queries: Final[int] = model.config.num_queries
        self._arrays: Final = ArrayCache(
            lambda location, masks: self._process(load_image(dataset, location), masks)
        )

    def encode(self, split: str, limit: int = 0) -> Split[Sample]:
        """See `Objective.encode`. Truncated are pictures with more objects than the model can find.

        Raises:
            InvalidError: NO_MASKS, nothing is to be found in the split.
        """
        encoded = super().encode(split, limit)
        encoded.truncated = sum(sample.scene.count > self._queries for sample in encoded.samples)
        if not any(sample.scene.count for sample in encoded.samples):
            raise InvalidError.of(
                "spec.dataset",
                f"no mask is left in the split {split!r}, so there is nothing to find: see ledger.jsonl for "
                "what became of its rows, or name another split",
                reason="NO_MASKS",
            )
        return encoded

    def sample(self, row: PictureRow, picture: Image.Image) -> Sample | LedgerEntry:
        size_px = (picture.height, picture.width)
        masks = masks_of(row, size_px, self._labels)
        if isinstance(masks, LedgerEntry):
            return masks
        scene = Scene(
            row_id=row.row_id,
            group=row.group,
            size_px=size_px,
            boxes_N4=_boxes(_regions(masks, size_px)),
            labels_N=np.array([each.label for each in masks], np.int64),
            crowd_N=np.array([each.iscrowd for each in masks], np.bool_),
        )
        _, height, width = self._arrays.keep(row.location, self._process(picture, masks))["pixels"].shape
        return Sample(scene, masks, row.location, (height, width))

    def collate(self, split: Split[Sample], samples: Sequence[Sample]) -> Batch:
        del split
        height, width = (max(sample.shown_px[axis] for sample in samples) for axis in (0, 1))
        canvas_BCHW = torch.zeros(len(samples), 3, height, width)
        shown_BHW = torch.zeros(len(samples), height, width, dtype=torch.int64)
        masks: list[torch.Tensor] = []
        labels: list[torch.Tensor] = []
        for index, sample in enumerate(samples):
            arrays = self._arrays.load(sample.location, sample.masks)
            rows, columns = sample.shown_px
            canvas_BCHW[index, :, :rows, :columns] = torch.from_numpy(arrays["pixels"])
            shown_BHW[index, :rows, :columns] = 1
            unpacked_NP = np.unpackbits(arrays["masks"], axis=1, count=rows * columns)
            masks_NHW = torch.zeros(len(unpacked_NP), height, width)
            masks_NHW[:, :rows, :columns] = torch.from_numpy(unpacked_NP).reshape(-1, rows, columns)
            masks.append(masks_NHW)
            labels.append(torch.from_numpy(arrays["labels"]))
        return Batch(
            inputs={"pixel_values": canvas_BCHW, "pixel_mask": shown_BHW},
            targets={"mask_labels": masks, "class_labels": labels},
            weight=self._weight([len(each) for each in labels]),
            units=len(samples),
        )

    def loss(self, batch: Batch) -> torch.Tensor:
        return _sums(self.model, _forward(self.model, batch), batch)

    def validate(self, split: Split[Sample], folder: Path) -> dict[str, float]:
        loss, found = self._find(self.model, split)
        result = self._judged(split, found)
        write_lines(folder / "val.jsonl", items(result))
        return {"val/loss": loss, **average_precisions(result, "val/")}

    def test(self, split: Split[Sample], base_model: Path, folder: Path) -> dict[str, float]:
        """See `Objective.test`. `test.jsonl` has, per picture, what was found and its average precision."""
        metrics = {"test/items": float(len(split.samples))}
        metrics |= self._test(self.model, split, "test/", folder / "test.jsonl")
        if self.spec.evaluation.baselines:
            with self.model.untrained(base_model) as untrained:
                metrics |= self._test(untrained, split, "test/untrained_", folder / "test_untrained.jsonl")
        return metrics

    def _test(self, model: Model, split: Split[Sample], prefix: str, path: Path) -> dict[str, float]:
        loss, found = self._find(model, split)
        result = self._judged(split, found)
        write_lines(path, items(result))
        low, high = result.interval(self.spec.optimization.seed)
        precisions = average_precisions(result, prefix)
        return {f"{prefix}loss": loss, **precisions, f"{prefix}map_low": low, f"{prefix}map_high": high}

    def _judged(self, split: Split[Sample], found: Sequence[Detections]) -> Evaluated:
        truth = [_regions(sample.masks, sample.scene.size_px) for sample in split.samples]
        return evaluate([sample.scene for sample in split.samples], found, self._labels, truth)

    def _find(self, model: Model, split: Split[Sample]) -> tuple[float, list[Detections]]:
        """The loss over a split, and what the model finds in each of its pictures.

        The points of the loss are drawn from the seed, and leave the random numbers of the training alone.
        """
        found: list[Detections] = []
        sums_2 = weights_2 = torch.zeros(2, dtype=torch.float64, device=model.device)
        size = self.spec.optimization.micro_batch_size
        devices = [model.device] if model.device.type == "cuda" else []
        with model.evaluating(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.spec.optimization.seed)
            for start in range(0, len(split.samples), size):
                part = split.samples[start : start + size]
                batch = self.collate(split, part).to(model.device)
                output = _forward(model, batch)
                sums_2, weights_2 = sums_2 + _sums(model, output, batch), weights_2 + batch.weight
                found += [_detections(output, index, each, batch) for index, each in enumerate(part)]
        return float((sums_2 / weights_2.clamp(min=1)).sum()), found

    def _weight(self, objects: Sequence[int]) -> torch.Tensor:
        """Of pictures with so many objects each: the queries, those without an object at their weight, and
        the objects.
        """
        paired = sum(min(count, self._queries) for count in objects)
        idle = self._queries * len(objects) - paired
        return torch.tensor([paired + idle * self.model.config.no_object_weight, sum(objects)])

    def _process(self, picture: Image.Image, masks: Sequence[ObjectMask]) -> Arrays:
        """What the model is shown: the picture, and its masks in bits, as large as it is shown."""
        from PIL import Image

        pixels_CHW = np.asarray(self.model.processor([picture])["pixel_values"][0], np.float32)
        _, height, width = pixels_CHW.shape
        shown: list[npt.NDArray[np.bool_]] = []
        labels: list[int] = []
        for each in masks:
            if each.iscrowd:
                continue
            stored = Image.fromarray(decode(each.rle_counts, (picture.height, picture.width)))
            mask_HW = np.asarray(stored.resize((width, height), Image.Resampling.NEAREST))
            if mask_HW.any():  # one that is too thin to be seen is nothing to learn
                shown.append(mask_HW.ravel())
                labels.append(each.label)
        packed = np.packbits(np.array(shown, np.bool_).reshape(-1, height * width), axis=1)
        return {"pixels": pixels_CHW, "masks": packed, "labels": np.array(labels, np.int64)}


def _forward(model: Model, batch: Batch) -> Any:
    with model.autocast():
        output = model.module(**batch.inputs, output_auxiliary_logits=True)
    for each in (output, *output.auxiliary_logits):
        each["class_queries_logits"] = each["class_queries_logits"].float()
        each["masks_queries_logits"] = each["masks_queries_logits"].float()
    return output


def _sums(model: Model, output: Any, batch: Batch) -> torch.Tensor:
    """The two parts of the loss, undivided."""
    losses: dict[str, torch.Tensor] = model.module.get_loss_dict(
        masks_queries_logits=output.masks_queries_logits,
        class_queries_logits=output.class_queries_logits,
        auxiliary_predictions=output.auxiliary_logits,
        **batch.targets,
    )
    zero = torch.zeros((), device=model.device)  # `loss_cross_entropy_0` and the like are of earlier layers
    classes = sum((each for name, each in losses.items() if name.startswith("loss_cross_entropy")), zero)
    masks = sum((each for name, each in losses.items() if not name.startswith("loss_cross_entropy")), zero)
    return torch.stack([classes, masks]) * batch.weight.clamp(min=1)


def _detections(output: Any, index: int, sample: Sample, batch: Batch) -> Detections:
    """The surest pairs of query and class of one picture, at the size of the stored picture.

    They are scored by the class and by how sure the mask is where it is, as transformers'
    `post_process_instance_segmentation` scores them.
    """
    from pycocotools import mask as coco

    sure_QC = output.class_queries_logits[index].softmax(-1)[:, :-1]
    best_N = sure_QC.flatten().topk(min(MOST_DETECTIONS, sure_QC.numel()))
    queries_N, labels_N = best_N.indices // sure_QC.shape[1], best_N.indices % sure_QC.shape[1]
    scores: list[float] = []
    labels: list[int] = []
    regions: list[Any] = []
    for query, label, sure in zip(queries_N, labels_N.tolist(), best_N.values.tolist(), strict=True):
        logits_HW = _stored(output.masks_queries_logits[index, query], sample, batch)
        mask_HW = logits_HW > 0
        if mask_HW.any():
            scores.append(sure * float(logits_HW[mask_HW].sigmoid().mean()))
            labels.append(label)
            regions.append(coco.encode(np.asfortranarray(mask_HW.cpu().numpy(), np.uint8)))
    order = np.argsort(-np.array(scores), kind="stable")
    regions = [regions[place] for place in order]
    return Detections(
        boxes_N4=_boxes(regions),
        scores_N=np.array(scores, np.float64)[order],
        labels_N=np.array(labels, np.int64)[order],
        regions=regions,
    )


def _stored(logits_HW: torch.Tensor, sample: Sample, batch: Batch) -> torch.Tensor:
    """The logits of one mask, without padding, at the size of the stored picture."""
    rows, columns = sample.shown_px
    canvas = _resized(logits_HW, batch.inputs["pixel_mask"].shape[1:])
    return _resized(canvas[:rows, :columns], sample.scene.size_px)


def _resized(logits_HW: torch.Tensor, size_px: tuple[int, int]) -> torch.Tensor:
    return functional.interpolate(logits_HW[None, None], size=size_px, mode="bilinear", align_corners=False)[
        0, 0
    ]


def _boxes(regions: Sequence[Any]) -> npt.NDArray[np.float64]:
    """(N, 4): x, y, width, height of run lengths as pycocotools has them."""
    from pycocotools import mask as coco

    return np.array([coco.toBbox(each) for each in regions], np.float64).reshape(-1, 4)


def _regions(masks: Sequence[ObjectMask], size_px: tuple[int, int]) -> list[dict[str, Any]]:
    """Run lengths as pycocotools has them."""
    return [{"size": list(size_px), "counts": each.rle_counts.encode("ascii")} for each in masks]
