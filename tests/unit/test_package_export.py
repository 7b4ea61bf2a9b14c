"""Packages: the algebra of the merge, the gate in a fresh process, and everything it must refuse."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from finemesh.core.errors import AlreadyExistsError, InvalidError, NotFoundError, PreconditionError
from finemesh.core.spec.export import ExportFormat, ParityTolerance
from finemesh.core.spec.finetune import (
    Evaluation,
    FineTuneSpec,
    Full,
    Lora,
    Precision,
    Quantization,
    Task,
    Tower,
)
from finemesh.finetune.loop import train
from finemesh.finetune.manifests import write_manifest, wrong_files
from finemesh.package.card import base_metadata
from finemesh.package.exporting import export_checkpoint
from finemesh.package.manifest import PackageManifest, load_package_manifest
from finemesh.package.parity import record_parity, verify_package
from safetensors.torch import load_file, save_file

from tests.support.conversations import colour_rows, spec, text_rows, tiny_model, write_dataset

ITEMS = 4


@dataclass(frozen=True)
class Trained:
    """A finished training job: what an export starts from."""

    spec: FineTuneSpec
    base: Path
    dataset: Path
    checkpoint: Path

    def export(self, out: Path, form: ExportFormat) -> PackageManifest:
        return export_checkpoint(
            spec=self.spec,
            checkpoint=self.checkpoint,
            base_model=self.base,
            dataset=self.dataset,
            out=out,
            format=form,
            lineage={"training_job": "projects/test/trainingJobs/t"},
            golden_items=ITEMS,
        )


def trained(root: Path, chosen: FineTuneSpec, family: str) -> Trained:
    rows = (colour_rows if family == "llava" else text_rows)({"train": 16, "test": 8})
    base, dataset = tiny_model(root / "base", family), write_dataset(root / "dataset", list(rows))
    chosen = replace(chosen, test_split="test")
    result = train(chosen, base_model=base, dataset=dataset, work=root / "work")
    return Trained(chosen, base, dataset, result.checkpoint.path)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("job"), spec(), "llava")


@pytest.fixture(scope="module")
def merged(job: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "package"
    job.export(out, ExportFormat.MERGED)
    return out


@pytest.fixture(scope="module")
def adapter(job: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapter") / "package"
    job.export(out, ExportFormat.ADAPTER)
    return out


@pytest.mark.parametrize(
    "method",
    [
        Lora(rank=4, alpha=6),
        Lora(rank=4, alpha=6, use_rslora=True),
        Lora(rank=4, alpha=6, quantization=Quantization.NF4),
        Lora(rank=4, alpha=6, quantization=Quantization.INT8),
    ],
)
def test_merged_is_base_plus_a_times_b(tmp_path: Path, method: Lora) -> None:
    """The base is the one on disk, also where training saw it quantised."""
    job = trained(tmp_path, spec(Task.LANGUAGE, method=method), "llama")
    job.export(tmp_path / "package", ExportFormat.MERGED)
    base = load_file(job.base / "model.safetensors")
    whole = load_file(tmp_path / "package" / "model.safetensors")
    lora = load_file(job.checkpoint / "adapter" / "adapter_model.safetensors")
    scale = 6 / (math.sqrt(4) if method.use_rslora else 4)
    assert "quantization_config" not in json.loads((tmp_path / "package" / "config.json").read_text())
    assert whole.keys() == base.keys()
    changed = 0
    for name, tensor in base.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" not in lora:
            assert torch.equal(whole[name], tensor), name
            continue
        expected = tensor + scale * lora[f"{stem}.lora_B.weight"] @ lora[f"{stem}.lora_A.weight"]
        torch.testing.assert_close(whole[name], expected, rtol=0, atol=1e-6)
        changed += int(not torch.equal(whole[name], tensor))
    assert changed == 2 * 7


def test_golden_items_of_a_job_whose_validation_rows_were_held_out(tmp_path: Path) -> None:
    """The split that the spec names is not in the dataset: they come from the training split."""
    base = tiny_model(tmp_path / "base", "llama")
    dataset = write_dataset(tmp_path / "dataset", list(text_rows({"train": 16})))
    chosen = spec(Task.LANGUAGE, validation_split="val", evaluation=Evaluation(holdout_fraction=0.3))
    result = train(chosen, base_model=base, dataset=dataset, work=tmp_path / "work")
    job = Trained(chosen, base, dataset, result.checkpoint.path)
    manifest = job.export(tmp_path / "package", ExportFormat.ADAPTER)
    assert (manifest.golden_split, manifest.golden_items) == ("train", ITEMS)


def test_adapter_passes_in_a_fresh_process_and_the_card_says_so(
    job: Trained, adapter: Path, tmp_path: Path
) -> None:
    package = Path(shutil.copytree(adapter, tmp_path / "package"))
    report = verify_package(package, job.base)
    assert report.passed, report.reasons
    assert report.items == ITEMS
    values = {each.what: each.value for each in report.checks}
    assert values["items with the token ids of training"] == values["share that agrees"] == 1
    assert values["largest difference of any output"] < 1e-4
    assert values["largest difference of what the model is fed"] == 0
    manifest = record_parity(package, report)
    assert manifest.parity == report.to_json()
    card = (package / "README.md").read_text()
    assert "It is within tolerance." in card
    assert "| decisions: share that agrees | 1 | at least 1 | yes |" in card
    assert "license: unknown" in card
    assert "Its run was not at hand" in card  # whether it was tested is not known here
    assert not list(wrong_files(package, json.loads((package / "manifest.json").read_text())))


def test_merged_passes_without_base_from_the_package_alone(merged: Path, tmp_path: Path) -> None:
    """As a stranger would: the package's own verify.py, in its own folder, moved elsewhere."""
    package = Path(shutil.copytree(merged, tmp_path / "elsewhere"))
    done = subprocess.run(
        [sys.executable, "verify.py"], cwd=package, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["passed"], report["items"]) == (True, ITEMS)


def test_predict_answers_with_the_golden_words(merged: Path) -> None:
    item = json.loads((merged / "golden" / "inputs.jsonl").read_text().splitlines()[0])
    question = item["messages"][0]["content"][1]["text"]
    command = [sys.executable, str(merged / "predict.py"), question, "--image", str(merged / item["image"])]
    done = subprocess.run(
        [*command, "--max-new-tokens", "8"], capture_output=True, text=True, check=True, cwd=merged.parent
    )
    assert done.stdout.strip() == item["generated"]


def reseal(package: Path) -> None:
    """Make the checksums right again after a change, so that only behaviour can tell."""
    facts = load_package_manifest(package).facts()
    (package / "manifest.json").unlink()
    write_manifest(package, facts)


def test_tampered_weights_are_rejected_by_checksum(merged: Path, tmp_path: Path) -> None:
    package = Path(shutil.copytree(merged, tmp_path / "package"))
    content = bytearray((package / "model.safetensors").read_bytes())
    content[-2] ^= 0x10
    (package / "model.safetensors").write_bytes(content)
    report = verify_package(package)
    assert not report.passed
    assert report.reasons == ("model.safetensors has other bytes than its manifest says",)


def test_other_weights_under_right_checksums_are_rejected_by_behaviour(merged: Path, tmp_path: Path) -> None:
    package = Path(shutil.copytree(merged, tmp_path / "package"))
    tensors = load_file(package / "model.safetensors")
    [head] = [name for name in tensors if name.endswith("lm_head.weight")]
    tensors[head] += 0.01
    save_file(tensors, package / "model.safetensors", {"format": "pt"})
    reseal(package)
    report = verify_package(package)
    assert not report.passed
    assert any("raw outputs" in reason for reason in report.reasons)
    assert len(report.differences) == ITEMS
    assert verify_package(package, tolerance=ParityTolerance(10.0, 10.0, 0.0)).passed


def test_another_template_is_rejected(merged: Path, tmp_path: Path) -> None:
    """The weights are right, and what is fed to them differs from training."""
    package = Path(shutil.copytree(merged, tmp_path / "package"))
    template = (package / "chat_template.jinja").read_text()
    (package / "chat_template.jinja").write_text(template.replace("{{- bos_token -}}", ""))
    reseal(package)
    report = verify_package(package)
    assert not report.passed
    assert any("token ids of training" in reason for reason in report.reasons)


def test_a_package_that_does_not_load_is_rejected_with_the_evidence(merged: Path, tmp_path: Path) -> None:
    package = Path(shutil.copytree(merged, tmp_path / "package"))
    (package / "config.json").write_text("{}")
    reseal(package)
    report = verify_package(package)
    assert not report.passed
    assert "does not load or run" in report.reasons[0]


def test_an_adapter_on_another_base_is_rejected(adapter: Path, tmp_path: Path) -> None:
    report = verify_package(adapter, tiny_model(tmp_path / "other", "llava", seed=1))
    assert report.reasons == ("the base model's model.safetensors is not the one that was trained on",)
    with pytest.raises(NotFoundError) as caught:
        verify_package(adapter)
    assert caught.value.reason == "BASE_MODEL_NOT_FOUND"


def test_full_bf16_training_exports_merged_but_has_no_adapter(tmp_path: Path) -> None:
    chosen = spec(Task.LANGUAGE, method=Full((Tower.LANGUAGE,)), precision=Precision.BF16)
    job = trained(tmp_path, chosen, "llama")
    with pytest.raises(InvalidError) as caught:
        job.export(tmp_path / "adapter", ExportFormat.ADAPTER)
    assert caught.value.reason == "FORMAT_UNSUITABLE"
    assert not (tmp_path / "adapter").exists()
    job.export(tmp_path / "package", ExportFormat.MERGED)
    whole = load_file(tmp_path / "package" / "model.safetensors")
    for name, tensor in load_file(job.checkpoint / "weights" / "trainable.safetensors").items():
        assert torch.equal(whole[name], tensor), name
    assert verify_package(tmp_path / "package").passed


def test_a_package_is_a_function_of_its_inputs(job: Trained, merged: Path, tmp_path: Path) -> None:
    job.export(tmp_path / "again", ExportFormat.MERGED)
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (merged / "manifest.json").read_bytes()


def test_nothing_is_written_over_or_from_a_corrupt_checkpoint(job: Trained, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(AlreadyExistsError):
        job.export(tmp_path / "taken", ExportFormat.MERGED)
    torn = replace(job, checkpoint=Path(shutil.copytree(job.checkpoint, tmp_path / "torn")))
    (torn.checkpoint / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(PreconditionError) as caught:
        torn.export(tmp_path / "out", ExportFormat.MERGED)
    assert caught.value.reason == "CHECKPOINT_CORRUPT"
    assert not (tmp_path / "out").exists()


def test_the_licence_is_what_the_metadata_of_the_base_state(tmp_path: Path) -> None:
    assert base_metadata(tmp_path) == {}
    card = tmp_path / "README.md"
    card.write_text("# A model\n\nlicense: mit\n")  # prose, not metadata
    assert base_metadata(tmp_path) == {}
    card.write_text("---\ntags: [a]\nlicense: apache-2.0\n---\n# A model\n")
    assert base_metadata(tmp_path) == {"license": "apache-2.0"}


def test_no_path_of_this_machine_is_in_a_package(job: Trained, adapter: Path, merged: Path) -> None:
    for package in (adapter, merged):
        for path in package.rglob("*"):
            if path.is_file():
                assert str(job.base.parent).encode() not in path.read_bytes(), path
