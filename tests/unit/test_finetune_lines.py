"""A dataset that is a file of JSON lines, trained where torch, transformers and peft are all there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from finemesh.core.errors import FinemeshError
from finemesh.finetune.objectives.conversation import Conversation
from finemesh.finetune.prepared import encoding_inputs
from finemesh.finetune.rows import ROW_COLUMNS, read_manifest, read_rows

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset

# What torch, transformers and peft do not bring along.
ABSENT: Final = (
    *("av", "bitsandbytes", "datasets", "google.protobuf", "grpc", "orjson", "pandas", "PIL"),
    *("pyarrow", "pycocotools", "ray", "scipy", "sqlalchemy", "structlog", "timm", "torchvision"),
)
SPEC: Final = """
task: LANGUAGE
lora: {rank: 2}
optimization: {max_steps: 2, micro_batch_size: 4, learning_rate: 1e-3}
evaluation: {max_generated_tokens: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `llama`, and the same conversations in `items` and `items.jsonl`."""
    made = tmp_path_factory.mktemp("lines")
    rows = list(text_rows({"train": 8, "val": 4, "test": 4}))
    write_dataset(made / "items", rows, shards=1)
    with (made / "items.jsonl").open("w", encoding="utf-8") as lines:
        for row in rows:
            turns = [
                {"role": each["role"], "content": each["content"][0]["text"]} for each in row["messages"]
            ]
            print(json.dumps({"row_id": row["row_id"], "split": row["split"], "messages": turns}), file=lines)
    tiny_model(made / "llama", "llama")
    (made / "spec.yaml").write_text(SPEC, encoding="utf-8")
    return made


def trained(folder: Path, dataset: str, *absent: str) -> dict[str, Any]:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r})); "
        "from finemesh.finetune.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "spec.yaml", "--base", "llama", "--dataset", dataset]
    command += ["--work", f"work-{Path(dataset).suffix}"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_else_has_to_be_installed_and_the_losses_are_those_of_a_folder(folder: Path) -> None:
    alone, whole = trained(folder, "items.jsonl", *ABSENT), trained(folder, "items")
    assert alone["certificate"] == whole["certificate"]
    assert alone["ledgers"] == whole["ledgers"]
    tested = {name for name in alone["metrics"] if name.startswith("test/")}
    assert "test/exact_match" in tested
    assert {name: alone["metrics"][name] for name in tested} == {
        name: whole["metrics"][name] for name in tested
    }


def test_a_line_needs_no_more_than_a_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two", "split": "val", "row_id": "b"}\n', encoding="utf-8")
    assert [(row.row_id, row.group, row.text) for row in read_rows(path)] == [
        ("line-1", "line-1", "one"),
        ("b", "b", "two"),
    ]
    assert [row.row_id for row in read_rows(path, "val")] == ["b"]
    assert read_manifest(path).splits == {"train": 1, "val": 1}


def test_tools_and_what_carries_loss_are_read(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    tools = [{"type": "function", "function": {"name": "add"}}]
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call], "train": False},
        {"role": "assistant", "content": "2", "weight": 1},
    ]
    path = tmp_path / "tools.jsonl"
    path.write_text(json.dumps({"messages": messages, "tools": tools}), encoding="utf-8")
    [row] = read_rows(path, "train", ROW_COLUMNS)
    assert row.tools == tuple(tools)
    assert row.messages[1]["tool_calls"] == [call]
    assert row.train == (None, False, True)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '"text"',
        '{"words": "one"}',
        '{"messages": [{"content": "whose?"}]}',
        '{"messages": [{"role": "user", "content": "?", "weight": 0.5}]}',
        '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(f'{{"text": "one"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(FinemeshError, match=r"wrong\.jsonl:2: neither") as refused:
        read_manifest(path)
    assert refused.value.reason == "DATASET_CORRUPT"


def test_what_was_prepared_of_other_lines_is_not_taken(folder: Path) -> None:
    path = folder / "other.jsonl"
    found: list[Any] = []
    for text in ("one", "two"):
        path.write_text(json.dumps({"text": text}), encoding="utf-8")
        found.append(encoding_inputs(spec(), folder / "llama", path, Conversation)["dataset"])
    assert found[0] != found[1]
