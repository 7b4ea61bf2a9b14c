"""Semantic segmentation: how masks become maps, what is learnt, and what is measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import (
    Background,
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Full,
    Optimization,
    Precision,
    Segmentation,
    Task,
    Tower,
)
from finemesh.data.rle import from_array
from finemesh.data.rows import masked_object
from finemesh.finetune import confusion
from finemesh.finetune.heads import classes_of
from finemesh.finetune.masks import decode
from finemesh.finetune.models import load_model
from finemesh.finetune.objectives.semantic import UNLABELLED, SemanticSegmentation
from PIL import Image
from pycocotools import mask as coco

from tests.support.conversations import write_dataset
from tests.support.picture_runs import (
    ADAPTED,
    assert_resumes_bit_equal,
    picture_spec,
    run,
    tiny_picture_model,
)
from tests.support.shapes import row_of, shape_rows, shapes_row

TASK = Task.SEMANTIC_SEGMENTATION
IGNORED = Segmentation(Background.IGNORED)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_picture_model(tmp_path_factory.mktemp("model") / "segformer", "segformer")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = list(shape_rows({"train": 24, "val": 8, "test": 12}, side_px=48))
    return write_dataset(tmp_path_factory.mktemp("data") / "shapes", rows)


def objective(spec: FineTuneSpec, base: Path, dataset: Path) -> SemanticSegmentation:
    return SemanticSegmentation(spec, load_model(spec, base, classes_of(spec, dataset)), dataset)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rectangle(name: str | None, left: int, top: int, right: int, bottom: int, side: int = 64) -> Any:
    pixels = np.zeros((side, side), np.bool_)
    pixels[top:bottom, left:right] = True
    return masked_object(f"{name}-{left}", name, from_array(pixels))


def scene(row_id: str, *objects: Any, side: int = 64) -> dict[str, Any]:
    return row_of(row_id, "train", Image.new("RGB", (side, side)), objects)


def test_the_smaller_object_lies_on_top_and_the_rest_is_background(base: Path, tmp_path: Path) -> None:
    """Drawn by hand: a small square inside a large one, whatever the order of the objects."""
    small, large = rectangle("square", 10, 20, 20, 30), rectangle("circle", 0, 0, 40, 40)
    dataset = write_dataset(tmp_path / "data", [scene("a", small, large), scene("b", large, small)], shards=1)
    expected = np.zeros((64, 64), np.int64)
    expected[:40, :40], expected[20:30, 10:20] = 1, 2
    for spec, uncovered, shift in (
        (picture_spec(TASK), 0, 0),
        (picture_spec(TASK, segmentation=IGNORED), UNLABELLED, 1),
    ):
        learnt = objective(spec, base, dataset)
        assert learnt.names == ["background", "circle", "square"][shift:]
        split = learnt.encode("train")
        batch = learnt.collate(split, split.samples)
        wanted = np.where(expected == 0, uncovered, expected - shift)
        assert np.array_equal(batch.labels_BHW[0].numpy(), wanted)
        assert np.array_equal(batch.labels_BHW[1].numpy(), wanted)
        assert batch.weight == 2 * (wanted != UNLABELLED).sum()


def test_uncovered_pixels_join_the_datasets_own_background(base: Path, tmp_path: Path) -> None:
    rows = [scene("a", rectangle("background", 0, 0, 9, 9), rectangle("square", 30, 30, 50, 50))]
    learnt = objective(picture_spec(TASK), base, write_dataset(tmp_path / "data", rows, shards=1))
    split = learnt.encode("train")
    labels = learnt.collate(split, split.samples).labels_BHW[0]
    assert learnt.names == ["background", "square"]
    assert (labels == 0).sum() == 64 * 64 - 400


@pytest.mark.parametrize("segmentation", [Segmentation(), IGNORED])
def test_the_loss_is_that_of_transformers(base: Path, shapes: Path, segmentation: Segmentation) -> None:
    """Its own loss is a mean over pixels that have a class; ours a sum over `weight`."""
    learnt = objective(picture_spec(TASK, segmentation=segmentation), base, shapes)
    split = learnt.encode("train")
    batch = learnt.collate(split, split.samples[:4])
    learnt.model.module.eval()
    with torch.inference_mode():
        theirs = learnt.model.module(pixel_values=batch.pixels_BCHW, labels=batch.labels_BHW.long()).loss
        assert float(learnt.loss(batch) / batch.weight) == pytest.approx(float(theirs), rel=1e-5)


def test_labels_are_not_reduced_by_processors_of_ade20k(base: Path, shapes: Path) -> None:
    """Published SegFormers take 1 from every label and ignore the first class."""
    learnt = objective(picture_spec(TASK), base, shapes)
    learnt.model.processor.do_reduce_labels = True
    split = learnt.encode("train")
    assert set(learnt.collate(split, split.samples).labels_BHW.unique().tolist()) == {0, 1, 2}


def test_it_learns_shapes_and_says_how_well(base: Path, shapes: Path, tmp_path: Path) -> None:
    """The figures of the test follow from the counts of its items; added up by hand here."""
    spec = picture_spec(
        TASK,
        validation_split="val",
        test_split="test",
        optimization=Optimization(learning_rate=1e-2, max_steps=60, micro_batch_size=8),
        evaluation=Evaluation(baselines=True),
    )
    result, told = run(spec, base, shapes, tmp_path)
    metrics, items = result.metrics, lines(tmp_path / "evaluation/test.jsonl")
    totals: dict[str, dict[str, float]] = {}
    for item in items:
        for name, counts in item["classes"].items():
            total = totals.setdefault(name, dict.fromkeys(("there", "said", "hits"), 0.0))
            for key in total:
                total[key] += counts[key]
    ious = {name: t["hits"] / (t["there"] + t["said"] - t["hits"]) for name, t in totals.items()}
    assert metrics["test/mean_iou"] == pytest.approx(np.mean(list(ious.values())))
    assert metrics["test/pixel_accuracy"] == pytest.approx(
        sum(t["hits"] for t in totals.values()) / (48 * 48 * len(items))
    )
    table = {each["class"]: each["iou"] for each in lines(tmp_path / "evaluation/test_classes.jsonl")}
    assert table == pytest.approx(ious)
    assert metrics["test/mean_iou_low"] <= metrics["test/mean_iou"] <= metrics["test/mean_iou_high"]
    assert metrics["test/mean_iou"] > 0.7
    assert metrics["test/majority_pixel_accuracy"] == pytest.approx(
        totals["background"]["there"] / (48 * 48 * len(items))
    )
    for blind in ("majority", "blanked", "untrained"):
        assert metrics[f"test/{blind}_mean_iou"] < 0.5
    assert {"val/loss", "val/mean_iou", "val/pixel_accuracy"} <= metrics.keys()
    assert any("decode_head.classifier starts from random" in message for message in told.messages)


def test_counts_agree_with_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    classes = 4
    for _ in range(20):
        expected, predicted = rng.integers(0, classes, (2, 60))
        expected[expected == rng.integers(classes)] = 0  # often a class is absent
        sums = confusion.counts(expected, predicted, classes)[None]
        matrix = np.zeros((classes, classes), np.int64)
        for truth, said in zip(expected, predicted, strict=True):
            matrix[truth, said] += 1
        ious, f1s = [], []
        for c in range(classes):
            union = matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]
            if union:
                ious.append(matrix[c, c] / union)
                f1s.append(2 * matrix[c, c] / (matrix[c].sum() + matrix[:, c].sum()))
        assert confusion.mean_iou(sums)[0] == pytest.approx(np.mean(ious))
        assert confusion.macro_f1(sums)[0] == pytest.approx(np.mean(f1s))
        assert confusion.accuracy(sums)[0] == pytest.approx(np.trace(matrix) / 60)


@pytest.mark.parametrize("method", ["full", "lora", "frozen"])
def test_resumed_at_any_step_it_computes_the_same_bits(
    base: Path, shapes: Path, tmp_path: Path, method: str
) -> None:
    """The running statistics of its batch norm are part of a checkpoint; a frozen backbone trains a head."""
    methods = {"lora": {"method": ADAPTED}, "frozen": {"method": Full((Tower.HEAD,))}, "full": {}}
    spec = picture_spec(TASK, validation_split="val", test_split="test", **methods[method])
    assert_resumes_bit_equal(spec, base, shapes, tmp_path)


def test_killed_in_the_middle_and_resumed_from_disk(base: Path, shapes: Path, tmp_path: Path) -> None:
    spec = picture_spec(TASK, test_split="test", checkpoint=Checkpointing(every_steps=2, keep_last=9))
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    command = [sys.executable, "-m", "finemesh.finetune", str(tmp_path / "spec.json"), "--base", str(base)]
    command += ["--dataset", str(shapes), "--work", str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if json.loads(line).get("step") == 5:
                os.kill(process.pid, signal.SIGKILL)
                break
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=True)
    killed = json.loads(done.stdout.splitlines()[-1])
    straight, _ = run(spec, base, shapes, tmp_path / "straight")
    assert killed["certificate"]["loss_digest"] == straight.certificate.loss_digest
    assert killed["metrics"]["test/mean_iou"] == straight.metrics["test/mean_iou"]


def test_a_frozen_head_keeps_its_statistics(base: Path, shapes: Path, tmp_path: Path) -> None:
    trained, _ = run(picture_spec(TASK), base, shapes, tmp_path / "first")
    learnt = objective(picture_spec(TASK), base, shapes)
    weights = trained.checkpoint.path / "weights/trainable.safetensors"
    from safetensors.torch import load_file

    learnt.model.module.load_state_dict(load_file(weights), strict=False)
    learnt.model.module.save_pretrained(tmp_path / "model")
    learnt.model.processor.save_pretrained(tmp_path / "model")
    spec = picture_spec(TASK, method=Full((Tower.VISION,)))
    again, _ = run(spec, tmp_path / "model", shapes, tmp_path / "second")
    name = "decode_head.batch_norm.running_mean"
    saved = load_file(again.checkpoint.path / "weights/trainable.safetensors")
    assert torch.equal(saved[name], load_file(weights)[name])
    assert saved[name].abs().sum() > 0


def test_bf16_follows_fp32(base: Path, shapes: Path, tmp_path: Path) -> None:
    for method in (ADAPTED, Full((Tower.VISION, Tower.HEAD))):
        folder = tmp_path / type(method).__name__
        exact = run(picture_spec(TASK, method=method), base, shapes, folder / "fp32")[1].losses
        half = run(picture_spec(TASK, method=method, precision=Precision.BF16), base, shapes, folder / "bf16")
        assert half[1].losses == pytest.approx(exact, rel=0.1)


def test_every_row_has_a_fate(base: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxed = rectangle("circle", 0, 0, 9, 9) | {"rle_counts": None}
    hidden = rectangle("circle", 0, 0, 9, 9) | {"visible": False}
    rows = [
        shapes_row("sound", "train", ["circle", "square"], rng, (64, 48)),
        scene("boxed", rectangle("square", 0, 0, 5, 5), boxed),
        scene("nameless", rectangle(None, 0, 0, 9, 9)),
        scene("other size", rectangle("circle", 0, 0, 9, 9, side=32)),
        scene("hidden", hidden),
        scene("empty"),
    ]
    dataset = write_dataset(tmp_path / "data", rows, shards=1)
    fates = {
        "sound": "",
        "boxed": "OBJECT_WITHOUT_MASK",
        "nameless": "OBJECT_WITHOUT_CLASS",
        "other size": "MASK_SIZE_MISMATCH",
    }
    spec = picture_spec(TASK)
    found = {each.row_id: each.reason for each in objective(spec, base, dataset).encode("train").entries}
    assert found == {**fates, "hidden": "", "empty": ""}, "background alone is something to learn"
    ignored = objective(replace(spec, segmentation=IGNORED), base, dataset).encode("train")
    found = {each.row_id: each.reason for each in ignored.entries}
    assert found == {**fates, "hidden": "NO_LABELLED_PIXELS", "empty": "NO_LABELLED_PIXELS"}


def test_more_classes_than_a_map_holds_are_refused(base: Path, tmp_path: Path) -> None:
    many = [rectangle(f"class {index}", index % 64, index // 64, 64, 64) for index in range(255)]
    dataset = write_dataset(tmp_path / "data", [scene("many", *many)], shards=1)
    objective(picture_spec(TASK, segmentation=IGNORED), base, dataset)
    with pytest.raises(InvalidError) as caught:
        objective(picture_spec(TASK), base, dataset)
    assert caught.value.reason == "TOO_MANY_CLASSES"


def test_only_masks_of_the_pictures_size_are_decoded() -> None:
    """pycocotools itself decodes masks of other sizes to something."""
    rng = np.random.default_rng(0)
    pixels = rng.random((20, 30)) < 0.3
    encoded: Any = coco.encode(np.asfortranarray(pixels, np.uint8))
    counts: str = encoded["counts"].decode("ascii")
    assert np.array_equal(decode(counts, (20, 30)), pixels)
    for counted, size in ((counts, (21, 30)), (counts, (20, 29)), ("", (20, 30)), ("~~", (20, 30))):
        with pytest.raises(ValueError, match="not a mask"):
            decode(counted, size)


def test_backgrounds_are_of_this_task_alone() -> None:
    with pytest.raises(InvalidError, match="labels pixels"):
        picture_spec(Task.IMAGE_CLASSIFICATION, segmentation=IGNORED).validate()
