"""Conversations out: messages and LLaVA, read by `datasets`, json and PIL, and where `<image>` stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.errors import PreconditionError
from finemesh.core.spec.data import ConvertOptions, DatasetFormat, ImportOptions
from finemesh.data import (
    Progress,
    convert_dataset,
    import_source,
    iter_ledger,
    iter_rows,
    verify_dataset,
)

from tests.support.sources import png, write_files

RED, BLUE = png(4, 2), png(6, 3)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def text(words: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": words}]


SHOWN = [*text("Add "), {"type": "image"}, *text(" and this"), {"type": "image"}]
QUESTION, ANSWER = {"role": "user", "content": text("Größe?")}, {"role": "assistant", "content": text("5 m")}
RECORDS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "developer", "content": text("Be brief.")},
            {"role": "user", "content": SHOWN},
            {"role": "assistant", "content": [], "tool_calls": [CALL], "train": False},
            {"role": "tool", "tool_call_id": "c1", "content": text("3")},
            {"role": "assistant", "content": text("Three, <image> said."), "train": True},
        ],
        "images": ["a/1.png", "b/1.png"],
        "tools": [TOOL],
        "attributes": {"origin": "hand"},
    },
    {"messages": [QUESTION, ANSWER]},
    {
        "messages": [QUESTION, ANSWER],
        "chosen": [ANSWER],
        "rejected": [{"role": "assistant", "content": text("Green")}],
    },
]


def compiled(folder: Path, source: Path, target: DatasetFormat, silent: Progress) -> Path:
    import_source(source, folder / "in", ImportOptions(max_quarantined_fraction=0), silent)
    convert_dataset(folder / "in", folder / "out", ConvertOptions(target=target), silent)
    verify_dataset(folder / "out")
    return folder / "out"


@pytest.fixture
def written(tmp_path: Path, silent: Progress) -> Path:
    lines = "\n".join(
        json.dumps(record | record.get("attributes", {}) | {"attributes": None}) for record in RECORDS
    )
    files = {"chat_train.jsonl": lines, "a/1.png": RED, "b/1.png": BLUE}
    source = write_files(tmp_path / "source", files)
    return compiled(tmp_path, source, DatasetFormat.MESSAGES, silent)


def test_messages_come_back_as_they_were(written: Path) -> None:
    entries = [json.loads(line) for line in (written / "train.jsonl").read_text("utf-8").splitlines()]
    assert [entry.pop("id") for entry in entries] == ["chat_train/0", "chat_train/1", "chat_train/2"]
    assert [(written / path).read_bytes() for path in entries[0].pop("images")] == [RED, BLUE]
    assert entries == [{k: v for k, v in record.items() if k != "images"} for record in RECORDS]


def test_messages_open_in_datasets(written: Path, tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    loaded: Any = datasets.load_dataset(
        "json",
        data_files=str(written / "train.jsonl"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert loaded[0]["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    assert loaded[0]["tools"][0]["function"]["name"] == "add"
    assert loaded[1]["messages"][0]["content"][0]["text"] == "Größe?"
    assert loaded[2]["rejected"][0]["content"][0]["text"] == "Green"


def test_messages_read_again_are_the_same_rows(written: Path, tmp_path: Path, silent: Progress) -> None:
    import_source(written, tmp_path / "again", ImportOptions(max_quarantined_fraction=0), silent)
    before, after = (list(iter_rows(tmp_path / name)) for name in ("in", "again"))
    for old, new in zip(before, after, strict=True):
        for name in ("messages", "rejected", "tools", "split"):
            assert new[name] == old[name]
        assert [image["sha256"] for image in new["images"]] == [image["sha256"] for image in old["images"]]


LLAVA = [
    ("<image>\nWhat is it?", "A plum."),
    ("Look at <image>. What is it?", "A plum."),
    ("What is it?\n<image>", "A plum.\n\nRed."),
]


def test_llava_keeps_the_place_of_its_pictures(tmp_path: Path, silent: Progress) -> None:
    records = [
        {"image": "red.png", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for q, a in LLAVA
    ]
    source = write_files(tmp_path / "source", {"a.json": records, "red.png": RED})
    out = compiled(tmp_path, source, DatasetFormat.LLAVA, silent)
    entries = json.loads((out / "llava_all.json").read_text())
    assert [entry["conversations"] for entry in entries] == [record["conversations"] for record in records]
    assert [(out / entry["image"]).read_bytes() for entry in entries] == [RED] * 3


def test_what_llava_cannot_hold_is_put_aside(written: Path, tmp_path: Path, silent: Progress) -> None:
    """Of the records, only the plain one fits: two pictures, preferences and tools do not."""
    calling = {"messages": [RECORDS[1]["messages"][0], *RECORDS[0]["messages"][2:]]}
    lines = "\n".join(json.dumps(record) for record in (RECORDS[1], calling))
    source = write_files(tmp_path / "plain", {"more.jsonl": lines})
    faults: dict[str, str] = {}
    for name, dataset in (("first", tmp_path / "in"), ("second", tmp_path / "plain_in")):
        if name == "second":
            import_source(source, dataset, ImportOptions(max_quarantined_fraction=0), silent)
        convert_dataset(dataset, tmp_path / name, ConvertOptions(target=DatasetFormat.LLAVA), silent)
        faults |= {entry.row_id: entry.reason for entry in iter_ledger(tmp_path / name) if entry.reason}
    assert faults == {
        "chat_train/0": "SEVERAL_IMAGES",
        "chat_train/2": "HAS_PREFERENCE",
        "more/1": "HAS_TOOLS",
    }


@pytest.mark.parametrize("target", [DatasetFormat.LLAVA, DatasetFormat.MESSAGES])
def test_rows_without_conversations_are_put_aside(
    target: DatasetFormat, tmp_path: Path, silent: Progress
) -> None:
    source = write_files(tmp_path / "source", {"a.csv": "text\nOnce\n"})
    import_source(source, tmp_path / "in", ImportOptions(), silent)
    with pytest.raises(PreconditionError) as error:
        convert_dataset(tmp_path / "in", tmp_path / "out", ConvertOptions(target=target), silent)
    assert "1 x NO_MESSAGES" in error.value.message
