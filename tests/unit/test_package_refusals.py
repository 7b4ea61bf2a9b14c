"""What cannot become a package, or not without a word: refused with its reason, and nothing is left."""

from __future__ import annotations

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.errors import (
    FinemeshError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    ResourceExhaustedError,
)
from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import FineTuneSpec, Lora, Quantization, Task
from finemesh.finetune.tiny import build_tiny
from finemesh.package.exporting import export_checkpoint
from finemesh.package.formats import FORMATS
from finemesh.package.licences import check_derivatives
from finemesh.package.manifest import ParityReport, load_package_manifest
from finemesh.v1 import export_pb2

from tests.support.checkpoints import change_weights, checkpoint_of, moved_model
from tests.support.conversations import spec, text_rows, tiny_model, write_dataset
from tests.support.package_gate import replay

ITEMS = 2


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an export of a small language model starts from."""
    root = tmp_path_factory.mktemp("job")
    base = tiny_model(root / "base", "llama")
    chosen = replace(spec(Task.LANGUAGE, method=Lora(rank=2)), test_split="test")
    return {
        "spec": chosen,
        "checkpoint": checkpoint_of(moved_model(chosen, base), root / "checkpoints", base),
        "base_model": base,
        "dataset": write_dataset(root / "dataset", [*text_rows({"train": 2, "test": ITEMS})]),
        "format": ExportFormat.MERGED,
        "lineage": {},
        "golden_items": ITEMS,
    }


def export(job: dict[str, Any], **changes: Any) -> None:
    arguments: dict[str, Any] = job | changes
    export_checkpoint(**arguments)


def refused(job: dict[str, Any], out: Path, **changes: Any) -> FinemeshError:
    """The error of an export, which left nothing: neither a package nor what it worked with."""
    with pytest.raises(FinemeshError) as caught:
        export(job, out=out, **changes)
    assert not [path.name for path in out.parent.iterdir() if out.name in path.name]
    return caught.value


def test_a_licence_without_derivatives_stands_in_the_way(job: dict[str, Any], tmp_path: Path) -> None:
    base = Path(shutil.copytree(job["base_model"], tmp_path / "base"))
    (base / "README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\n---\n# It\n")
    error = refused(job, tmp_path / "package", base_model=base)
    assert (type(error), error.reason) == (PreconditionError, "LICENCE_FORBIDS_DERIVATIVES")
    assert "cc-by-nc-nd-4.0" in error.message
    export(job, base_model=base, out=tmp_path / "package", licence_override="asked")
    assert load_package_manifest(tmp_path / "package").base_model.licence == "cc-by-nc-nd-4.0"


@pytest.mark.parametrize(
    "licence", ["mit", "apache-2.0", "unknown", "", "android", "llama3.1", "cc-by-sa-4.0"]
)
def test_other_licences_do_not(licence: str) -> None:
    check_derivatives(licence, "")


def test_a_tokenizer_without_template_cannot_answer(job: dict[str, Any], tmp_path: Path) -> None:
    base = Path(shutil.copytree(job["base_model"], tmp_path / "base"))
    (base / "chat_template.jinja").unlink()
    error = refused(job, tmp_path / "package", base_model=base)
    assert (type(error), error.reason) == (InvalidError, "TEMPLATE_MISSING")
    assert "chat_template.jinja" in error.message


def test_code_from_elsewhere_is_not_run(job: dict[str, Any], tmp_path: Path) -> None:
    base = Path(shutil.copytree(job["base_model"], tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "newest", "auto_map": {"AutoConfig": "evil.Config"}}
    (base / "config.json").write_text(json.dumps(config))
    (base / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    error = refused(job, tmp_path / "package", base_model=base)
    assert (type(error), error.reason) == (InvalidError, "BASE_MODEL_UNSUITABLE")
    assert "needs code of its own (auto_map in its config.json), which Finemesh does not run" in error.message
    assert not (tmp_path / "ran").exists()


def test_the_config_of_a_package_names_no_code_from_elsewhere(job: dict[str, Any], tmp_path: Path) -> None:
    """transformers has the model's own class; whoever trusts the package must not fetch another."""
    base = Path(shutil.copytree(job["base_model"], tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "someone/else--evil.Config"}
    (base / "config.json").write_text(json.dumps(config))
    export(job, base_model=base, out=tmp_path / "package")
    assert "auto_map" not in json.loads((tmp_path / "package" / "config.json").read_text())


def test_what_is_not_there_is_named(job: dict[str, Any], tmp_path: Path) -> None:
    error = refused(job, tmp_path / "package", checkpoint=tmp_path / "step-00000009")
    assert (type(error), error.reason) == (NotFoundError, "CHECKPOINT_NOT_FOUND")
    error = refused(job, tmp_path / "package", base_model=tmp_path / "gone")
    assert (type(error), error.reason) == (NotFoundError, "BASE_MODEL_NOT_FOUND")


def test_a_cancelled_export_leaves_nothing(job: dict[str, Any], tmp_path: Path) -> None:
    class CancelledError(Exception): ...

    def stop(fraction: float, _message: str) -> None:
        if fraction >= 0.9:
            raise CancelledError

    with pytest.raises(CancelledError):
        export(job, out=tmp_path / "package", progress=stop)
    assert not [*tmp_path.iterdir()]


def test_an_export_without_room_on_the_disk_leaves_nothing(job: dict[str, Any], tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk's: both are told by the write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        error = refused(job, tmp_path / "package")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (type(error), error.reason) == (ResourceExhaustedError, "DISK_FULL")


def test_a_checkpoint_on_another_base_is_refused(job: dict[str, Any], tmp_path: Path) -> None:
    other = build_tiny("mistral", tmp_path / "other", ["other words"], seed=0)
    config = json.loads((other / "config.json").read_text())
    error = refused(job, tmp_path / "package", base_model=other)
    assert error.reason in {"CHECKPOINT_CORRUPT", "ADAPTER_OF_OTHER_BASE"}, config


def test_a_base_that_has_changed_since_the_training_is_refused(job: dict[str, Any], tmp_path: Path) -> None:
    base = Path(shutil.copytree(job["base_model"], tmp_path / "base"))
    change_weights(base, "model.layers.0.self_attn.q_proj.weight")
    error = refused(job, tmp_path / "package", base_model=base)
    assert error.reason == "ADAPTER_OF_OTHER_BASE"
    assert "have changed since" in str(error)


def test_bitsandbytes_is_for_models_that_speak(tmp_path: Path, job: dict[str, Any]) -> None:
    base = build_tiny("segformer", tmp_path / "base", ["no texts"], seed=0)
    sees = FineTuneSpec(Task.SEMANTIC_SEGMENTATION, "tiny", "projects/p/datasets/d")
    for form in (ExportFormat.BNB_INT8, ExportFormat.BNB_NF4):
        error = refused(job, tmp_path / "package", spec=sees, base_model=base, format=form)
        assert error.reason == "FORMAT_UNSUITABLE"
        assert "MERGED_FP16" in error.message


def test_what_cannot_be_run_here_is_not_shipped_unchecked(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS[ExportFormat.BNB_NF4]
    runtime = replace(form.runtime, needs=("a-package-that-nobody-has",))
    monkeypatch.setitem(FORMATS, ExportFormat.BNB_NF4, replace(form, runtime=runtime))
    error = refused(job, tmp_path / "package", format=ExportFormat.BNB_NF4)
    assert error.reason == "RUNTIME_MISSING"
    assert "a-package-that-nobody-has" in error.message


def test_quantised_packages_drift_as_declared_or_are_found_out(job: dict[str, Any], tmp_path: Path) -> None:
    """8 bits stay within what they declare; 4 bits of random weights do not, and it is told by how much."""
    reports: dict[ExportFormat, dict[str, Any]] = {}
    for form in (ExportFormat.BNB_INT8, ExportFormat.BNB_NF4):
        export(job, out=tmp_path / form, format=form)
        config = json.loads((tmp_path / form / "config.json").read_text())
        assert config["quantization_config"]["quant_method"] == "bitsandbytes"
        reports[form] = replay(tmp_path / form)
    assert reports[ExportFormat.BNB_INT8]["passed"], reports[ExportFormat.BNB_INT8]["reasons"]
    assert "bitsandbytes" in reports[ExportFormat.BNB_INT8]["runtime"]
    strict = replay(tmp_path / ExportFormat.BNB_NF4, max_relative_difference=1e-3)
    assert not strict["passed"]
    found = ParityReport.from_json(strict)
    assert found.allowing_drift().released
    assert not ParityReport(passed=False, reasons=("it does not load",)).allowing_drift().released


def test_a_quantised_base_says_what_the_whole_one_changed(job: dict[str, Any], tmp_path: Path) -> None:
    """The adapter was trained on 4 bits; what is exported, on 32, differs a little from what was trained."""
    method = replace(job["spec"].method, quantization=Quantization.NF4)
    export(job, spec=replace(job["spec"], method=method), out=tmp_path / "package")
    metrics = load_package_manifest(tmp_path / "package").metrics
    assert 0.001 < metrics["unquantised/first_token_difference"] < 1
    assert 0 <= metrics["unquantised/token_agreement"] <= 1
    card = (tmp_path / "package/README.md").read_text(encoding="utf-8")
    assert f"the first tokens by {metrics['unquantised/first_token_difference']:.2%} of their norm" in card


def test_every_format_has_a_name_on_the_wire_and_a_writer() -> None:
    wire = {name.removeprefix("EXPORT_FORMAT_") for name in export_pb2.ExportFormat.keys()}  # noqa: SIM118
    assert wire - {"UNSPECIFIED"} == {*ExportFormat} == {*FORMATS}
