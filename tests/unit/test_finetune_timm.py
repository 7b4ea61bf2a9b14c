"""Classifiers of timm: skipped where timm is not installed, but for what people are told then."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.finetune import Evaluation, Full, Optimization, Task, Tower
from finemesh.core.spec.lint import facts_of
from finemesh.finetune.models import load_model
from finemesh.finetune.tiny import build_tiny
from finemesh.package.trained import Trained
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from tests.support.conversations import write_dataset
from tests.support.picture_runs import ADAPTED, assert_resumes_bit_equal, picture_spec, run
from tests.support.shapes import shape_rows

TASK = Task.IMAGE_CLASSIFICATION
CLASSES = ("circle", "square")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = list(shape_rows({"train": 48, "val": 16, "test": 24}, side_px=32, most=1))
    return write_dataset(tmp_path_factory.mktemp("data") / "shapes", rows)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ResNet as timm itself writes its models for the hub."""
    timm: Any = pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=5, channels=(8, 16, 24, 32), layers=(1, 1, 1, 1))
    model.pretrained_cfg.update(input_size=(3, 32, 32), crop_pct=0.5)
    own = {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}
    timm.models.save_for_hf(model, folder, model_args=own, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("timm")
    return build_tiny("timm", tmp_path_factory.mktemp("vit"), ["no texts"], seed=0)


def test_a_model_of_the_hub_trains_and_resumes_bit_for_bit(
    published: Path, shapes: Path, tmp_path: Path
) -> None:
    """Its config.json names no model_type and its head is called fc; the statistics of batch norms move."""
    assert facts_of(json.loads((published / "config.json").read_bytes())).model_type == "timm_wrapper"
    assert_resumes_bit_equal(picture_spec(TASK, test_split="test"), published, shapes, tmp_path / "full")
    head = run(picture_spec(TASK, method=Full((Tower.HEAD,))), published, shapes, tmp_path / "head")[0]
    saved = load_file(head.checkpoint.path / "weights/trainable.safetensors")
    trained = {name for name in saved if "running_" not in name and "num_batches" not in name}
    assert trained == {"timm_model.fc.weight", "timm_model.fc.bias"}


def test_adapters_go_into_a_transformer_and_its_head_is_trained_whole(
    vit: Path, shapes: Path, tmp_path: Path
) -> None:
    spec = picture_spec(TASK, method=ADAPTED)
    assert_resumes_bit_equal(spec, vit, shapes, tmp_path)
    [*_, last] = sorted((tmp_path / "straight/checkpoints").iterdir())
    names = set(load_file(last / "adapter/adapter_model.safetensors"))
    assert {"base_model.model.timm_model.head.weight", "base_model.model.timm_model.head.bias"} <= names
    assert any("blocks.1.attn.qkv.lora_A" in name for name in names)


def test_it_learns_shapes(vit: Path, shapes: Path, tmp_path: Path) -> None:
    spec = picture_spec(
        TASK,
        test_split="test",
        optimization=Optimization(learning_rate=2e-3, max_steps=60, micro_batch_size=8),
        evaluation=Evaluation(baselines=True),
    )
    result, told = run(spec, vit, shapes, tmp_path)
    assert result.metrics["test/accuracy"] > 0.8
    assert any(message.endswith("timm_model.head starts from random numbers") for message in told.messages)


def test_it_is_shown_pictures_and_computes_as_timm_does(published: Path) -> None:
    """A model that keeps its five classes, on pictures of another shape: what timm's own functions give."""
    timm: Any = pytest.importorskip("timm")
    config = json.loads((published / "config.json").read_bytes())
    theirs = timm.create_model(config["architecture"], num_classes=5, **_shape(config)).eval()
    theirs.load_state_dict(load_file(published / "model.safetensors"))
    transform = timm.data.create_transform(**timm.data.resolve_data_config(config["pretrained_cfg"]))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 70, 3), dtype=np.uint8))
    model = load_model(picture_spec(TASK), published, tuple(f"LABEL_{index}" for index in range(5)))
    assert model.notes == ()
    pixels = model.processor(picture)["pixel_values"]
    assert torch.equal(pixels[0], transform(picture))
    with model.evaluating(), torch.no_grad():
        assert torch.equal(model.module(pixel_values=pixels).logits, theirs(pixels))


def _shape(config: dict[str, Any]) -> dict[str, Any]:
    return {name: config["model_args"][name] for name in ("channels", "layers")}


def test_a_saved_model_names_the_classes_it_was_trained_for(vit: Path, tmp_path: Path) -> None:
    first = load_model(picture_spec(TASK), vit, CLASSES)
    first.module.save_pretrained(tmp_path)
    again = load_model(picture_spec(TASK), tmp_path, CLASSES)
    assert (list(again.config.id2label.values()), again.notes) == (list(CLASSES), ())
    assert torch.equal(again.module.timm_model.head.weight, first.module.timm_model.head.weight)


def test_what_was_trained_is_merged_into_a_model_that_transformers_loads(
    published: Path, shapes: Path, tmp_path: Path
) -> None:
    """timm writes the count of its classes among the arguments of a model, which has other ones now."""
    spec = picture_spec(TASK)
    result, _ = run(spec, published, shapes, tmp_path / "run")
    trained = Trained(spec, result.checkpoint.path, published, shapes, tmp_path / "scratch")
    merged: Any = AutoModelForImageClassification.from_pretrained(trained.merged)
    assert sorted(merged.config.label2id) == list(CLASSES)
    expected, found = trained.model.module.state_dict(), merged.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], each) for name, each in expected.items())


def test_a_model_that_names_no_head_is_refused(tmp_path: Path) -> None:
    config = {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 32, 32]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidError, match=r"pretrained_cfg\.classifier") as caught:
        load_model(picture_spec(TASK), tmp_path, CLASSES)
    assert caught.value.reason == "BASE_MODEL_UNSUITABLE"


def test_without_the_package_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    config = {"architecture": "resnet18", "pretrained_cfg": {"classifier": "fc"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PreconditionError, match=r"pip install 'finemesh\[timm\]'") as caught:
        load_model(picture_spec(TASK), tmp_path, CLASSES)
    assert caught.value.reason == "NOT_INSTALLED"
