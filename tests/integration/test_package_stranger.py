"""A package in the hands of a stranger: unpacked elsewhere, in an environment without Finemesh, served, asked
over HTTP, verified; its card, pictures and bill of materials opened by those who read such.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Generator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.finetune.loop import train
from finemesh.package.evaluating import evaluate_packages
from finemesh.package.evaluation_page import to_html
from finemesh.package.exporting import export_checkpoint
from finemesh.package.manifest import load_package_manifest
from finemesh.package.signing import sign
from huggingface_hub import ModelCard
from PIL import Image

from tests.support.conversations import colour_rows, spec, tiny_model, write_dataset
from tests.support.package_server import environ, served
from tests.support.picture_runs import picture_spec, tiny_picture_model
from tests.support.servers import PATIENCE_SECONDS
from tests.support.shapes import shape_rows

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

JOB = "projects/test/trainingJobs/colours"
ITEMS = 3


def export(root: Path, chosen: FineTuneSpec, base: Path, rows: list[dict[str, Any]]) -> Path:
    """A trained and exported package, moved away from where it was made."""
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: llama3\n---\n")
    chosen = replace(chosen, test_split="test")
    dataset = write_dataset(root / "dataset", rows)
    result = train(chosen, base_model=base, dataset=dataset, work=root / "work")
    export_checkpoint(
        spec=chosen,
        checkpoint=result.checkpoint.path,
        base_model=base,
        dataset=dataset,
        out=root / "package",
        format=ExportFormat.MERGED,
        lineage={"training_job": JOB, "dataset_digest": "sha256:" + "0" * 64},
        metrics={
            "test/accuracy": 0.75,
            "test/accuracy_low": 0.5,
            "test/accuracy_high": 0.9,
            **{name: value for name, value in result.metrics.items() if name.startswith("test/map")},
        },
        golden_items=ITEMS,
        curves={
            "train/loss": [(step, 3.0 / step) for step in range(1, 40)],
            "val/loss": [(10, 1.0), (20, 0.5)],
            "energy_joules": [(10, 3.6e6)],
        },
    )
    return Path(shutil.move(root / "package", root / "elsewhere"))


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("speaker")
    rows = list(colour_rows({"train": 16, "test": 8}))
    return export(root, spec(), tiny_model(root / "base", "llava"), rows)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("detector")
    rows = list(shape_rows({"train": 8, "test": 6}))
    return export(root, picture_spec(Task.DETECTION), tiny_picture_model(root / "base", "yolos"), rows)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the libraries of this one, and nothing of Finemesh."""
    folder = tmp_path_factory.mktemp("stranger") / "venv"
    venv.create(folder, with_pip=False)
    [site] = folder.glob("lib/python*/site-packages")
    # Editable installs are .pth files, which are read in the first folder alone.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    looked = "from importlib.util import find_spec as f; print(bool(f('torch')), bool(f('finemesh')))"
    assert run(python, "-c", looked).stdout.split() == ["True", "False"]
    return python


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd or "/",
        env=environ(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="module")
def address(stranger: Path, speaker: Path) -> Generator[str]:
    """One command in the unpacked folder serves it."""
    with served(stranger, speaker) as address:
        yield address


def test_it_is_asked_as_openai_is(address: str, speaker: Path) -> None:
    ask_as_openai(address, speaker)


def ask_as_openai(address: str, speaker: Path) -> None:
    """By whole answers and by streams: each says what the trained model wrote."""
    items = [json.loads(line) for line in (speaker / "golden/inputs.jsonl").read_text().splitlines()]
    assert len(items) == ITEMS
    with httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as client:
        [model] = client.get("/v1/models").json()["data"]
        assert model["id"] == "colours"
        for item in items:
            asked = {"model": "colours", "messages": spoken(item, speaker), "max_tokens": 8}
            answer = client.post("/v1/chat/completions", json=asked).json()
            assert answer["choices"][0]["message"]["content"] == item["generated"]
            assert answer["usage"]["prompt_tokens"] > 10
            lines = client.post("/v1/chat/completions", json={**asked, "stream": True}).text.split("\n\n")
            chunks = [json.loads(line[6:]) for line in lines[:-2]]
            pieces = [each["choices"][0]["delta"].get("content", "") for each in chunks]
            assert "".join(pieces) == item["generated"]


def spoken(item: dict[str, Any], package: Path) -> list[dict[str, Any]]:
    encoded = base64.b64encode((package / item["image"]).read_bytes()).decode()
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
    [message] = item["messages"]
    words = [{"type": "text", "text": part["text"]} for part in message["content"] if part["text"]]
    return [{"role": "user", "content": [shown, *words]}]


def test_what_is_refused_is_told_as_openai_tells_it(address: str) -> None:
    with httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as client:
        refused = client.post("/v1/chat/completions", json={"messages": [], "tools": []})
        assert refused.status_code == 400
        assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
        assert client.get("/detect").status_code == 404


def test_verify_runs_from_any_folder_and_knows_who_signed(
    stranger: Path, detector: Path, tmp_path: Path
) -> None:
    """It looks at files, preprocessing, outputs, decisions, and asks its own server at /detect."""
    package = Path(shutil.copytree(detector, tmp_path / "package"))
    ours, theirs = (key_pair(tmp_path / name) for name in ("ours", "theirs"))
    sign(package, ours[0])
    done = run(stranger, package / "verify.py", "--key", ours[1], cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    checks = {each["kind"]: each for each in json.loads(done.stdout)["checks"]}
    assert checks["over HTTP"]["value"] == 1.0
    assert f"{ITEMS} of {ITEMS} items" in checks["over HTTP"]["what"]
    done = run(stranger, package / "verify.py", "--key", theirs[1])
    assert done.returncode == 1
    assert json.loads(done.stdout)["reasons"] == [
        "manifest.json.sig: the manifest was not signed by the owner of this key"
    ]


def key_pair(stem: Path) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = stem.with_suffix(".pem"), stem.with_suffix(".pub.pem")
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_packages_are_compared_by_what_the_training_loop_found(detector: Path) -> None:
    """The loop's own test, over the same split, came to the same figures by its own processor and model."""
    dataset = detector.parent / "dataset"
    [one] = evaluate_packages([detector], dataset, "test")
    tested = load_package_manifest(detector).metrics
    assert one.items == 6
    for name in ("map", "map50", "map_low", "map_high"):
        assert one.metrics[name] == pytest.approx(tested[f"test/{name}"], abs=1e-6)
    assert one.size_bytes > (detector / "model.safetensors").stat().st_size
    assert 0 < one.seconds[0] <= one.seconds[1]
    assert one.peak_memory_bytes > 50e6
    page = to_html([one, one], "<data>", "test")
    assert "<script" not in page
    assert "&lt;data&gt;" in page
    assert page.count("<circle") == 2


def test_packages_of_two_tasks_are_not_compared(speaker: Path, detector: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        evaluate_packages([speaker, detector], detector.parent / "dataset", "test")
    assert caught.value.reason == "PACKAGES_OF_TWO_TASKS"


def test_a_package_that_does_not_run_says_why(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PreconditionError) as caught:
        evaluate_packages([detector], detector.parent / "dataset", "test")
    assert caught.value.reason == "PACKAGE_DOES_NOT_RUN"


def test_a_key_of_another_kind_signs_nothing(speaker: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(InvalidError) as caught:
        sign(speaker, tmp_path / "key.pem")
    assert caught.value.reason == "SIGNING_KEY_UNSUITABLE"


def test_the_card_is_the_hub_s_and_what_it_shows_is_there(speaker: Path) -> None:
    card = ModelCard.load(speaker / "README.md")
    told: Any = card.data
    assert (told.license, told.license_name) == ("other", "llama3")
    assert told.pipeline_tag == "image-text-to-text"
    [result] = told.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.75, "test")
    assert "| test/accuracy | 0.75 | 0.5 to 0.9 |" in card.text
    assert "not at hand" not in card.text
    assert "GPUs of the training used 1 kWh, as measured" in card.text
    pictures = re.findall(r"!\[[^]]+]\(([^)]+)\)", card.text)
    assert pictures == ["curves/loss.png"]
    with Image.open(speaker / pictures[0]) as picture:
        # Both curves are drawn: their colours are in it.
        colours = {each for _, each in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert {(0x4C, 0x72, 0xB0), (0xDD, 0x84, 0x52)} <= colours


def test_its_environment_is_what_it_was_checked_with(speaker: Path) -> None:
    lines = (speaker / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: version(name).partition("+")[0] for name in pinned} == pinned
    assert {"torch", "transformers", "fastapi", "uvicorn", "starlette"} <= pinned.keys()
    assert not {"finemesh", "ray", "onnxruntime", "datasets"} & pinned.keys()
    bill = (speaker / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    parts = {each["name"]: each for each in json.loads(bill)["components"]}
    assert pinned.keys() <= parts.keys()
    assert parts["tiny"]["licenses"] == [{"license": {"name": "other"}}]
    linter = Path(sys.executable).with_name("hadolint")
    done = run(linter, speaker / "Dockerfile")
    assert done.returncode == 0, done.stdout
