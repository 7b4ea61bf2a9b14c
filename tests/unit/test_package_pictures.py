"""Packages of models that look at pictures: adapters and whole models, and what gives them away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import FineTuneSpec, Full, Lora, Task, Tower
from finemesh.finetune.heads import classes_of
from finemesh.finetune.manifests import write_manifest
from finemesh.package.exporting import export_checkpoint
from finemesh.package.golden_metrics import golden_metric
from finemesh.package.manifest import load_package_manifest
from safetensors.numpy import load_file, save_file

from tests.support.checkpoints import checkpoint_of, moved_model
from tests.support.conversations import write_dataset
from tests.support.package_gate import replay
from tests.support.picture_runs import ADAPTED, picture_spec, tiny_picture_model
from tests.support.shapes import row_of, shape_rows

ITEMS = 3
WHOLE = Full((Tower.VISION, Tower.HEAD))
MANY = tuple(f"class {index:02d}/../|é" for index in range(100))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("shapes") / "d", [*shape_rows({"train": 2, "test": ITEMS})])


def seeing(task: Task, method: Lora | Full) -> FineTuneSpec:
    return picture_spec(task, method=method, test_split="test")


def packaged(root: Path, family: str, spec: FineTuneSpec, dataset: Path, form: ExportFormat) -> Path:
    base = tiny_picture_model(root / "base", family)
    model = moved_model(spec, base, tuple(classes_of(spec, dataset)))
    export_checkpoint(
        spec=spec,
        checkpoint=checkpoint_of(model, root / "checkpoints"),
        base_model=base,
        dataset=dataset,
        out=root / "package",
        format=form,
        lineage={"dataset": "projects/../etc/passwd"},
        golden_items=ITEMS,
    )
    return root / "package"


@pytest.mark.parametrize(
    ("family", "spec", "form"),
    [
        ("vit", seeing(Task.IMAGE_CLASSIFICATION, ADAPTED), ExportFormat.ADAPTER),
        ("vit", seeing(Task.IMAGE_CLASSIFICATION, WHOLE), ExportFormat.MERGED_FP16),
        ("segformer", seeing(Task.SEMANTIC_SEGMENTATION, WHOLE), ExportFormat.MERGED),
        ("mask2former", seeing(Task.INSTANCE_SEGMENTATION, WHOLE), ExportFormat.MERGED),
        (
            "rt-detr-v2",
            seeing(Task.DETECTION, Full((Tower.DECODER, Tower.HEAD))),
            ExportFormat.MERGED,
        ),
    ],
)
def test_it_behaves_as_trained(
    tmp_path: Path, shapes: Path, family: str, spec: FineTuneSpec, form: ExportFormat
) -> None:
    """Pixels, raw outputs, and decisions: the package's own, in numpy, against those of transformers."""
    package = packaged(tmp_path, family, spec, shapes, form)
    report = replay(package, tmp_path / "base" if form is ExportFormat.ADAPTER else None)
    assert report["passed"], report["reasons"]
    assert report["items"] == ITEMS
    kinds = {each["kind"] for each in report["checks"]}
    assert {"preprocessing", "raw outputs", "decisions"} <= kinds
    decisions = {
        key.replace("/decision/", "/"): each
        for key, each in load_file(package / "golden" / "outputs.safetensors").items()
        if "/decision/" in key
    }
    save_file(decisions, tmp_path / "same.safetensors")
    metric = golden_metric(package, load_package_manifest(package), tmp_path / "same.safetensors")
    assert metric is not None
    assert (metric.trained, metric.loss) == (metric.package, 0.0)


def test_a_detector_of_a_hundred_classes_whatever_they_are_called(tmp_path: Path) -> None:
    """Names with the characters of paths and tables name nothing on disk and lose nothing."""
    rows = [*shape_rows({"train": 40, "test": ITEMS}, least=3)]
    names = iter(MANY * 3)
    for row in rows:
        for each in row["objects"]:
            each["class_name"] = next(names)
    rows[-1]["row_id"] = "../../../escaped"
    dataset = write_dataset(tmp_path / "d", rows)
    spec = seeing(Task.DETECTION, WHOLE)
    classes = classes_of(spec, dataset)
    assert len(classes) == 100
    package = packaged(tmp_path, "yolos", spec, dataset, ExportFormat.MERGED)
    config = json.loads((package / "config.json").read_text())
    assert tuple(config["id2label"].values()) == classes
    assert json.loads((package / "manifest.json").read_text())["decisions"]["labels"] == list(classes)
    report = replay(package)
    assert report["passed"], report["reasons"]
    assert {path.name for path in tmp_path.iterdir()} == {"base", "checkpoints", "d", "package"}
    assert not list(tmp_path.parent.glob("escaped*"))


def reseal(package: Path) -> None:
    facts = load_package_manifest(package).facts()
    (package / "manifest.json").unlink()
    write_manifest(package, facts)


def test_other_preprocessing_and_other_weights_are_told_apart(tmp_path: Path, shapes: Path) -> None:
    """The first changes what the model is fed, the second what it says of the same."""
    spec = seeing(Task.IMAGE_CLASSIFICATION, WHOLE)
    package = packaged(tmp_path, "vit", spec, shapes, ExportFormat.MERGED)
    other = Path(shutil.copytree(package, tmp_path / "pixels"))
    content = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps({**content, "image_mean": [0.4] * 3}))
    reseal(other)
    report = replay(other)
    assert not report["passed"]
    assert report["reasons"][0].startswith(
        "preprocessing: largest difference of what the model is fed is 0.2"
    )
    assert len(report["differences"]) == ITEMS

    tensors = load_file(package / "model.safetensors")
    tensors["classifier.bias"] = tensors["classifier.bias"] + np.float32(0.5)
    save_file(tensors, package / "model.safetensors", {"format": "pt"})
    reseal(package)
    report = replay(package)
    assert not report["passed"]
    assert all(reason.startswith("raw outputs") for reason in report["reasons"])
    assert replay(package, max_difference=None, max_relative_difference=10.0)["passed"]


def test_a_picture_without_objects_is_an_item_like_any_other(tmp_path: Path) -> None:
    from PIL import Image

    rows = [*shape_rows({"train": 2})]
    rows += [row_of(f"empty-{index}", "test", Image.new("RGB", (64, 64))) for index in range(ITEMS)]
    dataset = write_dataset(tmp_path / "d", rows)
    spec = seeing(Task.DETECTION, WHOLE)
    package = packaged(tmp_path, "yolos", spec, dataset, ExportFormat.MERGED)
    decisions = tmp_path / "none.safetensors"
    save_file(
        {
            f"{i}/{n}": np.zeros((0, 4) if n == "boxes" else 0)
            for i in range(ITEMS)
            for n in ("boxes", "scores", "labels")
        },
        decisions,
    )
    assert golden_metric(package, load_package_manifest(package), decisions) is None
