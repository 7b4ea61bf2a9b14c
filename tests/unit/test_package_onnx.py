"""ONNX packages: graphs against transformers, and a gate that rejects what is broken."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from finemesh.core.errors import InvalidError
from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import Task
from finemesh.finetune.manifests import write_manifest
from finemesh.finetune.rows import read_rows
from finemesh.package.formats import suitable_format
from finemesh.package.manifest import load_package_manifest
from finemesh.package.onnx_graphs import tracing
from finemesh.package.onnx_graphs.calibration import running
from finemesh.package.onnx_graphs.quantized import write_dynamic, write_four_bits, write_static
from finemesh.package.onnx_graphs.tracing import Graph, Traced, write_graph
from finemesh.package.onnx_graphs.whole import read_facts, whole_graphs
from finemesh.package.parity import verify_package
from finemesh.package.shipped.onnx_pixels import prepare, read_config
from finemesh.package.trained import Trained
from onnx import numpy_helper
from PIL import Image
from transformers import AutoModelForCausalLM

from tests.support.onnx_models import ITEMS, export_tiny, train_tiny
from tests.support.picture_runs import picture_spec, tiny_picture_model

pytestmark = pytest.mark.timeout(600)  # tracing is long work where many tests run at once

_TOKENS = 12
_EXACT = 1e-4


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_tiny(tmp_path_factory.mktemp("speaker"), "llama")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_tiny(tmp_path_factory.mktemp("classifier"), "vit")


@pytest.fixture(scope="module")
def package(classifier: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("package") / "package"
    export_tiny(classifier, out, ExportFormat.ONNX)
    return out


def ask(runner: Any, *words: str) -> list[dict[str, Any]]:
    content = [[{"type": "text", "text": each}] for each in words]
    return [runner.prepare([{"role": "user", "content": each}], None) for each in content]


@torch.inference_mode()
def test_a_language_model_writes_what_transformers_writes(speaker: Trained) -> None:
    """Alone, and beside prompts of other lengths; each logit of each token."""
    model: Any = AutoModelForCausalLM.from_pretrained(speaker.merged, dtype=torch.float32)
    with running(speaker) as runner:
        asked = ask(runner, "say red", "say green blue green", "and the first?")
        together: list[list[tuple[int, Any]]] = [[] for _ in asked]

        def choose(index: int, logits_V: Any) -> int:
            together[index].append((int(logits_V.argmax()), logits_V))
            return together[index][-1][0]

        runner.answer(asked, _TOKENS, choose, lambda _index, _token: True)
        for inputs, written in zip(asked, together, strict=True):
            expected = model.generate(
                torch.from_numpy(inputs["input_ids"]),
                do_sample=False,
                max_new_tokens=_TOKENS,
                eos_token_id=None,
                output_logits=True,
                return_dict_in_generate=True,
            )
            tokens_G = expected.sequences[0, inputs["input_ids"].shape[1] :]
            assert [token for token, _ in written] == tokens_G.tolist()
            logits_GV = torch.cat(expected.logits).numpy()
            assert np.abs(np.stack([each for _, each in written]) - logits_GV).max() < _EXACT
            assert np.abs(runner.outputs(inputs, tokens_G)["logits"] - logits_GV).max() < _EXACT


def test_weights_of_fewer_bits_make_smaller_graphs_that_still_run(speaker: Trained, tmp_path: Path) -> None:
    whole = (whole_graphs(speaker) / "model.onnx").stat().st_size
    for name, write in (("8", write_dynamic), ("4", write_four_bits)):
        (tmp_path / name).mkdir()
        write(speaker, tmp_path / name)
        assert b"site-packages" not in (tmp_path / name / "model.onnx").read_bytes()
        graph = tmp_path / name / "model.onnx"
        assert graph.stat().st_size < whole
        assert read_facts(tmp_path / name)["precision"].startswith(f"int{name}")
    kinds = {node.op_type for node in onnx.load(graph).graph.node}
    assert "MatMulNBits" in kinds


def test_static_scales_follow_the_training_split(classifier: Trained, tmp_path: Path) -> None:
    """Eight bits of the pixels reach from the darkest to the lightest of the calibration items."""
    write_static(classifier, tmp_path)
    rows = [*read_rows(classifier.dataset, "train")]
    assert f"by {len(rows)} items" in read_facts(tmp_path)["precision"]
    pictures = [Image.open(io.BytesIO(row.images[0])) for row in rows]
    config = read_config(classifier.base_model)
    pixels = np.concatenate([prepare(picture, config)["pixel_values"] for picture in pictures])
    scales = {
        each.name: numpy_helper.to_array(each)
        for each in onnx.load(tmp_path / "model.onnx").graph.initializer
        if each.name.endswith("_scale")
    }
    reach = max(pixels.max(), 0) - min(pixels.min(), 0)
    assert scales["pixel_values_scale"] == pytest.approx(reach / 255, rel=1e-4)


def test_static_scales_are_found_where_the_weights_lie_beside_the_graph(
    classifier: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "INLINE_BYTES", 0)
    apart = replace(classifier, scratch=tmp_path / "scratch", shared=None)
    (tmp_path / "out").mkdir()
    write_static(apart, tmp_path / "out")
    assert (whole_graphs(apart) / "model.onnx.data").exists()
    assert "static" in read_facts(tmp_path / "out")["precision"]


def test_a_package_passes_and_answers_with_onnxruntime_alone(package: Path, tmp_path: Path) -> None:
    report = verify_package(package)
    assert report.passed, report.reasons
    assert set(report.runtime) >= {"onnxruntime", "numpy"}
    barred = "import sys\nfor name in ('torch', 'transformers', 'finemesh'): sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(barred)
    image = package / json.loads((package / "golden/inputs.jsonl").read_text().splitlines()[0])["image"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(package / "predict.py"), "--image", str(image)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {"label"}


def test_any_number_of_pictures_goes_through_at_once(classifier: Trained) -> None:
    with running(classifier) as runner:
        one = runner.graphs["model"].inputs["pixel_values"].shape
        assert one[0] == "batch"
        rng = np.random.default_rng(0)
        items = [{"pixel_values": rng.normal(size=(1, *one[1:])).astype(np.float32)} for _ in range(5)]
        together = runner.together(items)
        for item, found in zip(items, together, strict=True):
            assert np.abs(runner.outputs(item)["logits"] - found["logits"]).max() < _EXACT


def test_a_broken_graph_is_rejected(package: Path, tmp_path: Path) -> None:
    """One weight of the head is not what was trained, under right checksums."""
    broken = Path(shutil.copytree(package, tmp_path / "package"))
    graph = onnx.load(broken / "model.onnx")
    [head] = [each for each in graph.graph.initializer if each.name.endswith("classifier.bias")]
    values = numpy_helper.to_array(head).copy()
    values[0] += 0.1
    head.CopyFrom(numpy_helper.from_array(values, head.name))
    onnx.save(graph, broken / "model.onnx")
    reseal(broken)
    report = verify_package(broken)
    assert not report.passed
    assert any("raw outputs" in reason for reason in report.reasons)
    assert len(report.differences) == ITEMS


def test_another_preparation_of_pictures_is_rejected(package: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(package, tmp_path / "package"))
    path = other / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"image_mean": [0.4, 0.4, 0.4]}))
    reseal(other)
    report = verify_package(other)
    assert any("preprocessing" in reason for reason in report.reasons)


def reseal(package: Path) -> None:
    """Make the checksums right again after a change, so that only behaviour can tell."""
    facts = load_package_manifest(package).facts()
    (package / "manifest.json").unlink()
    write_manifest(package, facts)


class _OfTheirNumber(Traced):
    def forward(self, fed: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return (fed["rows"] * len(fed["rows"]),)


def test_an_axis_that_would_be_fixed_is_refused(tmp_path: Path) -> None:
    graph = Graph("model", _OfTheirNumber(), {"rows": torch.ones(3, 4)}, {"rows": {0: "batch"}}, ("out",))
    with pytest.raises(InvalidError) as caught:
        write_graph(graph, tmp_path)
    assert caught.value.reason == "FORMAT_UNSUITABLE"
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_right_is_refused_with_the_reason(tmp_path: Path) -> None:
    base = tiny_picture_model(tmp_path / "base", "rt-detr-v2")
    detector = Trained(picture_spec(Task.DETECTION), tmp_path, base, tmp_path, tmp_path)
    for form in (ExportFormat.ONNX, ExportFormat.ONNX_INT8_STATIC):
        with pytest.raises(InvalidError) as caught:
            suitable_format(form, detector)
        assert caught.value.reason == "FORMAT_UNSUITABLE"
        assert "its queries" in caught.value.message
