"""Fine-tunes as files on the command line: a preset becomes a file, a file a job, a job a file again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from finemesh.chassis.fine_tune_spec import spec_from_proto
from finemesh.client import specs
from finemesh.specfile import parse

from tests.integration.training.conftest import Type
from tests.support.training_client import TrainingClient

pytestmark = pytest.mark.integration


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A folder that says of itself that it is a Llama."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 1024}))
    return folder


async def test_an_exported_spec_starts_the_same_again(
    type_in: Type, client: TrainingClient, trainable: str, llama: Path, tmp_path: Path
) -> None:
    first, again = (f"{client.parent}/trainingJobs/{name}" for name in ("first", "again"))
    type_in("train", "submit", "--preset", "quick", "--model", "./llama", "--dataset", trainable,
            "-o", "training.lora.rank=32", "-o", "sequence.max_tokens=512", "--id", "first")  # fmt: skip
    Path("spec.yaml").write_text(type_in("train", "spec", "first").stdout)
    type_in("train", "submit", "-f", "spec.yaml", "--id", "again", "--strict")
    ran = [spec_from_proto((await client.get(name)).spec) for name in (first, again)]
    assert ran[0].fingerprint() == ran[1].fingerprint()
    assert ran[0].base_model == str(llama)
    assert getattr(ran[0].method, "rank", 0) == 32
    assert ran[0].optimization.max_steps == 200


def test_a_preset_is_a_file_without_faults(type_in: Type, trainable: str, llama: Path) -> None:
    given = ("--model", str(llama), "--dataset", trainable, "--gpus", "1", "-o", "sequence.max_tokens=1024")
    for level in ("quick", "balanced", "quality"):
        text = type_in("train", "preset", level, *given).stdout
        Path("spec.yaml").write_text(text)
        assert "nothing to complain about" in type_in("train", "lint", "-f", "spec.yaml", "--strict").stdout
    assert "task: LANGUAGE" in text
    assert "learning_rate: 0.0003" in text  # of the model's family
    assert "rank: 128" in type_in("train", "preset", "llava-quality", "--model", "hub/name").stdout
    assert "say which of" in type_in("train", "preset", "quick", "--model", "hub/name", code=2).stderr
    listed = json.loads(type_in("train", "presets", "--json").stdout)
    assert "presets/vision-language-quality" in {preset["name"] for preset in listed}


def test_what_is_wrong_is_said_with_its_line(type_in: Type, trainable: str) -> None:
    Path("bad.yaml").write_text(
        f"task: LANGUAGE\nbase_model: m\ndataset: {trainable}\nlora:\n  rnk: 8\nrank: 8\nprecision: BF61\n"
    )
    said = type_in("train", "lint", "-f", "bad.yaml", code=2).stderr.splitlines()
    assert [line.split(": ", 3)[:3] for line in said] == [
        ["error", "bad.yaml:5", "lora.rnk"],
        ["error", "bad.yaml:6", "rank"],
        ["error", "bad.yaml:7", "precision"],
    ]
    assert "did you mean lora.rank?" in said[1]
    assert "did you mean BF16?" in said[2]
    Path("bad.yaml").write_text(f"task: LANGUAGE\nbase_model: m\ndataset: {trainable}\nlora: {{rank: 0}}\n")
    refused = type_in("train", "lint", "-f", "bad.yaml", "-o", "evaluation.every_steps=-1", code=1).stdout
    assert "bad.yaml:4: error: lora.rank: must be at least 1" in refused
    assert "-o evaluation.every_steps=-1: error: evaluation.every_steps" in refused
    type_in("train", "submit", "-f", "bad.yaml", code=2)
    warned = type_in("train", "submit", "-f", "bad.yaml", "-o", "lora.rank=8", "--strict", code=1).stderr
    assert "warning: evaluation.every_steps" in warned


def test_families_are_shown_by_name_and_by_folder(type_in: Type, llama: Path) -> None:
    shown_to_people = type_in("models", "show", "llava").stdout
    assert "q_proj" in shown_to_people
    assert "llava-quality" in shown_to_people
    assert "llama" in type_in("models", "list").stdout
    shown: Any = json.loads(type_in("models", "show", str(llama), "--json").stdout)
    assert shown["name"] == "modelFamilies/llama"
    assert "config.json" in type_in("models", "show", str(llama.parent), code=2).stderr


def test_the_schema_is_that_of_the_release(type_in: Type) -> None:
    assert type_in("train", "schema").stdout == specs.schema()
    assert (
        parse(type_in("train", "preset", "quick", "--task", "language").stdout, "-").values["lora"]["rank"]
        == 8
    )
