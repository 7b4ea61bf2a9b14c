"""Image classification: what is learnt, what is measured, and what becomes of every row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.finetune import Evaluation, Full, Lora, Optimization, Precision, Task, Tower
from finemesh.core.spec.ledger import Disposition
from finemesh.finetune.models import load_model
from finemesh.finetune.objectives.classification import Classification
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

TASK = Task.IMAGE_CLASSIFICATION
FAMILIES = ("vit", "convnext", "convnextv2", "swin")
CLASSES = ("circle", "square")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_picture_model(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = list(shape_rows({"train": 48, "val": 16, "test": 24}, side_px=32, most=1))
    return write_dataset(tmp_path_factory.mktemp("data") / "shapes", rows)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_learns_shapes_and_says_how_well(models: dict[str, Path], shapes: Path, tmp_path: Path) -> None:
    """Every number of the result follows from the lines of the items; counted by hand here."""
    spec = picture_spec(
        TASK,
        validation_split="val",
        test_split="test",
        optimization=Optimization(learning_rate=5e-3, max_steps=40, micro_batch_size=8),
        evaluation=Evaluation(baselines=True),
    )
    result, told = run(spec, models["convnext"], shapes, tmp_path)
    metrics, items = result.metrics, lines(tmp_path / "evaluation/test.jsonl")
    assert len(items) == metrics["test/items"] == 24
    right = [item["prediction"] == item["expected"] for item in items]
    assert metrics["test/accuracy"] == pytest.approx(np.mean(right))
    assert metrics["test/accuracy"] > 0.9
    assert metrics["test/loss"] == pytest.approx(np.mean([item["loss"] for item in items]))
    f1s: list[float] = []
    for name in CLASSES:
        hits = sum(item["prediction"] == item["expected"] == name for item in items)
        f1s.append(2 * hits / sum([item["prediction"], item["expected"]].count(name) for item in items))
    assert metrics["test/macro_f1"] == pytest.approx(np.mean(f1s))
    assert [each["f1"] for each in lines(tmp_path / "evaluation/test_classes.jsonl")] == pytest.approx(f1s)
    for name in ("accuracy", "macro_f1"):
        assert metrics[f"test/{name}_low"] <= metrics[f"test/{name}"] <= metrics[f"test/{name}_high"]
    trained = [row["class_name"] for row in shape_rows({"train": 48}, side_px=32, most=1)]
    most = max(CLASSES, key=trained.count)
    assert metrics["test/majority_accuracy"] == np.mean([item["expected"] == most for item in items])
    assert metrics["test/blanked_accuracy"] < metrics["test/accuracy"]
    assert {"val/loss", "val/accuracy", "val/macro_f1", "test/untrained_accuracy"} <= metrics.keys()
    assert any(message.endswith("classifier starts from random numbers") for message in told.messages)


def test_the_loss_is_that_of_transformers(models: dict[str, Path], shapes: Path) -> None:
    """Its own loss is a mean; ours a sum over `weight`."""
    model = load_model(picture_spec(TASK), models["vit"], CLASSES)
    objective = Classification(model.spec, model, shapes)
    split = objective.encode("train")
    batch = objective.collate(split, split.samples[:6])
    model.module.eval()
    with torch.inference_mode():
        theirs = model.module(pixel_values=batch.pixels_BCHW, labels=batch.labels_B).loss
        assert float(objective.loss(batch) / batch.weight) == pytest.approx(float(theirs), rel=1e-6)
    assert [CLASSES[label] for label in batch.labels_B.tolist()] == [
        row["class_name"] for row in shape_rows({"train": 48}, side_px=32, most=1)
    ][:12:2], "samples are in the order of the shards"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_resumed_at_any_step_it_computes_the_same_bits(
    models: dict[str, Path], shapes: Path, tmp_path: Path, family: str, method: str
) -> None:
    spec = picture_spec(TASK, test_split="test", **({"method": ADAPTED} if method == "lora" else {}))
    assert_resumes_bit_equal(spec, models[family], shapes, tmp_path)


def test_what_the_auto_class_loads_trains_with_its_batch_norms(
    models: dict[str, Path], shapes: Path, tmp_path: Path
) -> None:
    """A ResNet, of no family of its own: its statistics move with the backbone, and stay with it."""
    from transformers import AutoImageProcessor, ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetForImageClassification(config).save_pretrained(tmp_path / "resnet")
    AutoImageProcessor.from_pretrained(models["vit"], backend="pil").save_pretrained(tmp_path / "resnet")
    assert_resumes_bit_equal(picture_spec(TASK), tmp_path / "resnet", shapes, tmp_path / "whole")
    frozen = picture_spec(TASK, method=Full((Tower.HEAD,)))
    result, _ = run(frozen, tmp_path / "resnet", shapes, tmp_path / "frozen")
    saved = load_file(result.checkpoint.path / "weights/trainable.safetensors")
    moved = [name for name in saved if name.endswith("running_mean") and saved[name].any()]
    assert not moved
    assert any(name.endswith("running_mean") for name in saved)


def test_a_model_without_a_layer_for_classes_is_refused(shapes: Path, tmp_path: Path) -> None:
    from transformers import SwiftFormerConfig, SwiftFormerForImageClassification

    config = SwiftFormerConfig(depths=[1, 1], embed_dims=[8, 16], downsamples=[True, True], image_size=32)
    SwiftFormerForImageClassification(config).save_pretrained(tmp_path / "base")
    with pytest.raises(InvalidError, match="no layer 'classifier'") as caught:
        run(picture_spec(TASK), tmp_path / "base", shapes, tmp_path / "work")
    assert caught.value.reason == "BASE_MODEL_UNSUITABLE"


def test_how_a_step_is_cut_changes_nothing(models: dict[str, Path], shapes: Path, tmp_path: Path) -> None:
    def losses(micro: int, accumulate: int) -> dict[int, float]:
        cut = Optimization(
            learning_rate=1e-3, max_steps=3, micro_batch_size=micro, gradient_accumulation_steps=accumulate
        )
        spec = picture_spec(TASK, optimization=cut)
        return run(spec, models["vit"], shapes, tmp_path / f"{micro}-{accumulate}")[1].losses

    assert losses(2, 4) == pytest.approx(losses(8, 1), rel=1e-5)


def test_freeze_plans_hold_what_they_say(models: dict[str, Path], shapes: Path, tmp_path: Path) -> None:
    spec = picture_spec(TASK, method=Full((Tower.HEAD,)))
    saved = run(spec, models["swin"], shapes, tmp_path)[0].checkpoint.path
    assert set(load_file(saved / "weights/trainable.safetensors")) == {"classifier.weight", "classifier.bias"}
    adapter = run(replace(spec, method=ADAPTED), models["swin"], shapes, tmp_path / "lora")[0]
    names = load_file(adapter.checkpoint.path / "adapter/adapter_model.safetensors")
    assert {name for name in names if "classifier" in name} == {
        "base_model.model.classifier.weight",
        "base_model.model.classifier.bias",
    }
    with pytest.raises(InvalidError, match="stay random") as caught:
        run(replace(spec, method=Full((Tower.VISION,))), models["swin"], shapes, tmp_path / "frozen")
    assert caught.value.reason == "BASE_MODEL_UNSUITABLE"


def test_a_head_for_the_same_classes_is_kept_in_its_order(models: dict[str, Path], tmp_path: Path) -> None:
    """As many classes are not the same classes: those of another dataset begin anew."""
    first = load_model(picture_spec(TASK), models["vit"], ("square", "circle"))
    torch.nn.init.constant_(first.module.classifier.weight, 0.5)
    first.module.save_pretrained(tmp_path)
    first.processor.save_pretrained(tmp_path)
    kept = load_model(picture_spec(TASK, method=Full((Tower.VISION,))), tmp_path, CLASSES)
    assert (list(kept.config.id2label.values()), kept.notes) == (["square", "circle"], ())
    assert torch.equal(kept.module.classifier.weight, first.module.classifier.weight)
    other = load_model(picture_spec(TASK), tmp_path, ("cat", "dog"))
    assert list(other.config.id2label.values()) == ["cat", "dog"]
    assert not torch.equal(other.module.classifier.weight, first.module.classifier.weight)
    again = load_model(picture_spec(TASK), tmp_path, ("cat", "dog"))
    assert torch.equal(other.module.classifier.weight, again.module.classifier.weight)


def test_every_row_has_a_fate(models: dict[str, Path], tmp_path: Path) -> None:
    """Where rows have classes, a row without one is put aside; a picture that is cut off is, too."""
    rng = np.random.default_rng(0)
    sound = [shapes_row(f"sound-{i}", "train", [CLASSES[i % 2]], rng, (32, 32)) for i in range(6)]
    broken = shapes_row("broken", "train", ["circle"], rng, (32, 32))
    broken["images"][0]["data"] = broken["images"][0]["data"][:60]
    nameless = shapes_row("nameless", "train", ["circle"], rng, (32, 32)) | {"class_name": None}
    rows = [*sound, broken, nameless, row_of("bare", "train", None, class_name="circle")]
    dataset = write_dataset(tmp_path / "data", rows)
    with pytest.raises(PreconditionError, match=r"the first is row (broken|nameless|bare): ") as caught:
        run(picture_spec(TASK), models["vit"], dataset, tmp_path / "strict")
    assert caught.value.reason == "LOSS_BUDGET_EXCEEDED"
    run(picture_spec(TASK, max_quarantined_fraction=0.5), models["vit"], dataset, tmp_path / "work")
    fates = {line["row_id"]: line["reason"] for line in lines(tmp_path / "work/ledger.jsonl")}
    assert fates == {f"sound-{i}": "" for i in range(6)} | {
        "broken": "IMAGE_UNREADABLE",
        "nameless": "NO_CLASS",
        "bare": "NO_PICTURE",
    }


def test_objects_of_one_class_stand_for_a_picture_without_its_own(
    models: dict[str, Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    rows = [
        shapes_row(name, "train", shapes, rng, (32, 32)) | {"class_name": None}
        for name, shapes in {"one": ["square"], "two": ["circle", "circle"], "mixed": list(CLASSES)}.items()
    ]
    dataset = write_dataset(tmp_path / "data", rows, shards=1)
    model = load_model(picture_spec(TASK), models["vit"], CLASSES)
    encoded = Classification(model.spec, model, dataset).encode("train")
    assert [(each.row_id, CLASSES[each.label]) for each in encoded.samples] == [
        ("one", "square"),
        ("two", "circle"),
    ]
    assert [(each.disposition, each.reason) for each in encoded.entries][2] == (
        Disposition.QUARANTINED,
        "SEVERAL_CLASSES",
    )


def test_a_dataset_without_classes_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    rows = [row | {"class_name": None, "objects": []} for row in shape_rows({"train": 4}, side_px=32)]
    with pytest.raises(InvalidError) as caught:
        run(picture_spec(TASK), models["vit"], write_dataset(tmp_path / "data", rows), tmp_path / "work")
    assert caught.value.reason == "NO_CLASSES"


@pytest.mark.parametrize("family", ["vit", "convnext"])
@pytest.mark.parametrize("method", [ADAPTED, Full((Tower.HEAD,)), Full((Tower.VISION, Tower.HEAD))])
def test_bf16_follows_fp32(
    models: dict[str, Path], shapes: Path, tmp_path: Path, family: str, method: Lora | Full
) -> None:
    spec = picture_spec(TASK, method=method, test_split="test")
    exact = run(spec, models[family], shapes, tmp_path / "fp32")[1].losses
    half = run(replace(spec, precision=Precision.BF16), models[family], shapes, tmp_path / "bf16")[1].losses
    assert half == pytest.approx(exact, rel=0.1)
