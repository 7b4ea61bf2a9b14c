"""How good detections are: average precision as COCO defines it, per picture too, and with an interval.

pycocotools judges each picture once. A resampled set of pictures counts what was judged by how often each was
drawn, which is what judging it again would give.

Shape legend: N boxes, G truths, D detections, I pictures, T overlaps (0.50 to 0.95), R levels of recall.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self, cast

import numpy as np
import numpy.typing as npt

from finemesh.finetune.statistics import LEVEL, RESAMPLES

MOST_DETECTIONS: Final = 100  # of a picture, as COCO counts them
_LEAST_SCORE: Final = 0.01  # of a detection that is written down
_MOST_WORK: Final = 200_000_000  # overlaps x detections x draws of an interval
_FEWEST_RESAMPLES: Final = 200

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Regions = Sequence[Mapping[str, Any]]  # masks as run lengths, as pycocotools has them


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be found in a picture: boxes (x, y, width, height) in pixels, class ids, groups."""

    row_id: str
    group: str
    size_px: tuple[int, int]
    boxes_N4: Floats
    labels_N: Ints
    crowd_N: Bools

    @property
    def count(self) -> int:
        """Objects that were told apart."""
        return int((~self.crowd_N).sum())


@dataclass(frozen=True, slots=True)
class Detections:
    """What a model found in a picture, the surest first; in segmentation with the masks of the boxes."""

    boxes_N4: Floats
    scores_N: Floats
    labels_N: Ints
    regions: Regions = ()

    @classmethod
    def of(cls, corners_N4: npt.NDArray[Any], scores_N: npt.NDArray[Any], labels_N: npt.NDArray[Any]) -> Self:
        """From corners (left, top, right, bottom) in pixels, as image processors give them."""
        best = np.argsort(-scores_N, kind="stable")[:MOST_DETECTIONS]
        boxes = corners_N4[best].astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return cls(boxes, scores_N[best].astype(np.float64), labels_N[best].astype(np.int64))


@dataclass(frozen=True, slots=True)
class _Judged:
    """The detections of one class in all pictures, the surest first, and whether they are right.

    Attributes:
        picture_D: index of the picture.
        right_TD, wrong_TD: neither for those that a crowd excuses.
        truths_I: how many are to be found in each picture.
    """

    picture_D: Ints
    right_TD: Bools
    wrong_TD: Bools
    truths_I: Ints

    def average_precision(self, counts_I: Ints, levels_R: Floats) -> float:
        """Over pictures that are counted so many times each; NaN if nothing is to be found in them."""
        truths = int(counts_I @ self.truths_I)
        if not truths:
            return float("nan")
        counts_D = counts_I[self.picture_D]
        right_TD, wrong_TD = (np.cumsum(each * counts_D, axis=1) for each in (self.right_TD, self.wrong_TD))
        precision_TD = right_TD / np.maximum(right_TD + wrong_TD, 1)
        best_TD = np.maximum.accumulate(precision_TD[:, ::-1], axis=1)[:, ::-1]
        padded_TD = np.pad(best_TD, ((0, 0), (0, 1)))  # a recall that is never reached has precision 0
        levels = [np.searchsorted(each / truths, levels_R) for each in right_TD]
        return float(np.mean([each[level] for each, level in zip(padded_TD, levels, strict=True)]))


@dataclass(frozen=True)
class Evaluated:
    """Detections that were judged.

    Attributes:
        coco: pycocotools' COCOeval, evaluated and accumulated.
        names: of class ids, in its order.
    """

    scenes: Sequence[Scene]
    coco: Any
    names: dict[int, str]

    def judgement(self, class_index: int, picture: int) -> dict[str, Any] | None:
        """What COCOeval says of one class in one picture, whatever the size; None if there is nothing."""
        ranges = len(self.coco.params.areaRng)
        return self.coco.evalImgs[class_index * ranges * len(self.scenes) + picture]

    @cached_property
    def judged(self) -> list[_Judged]:
        """By class."""
        return [self._judged(index, range(len(self.scenes))) for index in range(len(self.names))]

    def interval(self, seed: int) -> tuple[float, float]:
        """95% of the mean average precision, by resampling whole groups of pictures.

        2,000 draws, or fewer where there is much to count, but never fewer than 200. A single group has no
        others beside it: then its pictures are drawn.
        """
        names = [scene.group for scene in self.scenes]
        groups = np.arange(len(names)) if len(set(names)) == 1 else np.unique(names, return_inverse=True)[1]
        number = int(groups.max()) + 1
        work = sum(each.right_TD.size for each in self.judged)
        draws = int(np.clip(_MOST_WORK // max(work, 1), _FEWEST_RESAMPLES, RESAMPLES))
        drawn = np.random.default_rng(seed).integers(0, number, size=(draws, number))
        means = [self._mean(np.bincount(each, minlength=number)[groups]) for each in drawn]
        low, high = np.nanquantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def of_picture(self, picture: int) -> float | None:
        """Mean average precision of one picture by itself; None where nothing is to be found."""
        once = np.ones(1, np.int64)
        levels_R: Floats = self.coco.params.recThrs
        judged = [self._judged(index, [picture]) for index in range(len(self.names))]
        precisions = [each.average_precision(once, levels_R) for each in judged if each.truths_I.any()]
        return float(np.mean(precisions)) if precisions else None

    def _mean(self, counts_I: Ints) -> float:
        levels_R: Floats = self.coco.params.recThrs
        precisions = np.array([each.average_precision(counts_I, levels_R) for each in self.judged])
        present = precisions[~np.isnan(precisions)]
        return float(present.mean()) if len(present) else float("nan")

    def _judged(self, class_index: int, pictures: Sequence[int]) -> _Judged:
        said = [self.judgement(class_index, picture) for picture in pictures]
        overlaps = len(self.coco.params.iouThrs)
        right = [each["dtMatches"] > 0 for each in said if each]
        excused = [each["dtIgnore"] > 0 for each in said if each]
        scores = np.concatenate([np.zeros(0), *(each["dtScores"] for each in said if each)])
        order = np.argsort(-scores, kind="mergesort")
        right_TD = np.concatenate([np.zeros((overlaps, 0), np.bool_), *right], axis=1)[:, order]
        excused_TD = np.concatenate([np.zeros((overlaps, 0), np.bool_), *excused], axis=1)[:, order]
        sizes = [len(each["dtScores"]) if each else 0 for each in said]
        truths = [int((np.asarray(each["gtIgnore"]) == 0).sum()) if each else 0 for each in said]
        return _Judged(
            picture_D=np.repeat(np.arange(len(said)), sizes)[order],
            right_TD=right_TD & ~excused_TD,
            wrong_TD=~right_TD & ~excused_TD,
            truths_I=np.asarray(truths, np.int64),
        )


def evaluate(
    scenes: Sequence[Scene],
    found: Sequence[Detections],
    ids: Mapping[str, int],
    regions: Sequence[Regions] = (),
) -> Evaluated:
    """Judge what was found, picture by picture: boxes, or masks where `regions` has those of the scenes.
    `ids` are the classes by name.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    names = {index: name for name, index in sorted(ids.items(), key=lambda each: each[1])}
    categories = [{"id": index, "name": name} for index, name in names.items()]
    images = [
        {"id": index, "height": scene.size_px[0], "width": scene.size_px[1]}
        for index, scene in enumerate(scenes)
    ]
    truths = [
        _annotation(index, box, label, **{"iscrowd": int(crowd), **mask})
        for index, scene in enumerate(scenes)
        for box, label, crowd, mask in zip(
            scene.boxes_N4,
            scene.labels_N,
            scene.crowd_N,
            _masks(regions[index] if regions else (), scene.labels_N),
            strict=True,
        )
    ]
    detections = [
        _annotation(index, box, label, **{"score": float(score), **mask})
        for index, each in enumerate(found)
        for box, label, score, mask in zip(
            each.boxes_N4, each.labels_N, each.scores_N, _masks(each.regions, each.labels_N), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells its progress
        truth: Any = COCO()
        finding: Any = COCO()
        for held, annotations in ((truth, truths), (finding, detections)):
            numbered = [{**each, "id": number} for number, each in enumerate(annotations, 1)]
            held.dataset = {"images": images, "categories": categories, "annotations": numbered}
            held.createIndex()
        coco = COCOeval(truth, finding, "segm" if regions else "bbox")
        coco.evaluate()
        coco.accumulate()
    return Evaluated(scenes, coco, names)


def average_precisions(result: Evaluated, prefix: str) -> dict[str, float]:
    """COCO's figures under a prefix: `map`, `map50`, `map75`, by size, and by class. What the split has no
    object of is left out.
    """
    precision_TRKAM = result.coco.eval["precision"]
    overlaps = result.coco.params.iouThrs
    sizes = result.coco.params.areaRngLbl
    figures: dict[str, npt.NDArray[Any]] = {
        "map": precision_TRKAM[:, :, :, 0, -1],
        "map50": precision_TRKAM[np.isclose(overlaps, 0.5), :, :, 0, -1],
        "map75": precision_TRKAM[np.isclose(overlaps, 0.75), :, :, 0, -1],
        **{f"map_{size}": precision_TRKAM[:, :, :, sizes.index(size), -1] for size in sizes[1:]},
        **{f"map/{name}": precision_TRKAM[:, :, k, 0, -1] for k, name in enumerate(result.names.values())},
    }
    # COCOeval writes -1 where there is nothing to find.
    counted = {name: each[each > -1] for name, each in figures.items()}
    return {f"{prefix}{name}": float(each.mean()) for name, each in counted.items() if each.size}


def items(result: Evaluated) -> Iterator[dict[str, Any]]:
    """One object per picture, for paired comparison of runs: what was found, what was to be found, which of
    both belong together at an overlap of 0.5, and the average precision of the picture by itself.
    """
    for index, scene in enumerate(result.scenes):
        yield {
            "row_id": scene.row_id,
            "group": scene.group,
            "average_precision": result.of_picture(index),
            **_matches(result, index),
        }


def _matches(result: Evaluated, picture: int) -> dict[str, list[dict[str, Any]]]:
    """Predictions and truths of a picture. `match` is the id of the truth that was found, or null."""
    predictions: list[dict[str, Any]] = []
    truths: list[dict[str, Any]] = []
    for class_index, name in enumerate(result.names.values()):
        said = result.judgement(class_index, picture)
        if not said:
            continue
        for number, score, match in zip(said["dtIds"], said["dtScores"], said["dtMatches"][0], strict=True):
            if score >= _LEAST_SCORE:
                found = {"class": name, "score": float(score), "match": int(match) or None}
                predictions.append({**found, "bbox": result.coco.cocoDt.anns[number]["bbox"]})
        for number in said["gtIds"]:
            truth = result.coco.cocoGt.anns[number]
            crowd = bool(truth["iscrowd"])
            truths.append({"class": name, "id": int(number), "crowd": crowd, "bbox": truth["bbox"]})
    predictions.sort(key=lambda each: -each["score"])
    return {"predictions": predictions, "truths": truths}


def _masks(regions: Regions, labels_N: Ints) -> list[dict[str, Any]]:
    """What COCO's annotations have beside boxes."""
    from pycocotools import mask as coco

    if not regions:
        return [{} for _ in labels_N]
    return [{"segmentation": each, "area": float(coco.area(cast("Any", each)))} for each in regions]


def _annotation(image: int, box: Floats, label: np.int64, **columns: Any) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": int(label),
        "bbox": [float(each) for each in box],
        "area": float(box[2] * box[3]),
        "iscrowd": 0,
        **columns,
    }
