"""A fine-tune without a mesh: `python -m finemesh.finetune spec.yaml`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finemesh.finetune.__main__ import main

from tests.support.conversations import text_rows, tiny_model, write_dataset

SPEC = """
task: language
lora: {rank: 2}
optimization: {max_steps: 9, learning_rate: 1e-3}
evaluation: {every_steps: 1}
test_split: ""
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `llama`, `My items (2)` and `spec.yaml`."""
    made = tmp_path_factory.mktemp("alone")
    write_dataset(made / "My items (2)", list(text_rows({"train": 16, "val": 4})))
    tiny_model(made / "llama", "llama")
    (made / "spec.yaml").write_text(SPEC)
    return made


def test_what_was_trained_is_a_spec_that_trains_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    given = ["--dataset", "My items (2)", "-o", "optimization.max_steps=2", "-o", "lora.rank=4"]
    assert main(["spec.yaml", "--base", "llama", *given]) == 0
    first = last_line(capsys)
    [work] = folder.glob("run-*")
    assert "rank: 4" in (work / "spec.yaml").read_text()
    assert main([str(work / "spec.yaml"), "--dataset", "My items (2)", "--work", "again"]) == 0
    assert last_line(capsys)["certificate"] == first["certificate"]
    assert (folder / "again/spec.yaml").read_bytes() == (work / "spec.yaml").read_bytes()


def test_what_is_in_a_work_folder_is_not_lost_by_mistake(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    given = ["spec.yaml", "--base", "llama", "--dataset", "My items (2)", "--work", "kept"]
    assert main([*given, "-o", "optimization.max_steps=2"]) == 0
    before = {path: path.read_bytes() for path in Path("kept").rglob("*") if path.is_file()}
    assert main([*given, "-o", "optimization.max_steps=2"]) == 1
    assert "WORK_NOT_EMPTY: kept holds checkpoints" in capsys.readouterr().err
    assert main([*given, "-o", "optimization.max_steps=3", "--resume"]) == 1
    assert "CHECKPOINT_OF_OTHER_SPEC" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("kept").rglob("*") if path.is_file()} == before


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(folder: Path) -> None:
    command = [sys.executable, "-m", "finemesh.finetune", "spec.yaml", "--base", "llama"]
    command += ["--dataset", "My items (2)", "--work", "stopped", "-o", "optimization.max_steps=100000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    ) as process:
        assert process.stdout
        process.stdout.readline()  # the first step
        process.send_signal(signal.SIGINT)
        told, said = process.communicate()
    ended = json.loads(told.splitlines()[-1])
    assert (ended["outcome"], process.returncode) == ("CANCELLED", 0)
    assert (folder / ended["checkpoint"]["path"]).is_dir()
    assert f"stopped after step {ended['step']}: the same command with --resume goes on" in said
    assert "kernels" not in said  # libraries warn of what nobody here asked for


def last_line(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["spec.yaml", "--base", "llama", "-o", "lora.rnk=3"], 2, "-o lora.rnk=3: error: lora.rnk: unknown"),
        (["spec.yaml"], 2, "error: base_model: name a hub id"),
        (["spec.yaml", "--base", "llama"], 1, "--dataset"),
        (["spec.yaml", "-o", "base_model=hub/name", "--dataset", "."], 1, "BASE_MODEL_NOT_FOUND"),
        (["spec.yaml", "--base", "llama", "--dataset", "nowhere"], 1, "nowhere has no manifest.json"),
        (["spec.yaml", "-o", "base_model=llama", "--base", "lama", "--dataset", "."], 1, "lama is no folder"),
        (["none.yaml"], 2, "none.yaml cannot be read"),
        (
            ["spec.yaml", "--base", "llama", "-o", "sequence.max_tokens=9999", "--check"],
            0,
            "-o sequence.max_tokens=9999: warning: sequence.max_tokens: 9999 is more than the 2048 positions",
        ),
        (
            ["spec.yaml", "--base", "llama", "-o", "lora.target_modules=[q_prj]", "--check"],
            0,
            "lora.target_modules: published llama models have no layer 'q_prj' in LANGUAGE: write",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_loaded(
    folder: Path, arguments: list[str], code: int, said: str
) -> None:
    program = (
        "import sys; from finemesh.finetune.__main__ import main; code = main(sys.argv[1:]); "
        "print(*{'torch', 'transformers', 'ray', 'grpc', 'google.protobuf'} & sys.modules.keys()); "
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, check=False, text=True, cwd=folder
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout.split() == []
