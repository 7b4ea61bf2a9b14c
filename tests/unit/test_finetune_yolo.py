"""YOLO: what is refused without its library, and, where that is installed, training with it."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec import lint
from finemesh.core.spec.finetune import Evaluation, Full, Optimization, Task, Tower
from finemesh.finetune.families import FAMILIES, family_of
from finemesh.finetune.models import load_model
from PIL import Image
from safetensors.torch import load_file

from tests.support.conversations import write_dataset
from tests.support.picture_runs import assert_resumes_bit_equal, picture_spec, run
from tests.support.shapes import shape_rows

ROOT = Path(__file__).resolve().parents[2]
installed = pytest.mark.skipif(not importlib.util.find_spec("ultralytics"), reason="needs finemesh[yolo]")
WHOLE = Full((Tower.VISION, Tower.DECODER, Tower.HEAD))
SPEC = picture_spec(Task.DETECTION, method=WHOLE, test_split="test")
SMALL: dict[str, Any] = {
    "nc": 3,
    "backbone": [
        *([-1, 1, "Conv", [width, 3, 2]] for width in (8, 16, 24, 32, 48)),
        [-1, 1, "SPPF", [48, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 3], 1, "Concat", [1]],
        [-1, 1, "C2f", [32]],
        [[2, 8, 5], 1, "Detect", ["nc"]],
    ],
}


def config(**changes: Any) -> dict[str, Any]:
    return {"model_type": "yolo", "architecture": {**SMALL, **changes}}


@pytest.fixture
def described(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config()))
    return tmp_path


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)


def test_nothing_of_ours_imports_the_library_or_what_does() -> None:
    sources = [
        each
        for root in ("services", "ray_cluster", "gateway", "clients")
        for each in (ROOT / root).rglob("*.py")
    ]
    of_it = {
        file.name
        for file in sources
        for name in imported(file)
        if name.startswith(("ultralytics", "finemesh.finetune.yolo"))
    }
    assert of_it == {"yolo.py"}
    requirements = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
    assert requirements.split("[project.entry-points")[0].count('"ultralytics') == 1


def test_the_parts_of_a_model_are_counted_in_its_architecture(described: Path) -> None:
    family = family_of(described, Task.DETECTION)
    assert family.towers[Tower.VISION][-1] == "yolo.model.5"
    assert family.towers[Tower.DECODER] == ("yolo.model.6", "yolo.model.7", "yolo.model.8")
    assert family.towers[Tower.HEAD] == ("yolo.model.9.cv2", "yolo.model.9.cv3")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"activation": "__import__('os').system('true')"}, "has activation"),
        ({"backbone": [[-1, 1, "RepVGGDW", [8]]]}, "has RepVGGDW"),
        ({"head": [[[2, 8], 1, "Detect", ["nc"]]]}, "not Detect over 3 grids"),
        ({"head": "all"}, "no list of layers"),
    ],
)
def test_what_the_library_would_run_is_looked_at_before(
    changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config(**changes)))
    with pytest.raises(InvalidError, match=why) as caught:
        family_of(tmp_path, Task.DETECTION)
    assert caught.value.reason == "BASE_MODEL_UNSUITABLE"


def test_it_is_loaded_nowhere_else(described: Path) -> None:
    if "finemesh.finetune.yolo" in sys.modules:
        pytest.skip("this process has it")
    with pytest.raises(PreconditionError, match="only by the process that trains them") as caught:
        load_model(SPEC, described)
    assert caught.value.reason == "FAMILY_UNSUPPORTED"


def test_adapters_are_refused_before_a_job_is_made() -> None:
    apart = {
        name for each in FAMILIES if each.detector and not each.detector.adapts for name in each.model_types
    }
    assert apart == lint.WITHOUT_ADAPTERS
    listed = json.loads((ROOT / "services/finemesh/training/model_families.json").read_text())
    shown = [each for each in listed["model_families"] if "lora" not in each["methods"]]
    assert {name for each in shown for name in each["model_types"]} == apart
    given = {"task": "DETECTION", "base_model": "./yolo", "dataset": "projects/a/datasets/b"}
    facts = lint.BaseModelFacts(model_type="yolo")
    assert not lint.lint_document({**given, "full": {}}, facts).refused
    [error] = [
        each for each in lint.lint_document({**given, "lora": {}}, facts).findings if each.severity == "ERROR"
    ]
    assert (error.field, "takes no adapters" in error.message) == ("lora", True)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = list(shape_rows({"train": 64, "val": 12, "test": 16}, least=1))
    return write_dataset(tmp_path_factory.mktemp("data") / "shapes", rows)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a user makes one: of a YAML, by the command."""
    folder = tmp_path_factory.mktemp("yolo")
    (folder / "small.yaml").write_text(json.dumps(SMALL))
    command = ["-m", "finemesh.finetune.yolo", str(folder / "small.yaml"), "--out", str(folder / "base")]
    subprocess.run([sys.executable, *command, "--side", "64"], check=True)
    return folder / "base"


@installed
def test_it_resumes_bit_for_bit(base: Path, shapes: Path, tmp_path: Path) -> None:
    assert_resumes_bit_equal(SPEC, base, shapes, tmp_path)


@installed
def test_it_learns_shapes_and_only_the_head_where_that_is_asked(
    base: Path, shapes: Path, tmp_path: Path
) -> None:
    longer = Optimization(learning_rate=4e-3, max_steps=80, micro_batch_size=8, seed=3)
    spec = picture_spec(
        Task.DETECTION,
        method=WHOLE,
        test_split="test",
        optimization=longer,
        evaluation=Evaluation(baselines=True),
    )
    result, told = run(spec, base, shapes, tmp_path / "whole")
    assert result.metrics["test/map50"] > 0.1 + result.metrics["test/untrained_map50"]
    assert any("cv3.2.2 start from random numbers" in message for message in told.messages)
    lines = (tmp_path / "whole/evaluation/test.jsonl").read_text().splitlines()
    assert len(lines) == result.metrics["test/items"] == 16
    head = run(picture_spec(Task.DETECTION, method=Full((Tower.HEAD,))), base, shapes, tmp_path / "head")[0]
    saved = load_file(head.checkpoint.path / "weights/trainable.safetensors")
    moved = {name for name in saved if "running_" not in name and "num_batches" not in name}
    assert moved
    assert all(name.startswith(("yolo.model.9.cv2", "yolo.model.9.cv3")) for name in moved)


ORACLE = """
import sys, json, torch
from finemesh.finetune.yolo import YoloForObjectDetection, YoloImageProcessor
from PIL import Image
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.nms import non_max_suppression
base, picture = sys.argv[1:]
ours = YoloForObjectDetection.from_pretrained(base).eval()
theirs = DetectionModel({**ours.config.architecture}, verbose=False).eval()
theirs.load_state_dict(ours.yolo.state_dict())
theirs.args = ours.yolo.args
processor = YoloImageProcessor.from_pretrained(base)
image = Image.open(picture)
pixels = processor(images=[image], do_pad=False, return_tensors="pt")["pixel_values"]
box = torch.tensor([[0.5, 0.4, 0.3, 0.2], [0.2, 0.3, 0.2, 0.4]])
label = {"boxes": box, "class_labels": torch.tensor([0, 2])}
with torch.no_grad():
    made = ours(pixels, labels=[label])
    # The same picture with the library's own letterbox: at the top left of a grey canvas.
    canvas = torch.full((1, 3, 64, 64), 114 / 255)
    height, width = pixels.shape[-2:]
    canvas[..., :height, :width] = pixels + 114 / 255
    decoded, raw = theirs(canvas)
    scale = torch.tensor([width, height, width, height]) / 64
    batch = {"batch_idx": torch.zeros(2), "cls": torch.tensor([0.0, 2.0]), "bboxes": box * scale}
    loss = theirs.loss({"img": canvas, **batch}, (decoded, raw))[0].sum()
    [found] = non_max_suppression(decoded, 0.001, 0.7, multi_label=True, max_det=300)
[said] = processor.post_process_object_detection(made, 0.0, [(image.height, image.width)])
side = max(image.size) / 64
print(json.dumps({
    "loss": [made.loss.item(), loss.item()],
    "count": [len(said["boxes"]), len(found)],
    "boxes": (said["boxes"] - found[:, :4] * side).abs().max().item(),
    "scores": (said["scores"] - found[:, 4]).abs().max().item(),
    "labels": bool((said["labels"] == found[:, 5].long()).all()),
}))
"""


@installed
def test_loss_and_boxes_are_what_the_library_itself_computes(base: Path, tmp_path: Path) -> None:
    picture = tmp_path / "wide.png"
    noise = np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    command = [sys.executable, "-c", ORACLE, str(base), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["loss"][0] == pytest.approx(said["loss"][1], rel=1e-5)
    assert said["count"][0] == said["count"][1] > 0
    assert said["boxes"] < 1e-3
    assert said["scores"] < 1e-6
    assert said["labels"]


@installed
def test_published_weights_are_kept_as_they_are(base: Path, tmp_path: Path) -> None:
    """A `.pt` as the library writes it becomes a base model of the same weights and names."""
    made = (
        "import sys, json, torch; from ultralytics.nn.tasks import DetectionModel\n"
        "model = DetectionModel(json.loads(sys.argv[1]), verbose=False)\n"
        "model.names = {0: 'cat', 1: 'dog', 2: 'cow'}\n"
        "torch.save({'model': model.half(), 'ema': None}, sys.argv[2])"
    )
    file, out = tmp_path / "small.pt", tmp_path / "out"
    subprocess.run([sys.executable, "-c", made, json.dumps(SMALL), str(file)], check=True)
    command = ["-m", "finemesh.finetune.yolo", str(file), "--out", str(out)]
    subprocess.run([sys.executable, *command], check=True)
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "cat", "1": "dog", "2": "cow"}
    ours, theirs = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    assert {name: each.shape for name, each in ours.items()} == {n: each.shape for n, each in theirs.items()}
    layer = ours["yolo.model.0.conv.weight"]
    assert torch.equal(layer, layer.half().float())
