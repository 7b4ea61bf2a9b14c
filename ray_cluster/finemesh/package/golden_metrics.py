"""The task's metric over the golden items: of the trained model and of the package, each with its interval.

    (vision-)language        token_f1        of what is written with what the dataset says
    IMAGE_CLASSIFICATION     accuracy
    SEMANTIC_SEGMENTATION    mean_iou
    DETECTION                map             of boxes, as COCO defines it
    INSTANCE_SEGMENTATION    map             of masks

Shape legend: I items, C classes, N objects, H, W height and width of a picture as it is stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import load_file

from finemesh.core.spec.finetune import Background, FineTuneSpec, Task
from finemesh.finetune import confusion
from finemesh.finetune.heads import BACKGROUND
from finemesh.finetune.masks import ObjectMask, decode, paint
from finemesh.finetune.metrics import token_f1
from finemesh.finetune.objectives.detection_scores import Detections, Scene, average_precisions, evaluate
from finemesh.finetune.objectives.semantic import UNLABELLED
from finemesh.finetune.statistics import Interval, clustered, clustered_mean
from finemesh.package.golden import GOLDEN, Arrays
from finemesh.package.manifest import GoldenMetric, PackageManifest

_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class _Item:
    """A golden item with one side's decision."""

    group: str
    row_id: str
    expected: Any
    decision: Arrays
    said: str


def golden_metric(package: Path, manifest: PackageManifest, decisions: Path) -> GoldenMetric | None:
    """None where the golden items say nothing, as pictures without an object.

    Args:
        package: its folder.
        manifest: of it.
        decisions: what `verify.py --decisions` wrote.
    """
    spec = FineTuneSpec.from_dict(manifest.spec)
    lines = (package / GOLDEN / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
    golden = load_file(package / GOLDEN / "outputs.safetensors")
    trained = {key.replace("/decision/", "/"): each for key, each in golden.items() if "/decision/" in key}
    sides = [
        [_item(json.loads(line), index, arrays) for index, line in enumerate(lines)]
        for arrays in (trained, load_file(decisions))
    ]
    name, measure = _METRICS[spec.task]
    one, other = (measure(items, spec, manifest.decisions.get("labels", [])) for items in sides)
    if not np.isfinite([one.mean, other.mean]).all():
        return None
    return GoldenMetric(name, one.mean, one.low, one.high, other.mean, other.low, other.high)


def _item(line: Mapping[str, Any], index: int, arrays: Arrays) -> _Item:
    prefix = f"{index}/"
    decision = {key.removeprefix(prefix): each for key, each in arrays.items() if key.startswith(prefix)}
    answer = decision.get("answer")  # of the package; that of the trained model is in its line
    said = line["generated"] if answer is None else bytes(answer).decode()
    return _Item(line["group"], line["row_id"], line["expected"], decision, said)


def _groups(items: Sequence[_Item]) -> list[str]:
    return [item.group for item in items]


def _token_f1(items: Sequence[_Item], _spec: FineTuneSpec, _labels: Sequence[str]) -> Interval:
    return clustered_mean([token_f1(each.said, each.expected) for each in items], _groups(items), _SEED)


def _accuracy(items: Sequence[_Item], _spec: FineTuneSpec, labels: Sequence[str]) -> Interval:
    right = [float(labels[int(each.decision["label"][0])] == each.expected) for each in items]
    return clustered_mean(right, _groups(items), _SEED)


def _mean_iou(items: Sequence[_Item], spec: FineTuneSpec, labels: Sequence[str]) -> Interval:
    covers = spec.segmentation.background is Background.CLASS
    uncovered = labels.index(BACKGROUND) if covers else UNLABELLED
    sums: list[Any] = []
    for each in items:
        map_HW = each.decision["map"]
        expected_HW = paint(_masks(each.expected, labels, map_HW.shape), map_HW.shape, uncovered)
        counted_HW = expected_HW != UNLABELLED
        sums.append(
            confusion.counts(
                expected_HW[counted_HW].astype(np.int64), map_HW[counted_HW].astype(np.int64), len(labels)
            )
        )
    return clustered(np.array(sums), _groups(items), confusion.mean_iou, _SEED)


def _masks(
    expected: Sequence[Mapping[str, Any]], labels: Sequence[str], size_px: tuple[int, int]
) -> list[ObjectMask]:
    """The largest first, as training paints them."""
    masks = [
        ObjectMask(
            labels.index(each["label"]),
            each["mask"],
            int(decode(each["mask"], size_px).sum()),
            bool(each["crowd"]),
        )
        for each in expected
    ]
    return sorted((each for each in masks if each.area), key=lambda each: -each.area)


def _box_map(items: Sequence[_Item], _spec: FineTuneSpec, labels: Sequence[str]) -> Interval:
    found = [Detections.of(*(each.decision[key] for key in ("boxes", "scores", "labels"))) for each in items]
    return _average_precision([_scene(each, labels, (1, 1)) for each in items], found, labels, None)


def _mask_map(items: Sequence[_Item], _spec: FineTuneSpec, labels: Sequence[str]) -> Interval:
    from pycocotools import mask as coco

    scenes: list[Scene] = []
    found: list[Detections] = []
    truth: list[list[dict[str, Any]]] = []
    for each in items:
        masks_NHW = each.decision["masks"]
        size_px = (int(masks_NHW.shape[1]), int(masks_NHW.shape[2]))
        regions: list[Any] = [coco.encode(np.asfortranarray(mask_HW)) for mask_HW in masks_NHW]
        boxes_N4 = np.array([coco.toBbox(region) for region in regions], np.float64).reshape(-1, 4)
        scores_N, labels_N = each.decision["scores"].astype(np.float64), each.decision["labels"]
        scenes.append(_scene(each, labels, size_px))
        found.append(Detections(boxes_N4, scores_N, labels_N.astype(np.int64), regions))
        truth.append(
            [{"size": list(size_px), "counts": thing["mask"].encode("ascii")} for thing in each.expected]
        )
    return _average_precision(scenes, found, labels, truth)


def _scene(item: _Item, labels: Sequence[str], size_px: tuple[int, int]) -> Scene:
    things = item.expected
    return Scene(
        row_id=item.row_id,
        group=item.group,
        size_px=size_px,
        boxes_N4=np.array([thing["box"] for thing in things], np.float64).reshape(-1, 4),
        labels_N=np.array([labels.index(thing["label"]) for thing in things], np.int64),
        crowd_N=np.array([thing["crowd"] for thing in things], np.bool_),
    )


def _average_precision(
    scenes: Sequence[Scene], found: Sequence[Detections], labels: Sequence[str], truth: Any
) -> Interval:
    ids = {name: index for index, name in enumerate(labels)}
    if not any(scene.count for scene in scenes):
        return Interval(float("nan"), float("nan"), float("nan"))
    result = evaluate(scenes, found, ids, truth) if truth else evaluate(scenes, found, ids)
    return Interval(average_precisions(result, "")["map"], *result.interval(_SEED))


_Measure = Callable[[Sequence[_Item], FineTuneSpec, Sequence[str]], Interval]
_METRICS: Final[dict[Task, tuple[str, _Measure]]] = {
    Task.LANGUAGE: ("token_f1", _token_f1),
    Task.VISION_LANGUAGE: ("token_f1", _token_f1),
    Task.IMAGE_CLASSIFICATION: ("accuracy", _accuracy),
    Task.SEMANTIC_SEGMENTATION: ("mean_iou", _mean_iou),
    Task.DETECTION: ("map", _box_map),
    Task.INSTANCE_SEGMENTATION: ("map", _mask_map),
}
