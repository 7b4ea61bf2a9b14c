"""Packages of every runtime over real HTTP, by the server that travels with them, with small models."""

from __future__ import annotations

import base64
import importlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import Full, Objective, Task, Tower
from finemesh.data.rows import make_row
from finemesh.finetune import masks
from finemesh.finetune.heads import classes_of
from finemesh.package.commands import table_of
from finemesh.package.evaluating import evaluate_packages
from finemesh.package.exporting import export_checkpoint
from finemesh.package.parity import verify_package
from finemesh.package.shared import SharedFolders
from finemesh.package.shipped.decide import decide
from finemesh.package.shipped.server.replay import serving
from finemesh.package.trained import Trained
from PIL import Image
from pycocotools import mask as coco
from rich.console import Console
from safetensors.numpy import load_file
from tokenizers import Tokenizer, processors

from tests.support.checkpoints import checkpoint_of, moved_model
from tests.support.conversations import COLOURS, spec, text_rows, tiny_model, write_dataset
from tests.support.dockerfile import build
from tests.support.onnx_models import export_tiny, train_tiny
from tests.support.package_gate import replay
from tests.support.package_server import served
from tests.support.picture_runs import picture_spec, tiny_picture_model
from tests.support.servers import PATIENCE_SECONDS
from tests.support.shapes import shape_rows

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ITEMS = 3
# What a package for onnxruntime or llama.cpp must do without.
BARRED = "import sys\nfor name in ('torch', 'transformers', 'finemesh'): sys.modules[name] = None\n"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a Python that can import neither torch nor transformers."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "sitecustomize.py").write_text(BARRED)
    return {"PYTHONPATH": str(folder)}


def items_of(package: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (package / "golden/inputs.jsonl").read_text().splitlines()]


def decisions_of(package: Path, index: int) -> dict[str, Any]:
    """What the trained model made of a golden item."""
    golden = load_file(package / "golden/outputs.safetensors")
    return {
        key.rpartition("/")[2]: each for key, each in golden.items() if key.startswith(f"{index}/decision/")
    }


# ---- models that speak


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small language model whose tokenizer puts a token before a text."""
    base = tiny_model(tmp_path_factory.mktemp("model") / "base", "llama")
    words = Tokenizer.from_file(str(base / "tokenizer.json"))
    begin = json.loads((base / "tokenizer_config.json").read_bytes())["bos_token"]
    words.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, words.token_to_id(begin))]
    )
    words.save(str(base / "tokenizer.json"))
    return base


@pytest.fixture(scope="module")
def speaker(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What exports of a language model start from; they trace its graph once."""
    root = tmp_path_factory.mktemp("speaker")
    chosen = replace(spec(Task.LANGUAGE), test_split="test")
    return {
        "spec": chosen,
        "checkpoint": checkpoint_of(moved_model(chosen, base), root / "checkpoints"),
        "base_model": base,
        "dataset": write_dataset(root / "dataset", [*text_rows({"train": 2, "test": ITEMS})]),
        "lineage": {"training_job": "projects/p/trainingJobs/colours"},
        "golden_items": ITEMS,
        "shared": SharedFolders(root / "shared", "one", lambda: None),
    }


@pytest.fixture(scope="module")
def plain(speaker: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same weights, as if they had been trained on plain text; nothing has a template."""
    root = tmp_path_factory.mktemp("plain")
    texts = ["red green blue yellow", "blue " * 5, *(" ".join([*COLOURS][:count]) for count in (2, 3, 4))]
    rows = [
        dict(make_row(f"{split}-{n}", source={"file": "f", "key": str(n)}, text=text, split=split))
        for split in ("train", "test")
        for n, text in enumerate(texts)
    ]
    base = Path(shutil.copytree(speaker["base_model"], root / "base"))
    (base / "chat_template.jinja").unlink()
    chosen = replace(speaker["spec"], objective=Objective.TEXT)
    dataset = write_dataset(root / "dataset", rows)
    return {**speaker, "spec": chosen, "base_model": base, "dataset": dataset}


@pytest.mark.parametrize("form", [ExportFormat.GGUF_F16, ExportFormat.ONNX])
def test_it_is_talked_to_without_torch(
    speaker: dict[str, Any], alone: dict[str, str], tmp_path: Path, form: ExportFormat
) -> None:
    """The words are those of the trained model; drawn ones are the same for a seed; a stream is the whole."""
    package = tmp_path / "package"
    export_checkpoint(**speaker, out=package, format=form)
    with (
        served(sys.executable, package, **alone) as address,
        httpx.Client(base_url=f"{address}/v1", timeout=PATIENCE_SECONDS) as client,
    ):

        def answer(item: dict[str, Any], **more: Any) -> dict[str, Any]:
            said = [
                {"role": each["role"], "content": each["content"][0]["text"]} for each in item["messages"]
            ]
            asked = {"messages": said, "max_tokens": 8, **more}
            response = client.post("/chat/completions", json=asked)
            assert response.status_code == 200, response.text
            return response.json()["choices"][0]

        items = items_of(package)
        for item in items:
            assert answer(item)["message"]["content"].strip() == item["generated"]
        drawn = [answer(items[0], temperature=2.0, seed=seed)["message"]["content"] for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]
        asked = {"messages": [{"role": "user", "content": "say red"}], "max_tokens": 8}
        whole = client.post("/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
        lines = client.post("/chat/completions", json={**asked, "stream": True}).text.split("\n\n")
        assert lines[-2] == "data: [DONE]"
        told = [json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-2]]
        assert "".join(told) == whole
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        blind = {"messages": [{"role": "user", "content": [picture]}]}
        assert client.post("/chat/completions", json=blind).json()["error"]["code"] == "no_images"


def test_a_model_of_plain_text_goes_on_in_every_runtime(plain: dict[str, Any], tmp_path: Path) -> None:
    """It knows no turns: no template is asked for, none is written, and texts begin as in training."""
    packages = [tmp_path / form for form in (ExportFormat.ONNX, ExportFormat.GGUF_F16)]
    for package in packages:
        export_checkpoint(**plain, out=package, format=ExportFormat(package.name))
        golden = load_file(package / "golden/outputs.safetensors")
        assert len({golden[f"{index}/inputs/input_ids"][0, 0] for index in range(ITEMS)}) == 1
        report = verify_package(package)
        assert report.passed, report.reasons
    assert 'TEMPLATE """{{ .Prompt }}"""' in (packages[1] / "Modelfile").read_text()
    one, other = evaluate_packages(packages, plain["dataset"], "test", max_tokens=4)
    assert one.items == other.items == 5
    assert one.metrics == other.metrics
    screen = Console(width=80, file=io.StringIO(), record=True)
    screen.print(table_of([one, other]))
    shown = screen.export_text()
    assert f"{other.metrics['token_f1_low']:.3f}, {other.metrics['token_f1_high']:.3f}]" in shown
    # Of their own processes, not of this one, which has torch.
    assert max(one.peak_memory_bytes, other.peak_memory_bytes) < psutil.Process().memory_info().rss
    export_checkpoint(**plain, out=tmp_path / "static", format=ExportFormat.ONNX_INT8_STATIC)
    assert "by 5 items" in json.loads((tmp_path / "static/onnx.json").read_bytes())["precision"]


def test_instructblip_sees_as_it_was_trained(tmp_path: Path) -> None:
    """What its queries found stands where the template has the picture, and they read its words alone."""
    trained = train_tiny(tmp_path, "instructblip")
    export_tiny(trained, tmp_path / "package", ExportFormat.MERGED)
    report = replay(tmp_path / "package")
    assert report["passed"], report["reasons"]


# ---- models that see


def test_a_picture_is_classified_without_torch(alone: dict[str, str], tmp_path: Path) -> None:
    """By what its Dockerfile makes of it."""
    trained = train_tiny(tmp_path, "vit")
    package = tmp_path / "package"
    export_tiny(trained, package, ExportFormat.ONNX)
    labels = json.loads((package / "manifest.json").read_bytes())["decisions"]["labels"]
    image = build(package, tmp_path / "image", sys.executable, install=False)
    assert image.entrypoint[:2] == ["python", "serve.py"]
    variables = {**image.variables, **alone}
    with (
        served(sys.executable, image.folder, *image.entrypoint[2:], **variables) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as client,
    ):
        asked = image.healthcheck[2].replace("http://127.0.0.1:8000", address)
        subprocess.run([sys.executable, "-c", asked], check=True, timeout=PATIENCE_SECONDS)
        picture, found = b"", list[dict[str, Any]]()
        for index, item in enumerate(items_of(package)):
            picture = (package / item["image"]).read_bytes()
            found = client.post("/classify", content=picture).json()["classes"]
            assert found[0]["label"] == labels[decisions_of(package, index)["label"].item()]
            assert {each["label"] for each in found} == set(labels)
            assert sum(each["score"] for each in found) == pytest.approx(1)
        top = client.post("/classify?top=1", files={"file": picture}).json()["classes"]
        assert top == found[:1]
        assert client.post("/detect", content=picture).status_code == 404


@pytest.fixture
def runtime() -> Generator[Any]:
    """`runtime.py` of the packages for transformers."""
    name = "finemesh.package.shipped.runtime_transformers"
    yield importlib.import_module(name)
    sys.modules.pop(name)


@pytest.mark.parametrize(
    ("family", "task"),
    [("segformer", Task.SEMANTIC_SEGMENTATION), ("mask2former", Task.INSTANCE_SEGMENTATION)],
)
def test_a_picture_is_cut_into_its_segments(runtime: Any, tmp_path: Path, family: str, task: Task) -> None:
    """As the trained model does it: a map of classes, or masks that pycocotools reads."""
    package = seen(tmp_path, family, task)
    runner = runtime.Runner(package)
    with (
        serving(runner, decide, package) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as client,
    ):
        for index, item in enumerate(items_of(package)):
            image = (package / item["image"]).read_bytes()
            found = client.post("/segment?threshold=0", content=image).json()
            expected = decisions_of(package, index)
            if task is Task.SEMANTIC_SEGMENTATION:
                assert (map_of(found) == expected["map"]).all()
                assert sum(found["share"].values()) == pytest.approx(1)
                continue
            assert len(found["objects"]) == len(expected["masks"])
            for each, mask_HW in zip(found["objects"], expected["masks"], strict=True):
                packed: Any = coco.frPyObjects(each["mask"], *each["mask"]["size"])
                assert (masks.decode(packed["counts"].decode(), mask_HW.shape) == mask_HW).all()
                left, top, right, bottom = each["box"]
                assert coco.toBbox(packed).tolist() == [left, top, right - left, bottom - top]


def seen(root: Path, family: str, task: Task) -> Path:
    """A package of a model that sees."""
    chosen = picture_spec(task, method=Full((Tower.VISION, Tower.HEAD)), test_split="test")
    base = tiny_picture_model(root / "base", family)
    dataset = write_dataset(root / "dataset", [*shape_rows({"train": 2, "test": ITEMS})])
    model = moved_model(chosen, base, tuple(classes_of(chosen, dataset)))
    trained = Trained(chosen, checkpoint_of(model, root / "checkpoints"), base, dataset, root / "scratch")
    export_tiny(trained, root / "package", ExportFormat.MERGED, ITEMS)
    return root / "package"


def map_of(found: dict[str, Any]) -> Any:
    kind, _, encoded = found["map"].partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
