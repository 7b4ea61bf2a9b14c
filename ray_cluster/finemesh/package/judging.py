"""How good the decisions of a package are, by the metrics of the training loop: the same code, fed with what
any runtime decided.

What is expected of an item is what `golden/inputs.jsonl` has: an answer; the name of a class; or objects
`{"label", "box": [x, y, width, height], "mask": COCO's compressed run lengths or null, "crowd"}`.

Shape legend: I items, C classes, H, W height and width of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from finemesh.finetune import confusion
from finemesh.finetune.confusion import Counts
from finemesh.finetune.masks import ObjectMask, decode, paint
from finemesh.finetune.metrics import OPEN_METRICS
from finemesh.finetune.objectives.detection import clipped
from finemesh.finetune.objectives.detection_scores import Detections, Scene, average_precisions, evaluate
from finemesh.finetune.objectives.semantic import UNLABELLED
from finemesh.finetune.statistics import clustered, clustered_mean

SPEAKS: Final = frozenset({"LANGUAGE", "VISION_LANGUAGE"})
# The figure that a person looks at first.
MAIN_METRIC: Final = {
    "LANGUAGE": "exact_match",
    "VISION_LANGUAGE": "exact_match",
    "IMAGE_CLASSIFICATION": "accuracy",
    "SEMANTIC_SEGMENTATION": "mean_iou",
    "DETECTION": "map",
    "INSTANCE_SEGMENTATION": "map",
}
_Figures = Mapping[str, Callable[[Counts], Counts]]


@dataclass(frozen=True, slots=True)
class Judged:
    """One item with what was decided.

    Attributes:
        group: what an interval resamples: the video, or the row itself.
        expected: see above.
        size_px: height and width of the picture; (0, 0) without one.
        decision: of `shipped/decide.py`; empty for models that speak.
        said: the answer of a model that speaks.
    """

    row_id: str
    group: str
    expected: Any
    size_px: tuple[int, int] = (0, 0)
    decision: Mapping[str, npt.NDArray[Any]] | None = None
    said: str = ""

    @property
    def made(self) -> Mapping[str, npt.NDArray[Any]]:
        return self.decision or {}


def judge(
    task: str, labels: Sequence[str], items: Sequence[Judged], *, background: str = "", seed: int = 0
) -> dict[str, float]:
    """The metrics of a task, with 95% intervals as `<name>_low` and `<name>_high` where they have one.

    Args:
        task: of the model.
        labels: its classes, by their index.
        items: what was decided of each.
        background: in semantic segmentation, the class of what no object covers; empty if it has none.
        seed: of the intervals; with the training's they are those of its own test.

    Raises:
        ValueError: no items.
    """
    if not items:
        raise ValueError("no items to judge")
    if task in SPEAKS:
        return _answers(items, seed)
    ids = {name: index for index, name in enumerate(labels)}
    if task == "IMAGE_CLASSIFICATION":
        figures: _Figures = {"accuracy": confusion.accuracy, "macro_f1": confusion.macro_f1}
        return _counted(figures, items, lambda item: _class_counts(item, ids), seed)
    if task == "SEMANTIC_SEGMENTATION":
        uncovered = ids[background] if background else UNLABELLED
        figures = {"mean_iou": confusion.mean_iou, "pixel_accuracy": confusion.accuracy}
        return _counted(figures, items, lambda item: _pixel_counts(item, ids, uncovered), seed)
    return _found(items, ids, seed, masks=task == "INSTANCE_SEGMENTATION")


def _answers(items: Sequence[Judged], seed: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, metric in OPEN_METRICS.items():
        told = [
            (value, item.group) for item in items if (value := metric(item.said, item.expected)) is not None
        ]
        if told:
            interval = clustered_mean([value for value, _ in told], [group for _, group in told], seed)
            metrics |= interval.named(name)
    return metrics


def _counted(
    figures: _Figures, items: Sequence[Judged], count: Callable[[Judged], Counts], seed: int
) -> dict[str, float]:
    sums_I3C = np.stack([count(item) for item in items])
    groups = [item.group for item in items]
    metrics: dict[str, float] = {}
    for name, figure in figures.items():
        metrics |= clustered(sums_I3C, groups, figure, seed).named(name)
    return metrics


def _class_counts(item: Judged, ids: Mapping[str, int]) -> Counts:
    expected = np.array([ids[item.expected]], np.int64)
    return confusion.counts(expected, item.made["label"].astype(np.int64), len(ids))


def _pixel_counts(item: Judged, ids: Mapping[str, int], uncovered: int) -> Counts:
    masks = [
        ObjectMask(ids[each["label"]], each["mask"], int(decode(each["mask"], item.size_px).sum()), False)
        for each in item.expected
    ]
    expected_HW = paint(sorted(masks, key=lambda each: -each.area), item.size_px, uncovered)
    counted_HW = expected_HW != UNLABELLED
    predicted = item.made["map"][counted_HW].astype(np.int64)
    return confusion.counts(expected_HW[counted_HW].astype(np.int64), predicted, len(ids))


def _found(items: Sequence[Judged], ids: Mapping[str, int], seed: int, *, masks: bool) -> dict[str, float]:
    scenes = [_scene(item, ids) for item in items]
    truths = (
        [[_region(each["mask"], item.size_px) for each in item.expected] for item in items] if masks else ()
    )
    found = [_masked(item) if masks else _boxed(item) for item in items]
    result = evaluate(scenes, found, ids, truths)
    low, high = result.interval(seed)
    return {**average_precisions(result, ""), "map_low": low, "map_high": high}


def _scene(item: Judged, ids: Mapping[str, int]) -> Scene:
    height, width = item.size_px
    boxes = [clipped(tuple(each["box"]), (width, height)) or (0.0, 0.0, 0.0, 0.0) for each in item.expected]
    return Scene(
        row_id=item.row_id,
        group=item.group,
        size_px=item.size_px,
        boxes_N4=np.asarray(boxes, np.float64).reshape(-1, 4),
        labels_N=np.array([ids[each["label"]] for each in item.expected], np.int64),
        crowd_N=np.array([each["crowd"] for each in item.expected], np.bool_),
    )


def _boxed(item: Judged) -> Detections:
    return Detections.of(*(item.made[name] for name in ("boxes", "scores", "labels")))


def _masked(item: Judged) -> Detections:
    from pycocotools import mask as coco

    regions: list[Any] = [coco.encode(np.asfortranarray(mask_HW, np.uint8)) for mask_HW in item.made["masks"]]
    boxes_N4 = np.array([coco.toBbox(each) for each in regions], np.float64).reshape(-1, 4)
    scores_N, labels_N = item.made["scores"].astype(np.float64), item.made["labels"].astype(np.int64)
    return Detections(boxes_N4, scores_N, labels_N, regions)


def _region(rle_counts: str, size_px: tuple[int, int]) -> dict[str, Any]:
    return {"size": list(size_px), "counts": rle_counts.encode()}
