"""Average precision: as told by hand for two boxes, as COCOeval has it for many, and with an interval."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from finemesh.finetune.objectives.detection_scores import (
    Detections,
    Evaluated,
    Scene,
    average_precisions,
    evaluate,
    items,
)
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

IDS = {"circle": 0, "square": 1}
Box = tuple[float, float, float, float]


def scene(name: str, boxes: list[Box], labels: list[int], crowd: list[bool] | None = None) -> Scene:
    return Scene(
        name,
        name.split("/", maxsplit=1)[0],
        (100, 100),
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(labels, np.int64),
        np.asarray(crowd or [False] * len(boxes), np.bool_),
    )


def detections(boxes: list[Box], scores: list[float], labels: list[int]) -> Detections:
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Detections.of(corners, np.asarray(scores, np.float64), np.asarray(labels, np.int64))


def random_case(pictures: int, seed: int, digits: int = 1) -> tuple[list[Scene], list[Detections]]:
    """Boxes found with errors, some doubled, some made up; few digits make some scores equal."""
    rng = np.random.default_rng(seed)
    scenes: list[Scene] = []
    found: list[Detections] = []
    for index in range(pictures):
        count = int(rng.integers(0, 5))
        boxes = np.column_stack([rng.uniform(0, 60, (count, 2)), rng.uniform(5, 40, (count, 2))])
        labels = rng.integers(0, 2, count)
        crowd = rng.random(count) < 0.15
        extra = np.column_stack([rng.uniform(0, 60, (2, 2)), rng.uniform(5, 40, (2, 2))])
        seen = np.concatenate([boxes + rng.normal(0, 3, boxes.shape), boxes[:1], extra])
        seen[:, 2:] = seen[:, 2:].clip(1)
        guessed = np.concatenate([labels, labels[:1], rng.integers(0, 2, 2)])
        scores = rng.random(len(seen)).round(digits)
        scenes.append(
            scene(
                f"v{index // 3}/{index}", [tuple(each) for each in boxes.tolist()], list(labels), list(crowd)
            )
        )
        found.append(detections([tuple(each) for each in seen.tolist()], list(scores), list(guessed)))
    return scenes, found


def by_cocoeval(scenes: list[Scene], found: list[Detections]) -> Any:
    """COCOeval as its own demo uses it: over a ground truth and a list of results."""
    truths, results = [], []
    for image, (each, seen) in enumerate(zip(scenes, found, strict=True), 1):
        for box, label, crowd in zip(each.boxes_N4, each.labels_N, each.crowd_N, strict=True):
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "iscrowd": int(crowd),
                }
                | {"bbox": box.tolist(), "area": float(box[2] * box[3])}
            )
        for box, score, label in zip(seen.boxes_N4, seen.scores_N, seen.labels_N, strict=True):
            results.append(
                {"image_id": image, "category_id": int(label) + 1, "bbox": box.tolist(), "score": score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(1, len(scenes) + 1)],
            "categories": [{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}],
            "annotations": truths,
        }
        coco.createIndex()
        judge: Any = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def test_two_boxes_by_hand() -> None:
    """One square is found exactly, the other is not: precision is 1 up to a recall of one half, that is at 51
    of 101 levels, and 0 beyond.
    """
    scenes = [scene("a", [(0, 0, 10, 10), (50, 50, 20, 20)], [1, 1])]
    found = [detections([(0, 0, 10, 10), (80, 0, 10, 10)], [0.9, 0.8], [1, 1])]
    figures = average_precisions(evaluate(scenes, found, IDS), "")
    half = 51 / 101
    assert figures == pytest.approx(
        {"map": half, "map50": half, "map75": half, "map_small": half, "map/square": half}
    )


def test_an_overlap_counts_up_to_its_own_level() -> None:
    """A box of 10 x 10 that is seen as 10 x 8.2 is right at 0.50 to 0.80, and wrong at the other three."""
    scenes = [scene("a", [(0, 0, 10, 10)], [0])]
    figures = average_precisions(evaluate(scenes, [detections([(0, 0, 10, 8.2)], [0.5], [0])], IDS), "val/")
    assert figures["val/map"] == pytest.approx(0.7)
    assert (figures["val/map50"], figures["val/map75"]) == pytest.approx((1.0, 1.0))


def test_what_covers_a_crowd_is_neither_right_nor_wrong() -> None:
    scenes = [scene("a", [(0, 0, 10, 10), (50, 50, 40, 40)], [0, 0], [False, True])]
    found = [detections([(55, 55, 10, 10), (0, 0, 10, 10)], [0.9, 0.8], [0, 0])]
    assert average_precisions(evaluate(scenes, found, IDS), "")["map"] == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_cocoeval(seed: int) -> None:
    scenes, found = random_case(30, seed)
    judge = by_cocoeval(scenes, found)
    figures = average_precisions(evaluate(scenes, found, IDS), "")
    expected = dict(zip(("map", "map50", "map75", "map_small", "map_medium"), judge.stats[:5], strict=True))
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    for k, name in enumerate(IDS):
        assert figures[f"map/{name}"] == pytest.approx(judge.eval["precision"][:, :, k, 0, -1].mean())


def resampled(result: Evaluated, counts: list[int]) -> float:
    return result._mean(np.asarray(counts))  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_drawn_twice_counts_as_two(seed: int) -> None:
    scenes, found = random_case(12, seed, digits=9)
    result = evaluate(scenes, found, IDS)
    counts = np.random.default_rng(seed).integers(0, 3, len(scenes)).tolist()
    copies = [index for index, count in enumerate(counts) for _ in range(count)]
    judge = by_cocoeval([scenes[index] for index in copies], [found[index] for index in copies])
    assert resampled(result, counts) == pytest.approx(judge.stats[0])


def test_the_interval_holds_the_mean_and_draws_whole_videos() -> None:
    scenes, found = random_case(30, 5)
    result = evaluate(scenes, found, IDS)
    low, high = result.interval(seed=1)
    assert low < average_precisions(result, "")["map"] < high
    assert (low, high) == result.interval(seed=1)
    # Three times the same pictures: as one video each they tell nothing new, as pictures they seem to.
    alike = [scene for scene in scenes[:10] for _ in range(3)]
    seen = [each for each in found[:10] for _ in range(3)]
    of_videos = evaluate([replace(each, group=each.row_id) for each in alike], seen, IDS).interval(1)
    single = [replace(each, group=str(index)) for index, each in enumerate(alike)]
    of_pictures = evaluate(single, seen, IDS).interval(1)
    assert of_videos[1] - of_videos[0] > 1.3 * (of_pictures[1] - of_pictures[0])


def test_items_tell_what_was_found_in_each_picture() -> None:
    scenes = [scene("v/a", [(0, 0, 10, 10), (50, 50, 20, 20)], [0, 1]), scene("v/b", [], [])]
    found = [
        detections([(0, 0, 10, 9), (80, 0, 10, 10), (1, 1, 5, 5)], [0.9, 0.8, 0.001], [0, 1, 0]),
        detections([(0, 0, 5, 5)], [0.4], [1]),
    ]
    first, second = (json.loads(json.dumps(each)) for each in items(evaluate(scenes, found, IDS)))
    assert (first["row_id"], first["group"]) == ("v/a", "v")
    assert [(each["class"], each["score"]) for each in first["predictions"]] == [
        ("circle", 0.9),
        ("square", 0.8),
    ]
    by_class = {each["class"]: each["id"] for each in first["truths"]}
    assert [each["match"] for each in first["predictions"]] == [by_class["circle"], None]
    assert first["average_precision"] == pytest.approx(0.45)  # 0.9 of the overlaps for one of two classes
    assert (second["average_precision"], second["truths"]) == (None, [])
    assert [each["match"] for each in second["predictions"]] == [None]
