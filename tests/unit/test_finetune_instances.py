"""Instance segmentation: what is learnt of masks, and how what is found is judged."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import (
    Evaluation,
    FineTuneSpec,
    Full,
    Optimization,
    Precision,
    Task,
    Tower,
)
from finemesh.data.rle import from_array
from finemesh.data.rows import masked_object
from finemesh.finetune.heads import classes_of
from finemesh.finetune.masks import decode
from finemesh.finetune.models import load_model
from finemesh.finetune.objectives.detection_scores import Detections, evaluate
from finemesh.finetune.objectives.instance import InstanceSegmentation
from PIL import Image
from safetensors.torch import load_file

from tests.support.conversations import write_dataset
from tests.support.picture_runs import (
    ADAPTED,
    assert_resumes_bit_equal,
    picture_spec,
    run,
    tiny_picture_model,
)
from tests.support.shapes import row_of, shape_rows, shapes_row

TASK = Task.INSTANCE_SEGMENTATION


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_picture_model(tmp_path_factory.mktemp("model") / "mask2former", "mask2former")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = list(shape_rows({"train": 16, "val": 4, "test": 6}, side_px=64, most=2))
    return write_dataset(tmp_path_factory.mktemp("data") / "shapes", rows)


def objective(spec: FineTuneSpec, base: Path, dataset: Path) -> InstanceSegmentation:
    return InstanceSegmentation(spec, load_model(spec, base, classes_of(spec, dataset)), dataset)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_loss_is_that_of_transformers(base: Path, shapes: Path, tmp_path: Path) -> None:
    """Undivided, and at the same random points; also where a picture holds nothing, or all of them do."""
    empty = [row_of(f"empty-{i}", "train", Image.new("RGB", (64, 64)), class_name=None) for i in range(2)]
    one = shapes_row("one", "train", ["circle", "square"], np.random.default_rng(0), (96, 64))
    mixed = write_dataset(tmp_path / "mixed", [one, *empty], shards=1)
    for dataset, chosen in ((shapes, slice(4)), (mixed, slice(3)), (mixed, slice(1, 3))):
        learnt = objective(picture_spec(TASK), base, dataset)
        split = learnt.encode("train")
        batch = learnt.collate(split, split.samples[chosen])
        learnt.model.module.eval()
        with torch.inference_mode():
            torch.manual_seed(5)
            theirs = learnt.model.module(**batch.inputs, **batch.targets).loss
            torch.manual_seed(5)
            ours = learnt.loss(batch) / batch.weight.clamp(min=1)
        assert float(ours.sum()) == pytest.approx(float(theirs), rel=1e-5)


def test_masks_lie_where_the_picture_does(base: Path, tmp_path: Path) -> None:
    """A wide and a high picture in one batch: each in the upper left of its canvas, padding beyond it."""
    rng = np.random.default_rng(0)
    rows = [shapes_row(f"{w}x{h}", "train", ["square"], rng, (w, h)) for w, h in ((96, 64), (64, 96))]
    learnt = objective(picture_spec(TASK), base, write_dataset(tmp_path / "data", rows, shards=1))
    split = learnt.encode("train")
    batch = learnt.collate(split, split.samples)
    assert batch.inputs["pixel_mask"].sum((1, 2)).tolist() == [64 * 96, 64 * 96]
    for sample, masks in zip(split.samples, batch.targets["mask_labels"], strict=True):
        assert masks.shape == (1, 96, 96)
        left, top, width, height = (int(value) for value in sample.scene.boxes_N4[0])
        expected = np.zeros((96, 96))
        expected[top : top + height, left : left + width] = 1
        assert np.array_equal(masks[0].numpy(), expected)


def test_what_is_found_is_what_transformers_finds(base: Path, shapes: Path) -> None:
    """Its post-processing goes over 384 pixels and a threshold; scores and classes agree."""
    learnt = objective(picture_spec(TASK), base, shapes)
    split = learnt.encode("test")
    _, found = learnt._find(learnt.model, split)
    batch = learnt.collate(split, split.samples)
    learnt.model.module.eval()
    with torch.inference_mode():
        output = learnt.model.module(**batch.inputs)
    theirs = learnt.model.processor.post_process_instance_segmentation(
        output, threshold=0.0, target_sizes=[(64, 64)] * 6
    )
    for ours, each in zip(found, theirs, strict=True):
        best = sorted(each["segments_info"], key=lambda segment: -segment["score"])[:5]
        assert ours.scores_N[:5] == pytest.approx([segment["score"] for segment in best], abs=0.02)


def test_a_perfect_model_has_an_average_precision_of_one(base: Path, shapes: Path) -> None:
    """And one that finds the left halves of everything what pycocotools says of it, asked by itself."""
    from pycocotools import mask as coco
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    learnt = objective(picture_spec(TASK), base, shapes)
    samples = learnt.encode("test").samples
    scenes, ids = [sample.scene for sample in samples], {"circle": 0, "square": 1}
    regions: list[list[Any]] = [
        [{"size": [64, 64], "counts": mask.rle_counts.encode()} for mask in sample.masks]
        for sample in samples
    ]
    perfect = [
        Detections(scene.boxes_N4, np.ones(len(each)), scene.labels_N, each)
        for scene, each in zip(scenes, regions, strict=True)
    ]
    assert evaluate(scenes, perfect, ids, regions).coco.eval["precision"][:, :, :, 0, -1].min() == 1.0
    parts: list[Detections] = []
    results: list[dict[str, Any]] = []
    for index, sample in enumerate(samples):
        found: list[Any] = []
        for mask in sample.masks:
            pixels = decode(mask.rle_counts, (64, 64))
            columns = np.flatnonzero(pixels.any(0))
            pixels[:, columns[: len(columns) // 4]] = False
            found.append(coco.encode(np.asfortranarray(pixels, np.uint8)))
            results.append(
                {"image_id": index, "category_id": mask.label, "segmentation": found[-1], "score": 0.5}
            )
        scene = sample.scene
        parts.append(Detections(scene.boxes_N4, np.full(len(found), 0.5), scene.labels_N, found))
    ours = evaluate(scenes, parts, ids, regions)
    truth = COCO()
    truth.dataset = json.loads(
        json.dumps(ours.coco.cocoGt.dataset, default=lambda value: value.decode() if value else None)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        theirs = COCOeval(truth, truth.loadRes(cast("Any", results)), "segm")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    precision = ours.coco.eval["precision"][:, :, :, 0, -1]
    assert 0 < precision[precision > -1].mean() < 1
    assert precision[precision > -1].mean() == pytest.approx(theirs.stats[0])


def test_it_learns_shapes_and_says_how_well(base: Path, shapes: Path, tmp_path: Path) -> None:
    spec = picture_spec(
        TASK,
        validation_split="val",
        test_split="test",
        optimization=Optimization(learning_rate=3e-3, max_steps=60, micro_batch_size=8, warmup_ratio=0.1),
        evaluation=Evaluation(baselines=True),
    )
    result, told = run(spec, base, shapes, tmp_path)
    metrics = result.metrics
    assert told.losses[60] < 0.7 * told.losses[1]
    assert metrics["test/map50"] > 2 * max(metrics["test/untrained_map50"], 0.05)
    assert metrics["test/map_low"] <= metrics["test/map"] <= metrics["test/map_high"]
    assert {"val/map", "val/loss", "test/map/circle", "test/map75"} <= metrics.keys()
    items = lines(tmp_path / "evaluation/test.jsonl")
    assert len(items) == metrics["test/items"] == 6
    assert any(found["match"] for item in items for found in item["predictions"])
    assert any("class_predictor starts from random" in message for message in told.messages)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_resumed_at_any_step_it_computes_the_same_bits(
    base: Path, shapes: Path, tmp_path: Path, method: str
) -> None:
    """Points and pairs are drawn at random: their state is part of a checkpoint."""
    spec = picture_spec(
        TASK,
        validation_split="val",
        optimization=Optimization(learning_rate=1e-3, max_steps=4, micro_batch_size=2, seed=3),
        **({"method": ADAPTED} if method == "lora" else {}),
    )
    assert_resumes_bit_equal(spec, base, shapes, tmp_path)


def test_seeing_more_often_changes_no_bit(base: Path, shapes: Path, tmp_path: Path) -> None:
    short = Optimization(learning_rate=1e-3, max_steps=3, micro_batch_size=2)
    often = picture_spec(
        TASK, validation_split="val", optimization=short, evaluation=Evaluation(every_steps=1)
    )
    seldom = replace(often, validation_split="")
    one, other = run(often, base, shapes, tmp_path / "often"), run(seldom, base, shapes, tmp_path / "seldom")
    assert one[0].certificate == other[0].certificate


def test_a_freeze_plan_leaves_the_backbone_alone(base: Path, shapes: Path, tmp_path: Path) -> None:
    short = Optimization(learning_rate=1e-3, max_steps=1, micro_batch_size=2)
    spec = picture_spec(TASK, method=Full((Tower.HEAD,)), optimization=short)
    saved = load_file(run(spec, base, shapes, tmp_path)[0].checkpoint.path / "weights/trainable.safetensors")
    assert saved
    assert not [name for name in saved if name.startswith("model.pixel_level_module.encoder")]


def test_bf16_trains(base: Path, shapes: Path, tmp_path: Path) -> None:
    short = Optimization(learning_rate=1e-3, max_steps=2, micro_batch_size=2)
    spec = picture_spec(TASK, precision=Precision.BF16, optimization=short, test_split="test")
    for method in (ADAPTED, Full((Tower.VISION, Tower.HEAD))):
        losses = run(replace(spec, method=method), base, shapes, tmp_path / type(method).__name__)[1].losses
        assert all(0 < loss < 1e3 for loss in losses.values())


def test_groups_are_not_learnt_and_rows_without_masks_are_put_aside(base: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sound = shapes_row("sound", "train", ["circle", "square"], rng, (64, 64))
    crowd = masked_object("crowd", "circle", from_array(np.ones((64, 64), np.bool_))) | {"iscrowd": True}
    sound["objects"].append(crowd)
    boxed = shapes_row("boxed", "train", ["circle"], rng, (64, 64))
    boxed["objects"][0]["rle_counts"] = None
    learnt = objective(picture_spec(TASK), base, write_dataset(tmp_path / "a", [sound, boxed], shards=1))
    split = learnt.encode("train")
    assert [each.reason for each in split.entries] == ["", "OBJECT_WITHOUT_MASK"]
    assert [len(each) for each in learnt.collate(split, split.samples).targets["class_labels"]] == [2]
    assert split.samples[0].scene.crowd_N.sum() == 1
    with pytest.raises(InvalidError) as caught:
        objective(picture_spec(TASK), base, write_dataset(tmp_path / "b", [boxed], shards=1)).encode("train")
    assert caught.value.reason == "NO_MASKS"
