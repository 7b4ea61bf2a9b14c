"""Instruction data in all its forms: what comes of it is written down here turn by turn."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat, ImportOptions
from finemesh.data import Progress, import_source, iter_rows
from finemesh.data.readers import detect_format
from finemesh.data.readers.conversations import records
from finemesh.data.readers.survey import Survey
from finemesh.data.schema import Message, Row
from finemesh.data.sources import open_source

from tests.support.sources import Loaded, load, png, write_files

RED, BLUE = png(4, 2), png(6, 3)


def spoken(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Role and words of each turn; pictures as `[]`, calls as their JSON."""
    return [
        (
            turn["role"],
            "".join("[]" if part["type"] == "image" else part["text"] for part in turn["content"])
            + turn["tool_calls"],
        )
        for turn in messages
    ]


def only(loaded: Loaded) -> Row:
    assert not loaded.faults, loaded.faults
    [row] = loaded.rows.values()
    return row


def lines(*values: Any) -> str:
    return "\n".join(json.dumps(value) for value in values)


def test_llava_places_every_picture(tmp_path: Path) -> None:
    conversations = [
        {"from": "human", "value": "<image>\nHow does this differ from <image>?\n\nSay it."},
        {"from": "gpt", "value": "It is smaller."},
    ]
    record = {
        "id": "7",
        "image": ["a/1.png", "b/1.png"],
        "conversations": conversations,
        "model": "v",
        "n": None,
    }
    files = {"chat.json": [record], "pictures/a/1.png": RED, "pictures/b/1.png": BLUE}
    loaded = load(tmp_path, files)
    row = only(loaded)
    assert loaded.manifest.options["format"] == "llava"
    assert row["row_id"] == "chat/0"
    assert row["source"] == {"file": "chat.json", "key": "[0]"}
    assert [part["type"] for part in row["messages"][0]["content"]] == ["image", "text", "image", "text"]
    assert spoken(row["messages"]) == [
        ("user", "[]How does this differ from []?\n\nSay it."),
        ("assistant", "It is smaller."),
    ]
    assert [image["data"] for image in row["images"]] == [RED, BLUE]
    assert [image["name"] for image in row["images"]] == ["pictures/a/1.png", "pictures/b/1.png"]
    assert json.loads(row["attributes"]) == {"id": "7", "model": "v"}


def test_sharegpt_keeps_tools_and_their_calls(tmp_path: Path) -> None:
    tools = [{"name": "add", "parameters": {"type": "object"}}]
    call = {"name": "add", "arguments": {"a": 1, "b": 2}}
    record = {
        "conversations": [
            {"from": "human", "value": "1 + 2?"},
            {"from": "function_call", "value": json.dumps(call)},
            {"from": "observation", "value": "3"},
            {"from": "gpt", "value": "Three.", "weight": 1},
        ],
        "system": "You add.",
        "tools": json.dumps(tools),
    }
    loaded = load(tmp_path, {"talk_train.json": [record]})
    row = only(loaded)
    assert loaded.manifest.options["format"] == "sharegpt"
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert json.loads(row["messages"][2]["tool_calls"]) == [call]
    assert json.loads(row["tools"]) == tools
    assert [turn["train"] for turn in row["messages"]] == [None, None, None, None, True]
    assert row["split"] == "train"


def test_openai_messages_hold_parts_calls_and_weights(tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(BLUE).decode()
    call = {"id": "call_1", "type": "function", "function": {"name": "crop", "arguments": '{"x": 1}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Both: "},
                {"type": "image_url", "image_url": {"url": "red.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
        {"role": "assistant", "content": "Cropped."},
    ]
    tools = [{"type": "function", "function": {"name": "crop"}}]
    loaded = load(
        tmp_path,
        {"a.jsonl": lines({"messages": messages, "tools": tools, "parallel": False}), "red.png": RED},
    )
    row = only(loaded)
    assert loaded.manifest.options["format"] == "openai"
    assert spoken(row["messages"])[1] == ("user", "Both: [][]")
    assert [image["data"] for image in row["images"]] == [RED, BLUE]
    assert json.loads(row["messages"][2]["tool_calls"]) == [
        {"id": "call_1", "name": "crop", "arguments": {"x": 1}}
    ]
    assert [turn["train"] for turn in row["messages"]] == [None, None, False, None, None]
    assert json.loads(row["tools"]) == [{"name": "crop"}]
    assert json.loads(row["attributes"]) == {
        "parallel": False,
        "message_fields": {"0": {"role": "developer"}, "3": {"tool_call_id": "call_1"}},
    }


def test_bare_image_parts_show_the_pictures_beside_the_messages(tmp_path: Path) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What?"}, {"type": "image"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Two."}]
    record = {"messages": messages, "images": ["blue.png", "red.png"]}
    row = only(load(tmp_path, {"a.jsonl": lines(record), "red.png": RED, "blue.png": BLUE}))
    assert spoken(row["messages"])[0] == ("user", "[]What?[]")
    assert [image["data"] for image in row["images"]] == [BLUE, RED]


def test_pictures_that_no_turn_shows_come_first_and_it_is_said(tmp_path: Path) -> None:
    record = {"prompt": "What is it?", "completion": "Red.", "image": "red.png"}
    loaded = load(tmp_path, {"a.json": [record], "red.png": RED})
    assert spoken(only(loaded)["messages"])[0] == ("user", "[]What is it?")
    assert "pictures that no turn shows were put before the user's first words" in loaded.manifest.warnings


def test_alpaca_sample_agrees_with_datasets(samples: Path, tmp_path: Path, silent: Progress) -> None:
    import datasets

    source = samples / "alpaca/alpaca_en_demo.json"
    manifest = import_source(source, tmp_path / "out", ImportOptions(), silent)
    assert manifest.options["format"] == "alpaca"
    datasets.disable_progress_bars()
    theirs: Any = datasets.load_dataset(
        "json", data_files=str(source), split="train", cache_dir=str(tmp_path / "cache")
    )
    ours = list(iter_rows(tmp_path / "out"))
    assert len(ours) == len(theirs) == 999
    for row, record in zip(ours, theirs, strict=True):
        asked = record["instruction"] + ("\n" + record["input"] if record["input"] else "")
        assert spoken(row["messages"]) == [("user", asked), ("assistant", record["output"])]
        assert json.loads(row["attributes"] or "{}") == (
            {"input": record["input"]} if record["input"] else {}
        )


def test_alpaca_with_system_and_history(tmp_path: Path) -> None:
    record = {"instruction": "And 2?", "output": "4", "system": "Double.", "history": [["1?", "2"]]}
    assert spoken(only(load(tmp_path, {"a.jsonl": lines(record)}))["messages"]) == [
        ("system", "Double."),
        ("user", "1?"),
        ("assistant", "2"),
        ("user", "And 2?"),
        ("assistant", "4"),
    ]


TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Go"},
]


@pytest.mark.parametrize(
    ("record", "expected", "train"),
    [
        ({"prompt": "1", "completion": "2"}, ["1", "2"], [None, None]),
        (
            {"prompt": TALK, "completion": [{"role": "assistant", "content": "Gone"}]},
            ["Hi", "Yes?", "Go", "Gone"],
            [None, False, None, None],
        ),
        ({"input": "1", "output": "2"}, ["1", "2"], [None, None]),
    ],
)
def test_prompts_carry_no_loss(
    record: dict[str, Any], expected: list[str], train: list[bool | None], tmp_path: Path
) -> None:
    row = only(load(tmp_path, {"a.json": [record]}))
    assert [words for _, words in spoken(row["messages"])] == expected
    assert [turn["train"] for turn in row["messages"]] == train


def _ends(words: str) -> list[dict[str, str]]:
    return [*TALK, {"role": "assistant", "content": words}]


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        pytest.param({"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}, ["Sky?"], id="texts"),
        pytest.param(
            {"chosen": "Sky? Bl ue. Blue.", "rejected": "Sky? Bl ue. Green."}, ["Sky? Bl ue. "], id="implicit"
        ),
        pytest.param(
            {"chosen": _ends("Blue."), "rejected": _ends("Green.")}, ["Hi", "Yes?", "Go"], id="lists"
        ),
        pytest.param(
            {"prompt": "Go", "chosen": _ends("Blue."), "rejected": _ends("Green.")},
            ["Hi", "Yes?", "Go"],
            id="lists that repeat the prompt",
        ),
        pytest.param(
            {"messages": _ends("Blue."), "chosen": _ends("Blue.")[3:], "rejected": _ends("Green.")[3:]},
            ["Hi", "Yes?", "Go"],
            id="messages",
        ),
        pytest.param(
            {
                "conversations": [{"from": "human", "value": "Sky?"}],
                "chosen": {"from": "gpt", "value": "Blue."},
                "rejected": {"from": "gpt", "value": "Green."},
            },
            ["Sky?"],
            id="turns of ShareGPT",
        ),
        pytest.param(
            {
                "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.",
                "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
            },
            ["Sky?"],
            id="dialogue in a text",
        ),
    ],
)
def test_preferences_part_at_their_last_turn(
    record: dict[str, Any], prompt: list[str], tmp_path: Path
) -> None:
    loaded = load(tmp_path, {"a.json": [{**record, "score": 0.5}]})
    row = only(loaded)
    assert loaded.manifest.options["format"] == "preference"
    assert [words for _, words in spoken(row["messages"])] == [*prompt, "Blue."]
    assert spoken(row["rejected"]) == [("assistant", "Green.")]
    assert json.loads(row["attributes"])["score"] == 0.5


def test_lines_in_a_json_file_and_a_long_first_record(tmp_path: Path) -> None:
    pair = {"input": "1", "output": "2"}
    for name, mark in (("lines", ""), ("marked", "\ufeff")):
        assert len(load(tmp_path / name, {"a.json": mark + lines(pair, pair)}).rows) == 2
    url = "data:image/png;base64," + base64.b64encode(png(300, 300) + bytes(80_000)).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    record = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Grey."}]}
    for name, written in (("a.json", [record]), ("a.jsonl", lines(record))):
        loaded = load(tmp_path / name, {name: written})
        assert loaded.manifest.options["format"] == "openai"
        assert len(only(loaded)["images"]) == 1


def test_files_of_one_name_keep_apart_and_others_are_named(tmp_path: Path) -> None:
    pair = [{"input": "1", "output": "2"}]
    loaded = load(
        tmp_path, {"train/data.json": pair, "test/data.json": pair, "info.json": [{"licence": "CC0"}]}
    )
    assert {row_id: row["split"] for row_id, row in loaded.rows.items()} == {
        "train/data/0": "train",
        "test/data/0": "test",
    }
    assert "info.json was not read: its records are of another form" in loaded.manifest.warnings


HUMAN = {"conversations": [{"from": "human", "value": "?"}]}


@pytest.mark.parametrize(
    ("files", "form"),
    [
        ({"a.json": [HUMAN]}, "sharegpt"),
        ({"a.json": [HUMAN | {"image": "red.png"}], "coco/red.png": RED, "gqa/blue.png": BLUE}, "llava"),
        ({"a.jsonl": json.dumps({"conversations": [{"from": "human", "value": "<image>"}]})}, "llava"),
        ({"a.json": lines({"messages": [], "images": []}, {"messages": []})}, "openai"),
        ({"a.json": [{"messages": TALK, "chosen": "A", "rejected": "B", "prompt": "?"}]}, "preference"),
        ({"a.json": [{"instruction": "A", "input": "B", "output": "C", "text": "D"}]}, "alpaca"),
        ({"a.json": [{"input": "B", "output": "C", "text": "D"}]}, "input_output"),
        ({"a.json": [{"prompt": "B", "completion": "C", "text": "D"}]}, "prompt_completion"),
        ({"a.json": [{"text": "D"}], "notes.txt": "Read me"}, "text"),
        ({"train.csv": "image,class\nred.png,x", "cat/red.png": RED, "dog/blue.png": BLUE}, "table"),
        ({"data/train-00000.parquet": b"PAR1", "README.md": "# Data"}, "parquet"),
        ({"metadata.jsonl": '{"file_name": "red.png", "text": "a plum"}', "red.png": RED}, "image_folder"),
        ({"a.json": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]}, "coco_results"),
    ],
)
def test_forms_are_told_apart(files: dict[str, Any], form: str, tmp_path: Path) -> None:
    with open_source(write_files(tmp_path, files), ImportOptions()) as source:
        assert detect_format(Survey(source)) == form


def _turn(**changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"} | changes]}


GOOD = _turn()
REMOTE = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]


@pytest.mark.parametrize(
    ("record", "reason", "field"),
    [
        (7, "RECORD_INVALID", "[1]"),
        ({"messages": []}, "RECORD_INVALID", "messages"),
        ({"messages": [5]}, "RECORD_INVALID", "messages[0]"),
        (_turn(content=5), "RECORD_INVALID", "messages[1].content"),
        (_turn(content=[{"type": "text"}]), "RECORD_INVALID", "messages[1].content[0].text"),
        (_turn(content=[{"type": "input_audio"}]), "CONTENT_UNSUPPORTED", "messages[1].content[0].type"),
        (_turn(role="narrator"), "UNKNOWN_ROLE", "messages[1].role"),
        (_turn(role=["user"]), "UNKNOWN_ROLE", "messages[1].role"),
        (_turn(content=" \n"), "EMPTY_TURN", "messages[1]"),
        (_turn(weight=0.5), "WEIGHT_INVALID", "messages[1].weight"),
        (_turn(tool_calls=[{"function": {}}]), "TOOL_CALL_INVALID", "messages[1].tool_calls"),
        (
            _turn(tool_calls=[{"function": {"name": "f", "arguments": "{"}}]),
            "TOOL_CALL_INVALID",
            "messages[1].tool_calls.arguments",
        ),
        ({**GOOD, "tools": "not JSON"}, "TOOLS_INVALID", "tools"),
        ({**GOOD, "tools": [1]}, "TOOLS_INVALID", "tools[0]"),
        (_turn(content=[{"type": "image"}]), "PLACEHOLDER_MISMATCH", "messages[1].content[0]"),
        (_turn(content=REMOTE), "IMAGE_REMOTE", "messages[1].content[0].image_url"),
        (
            _turn(content=[{"type": "image_url", "image_url": "data:image/png,x"}]),
            "IMAGE_UNREADABLE",
            "messages[1].content[0].image_url",
        ),
        ({**GOOD, "image": "none.png"}, "IMAGE_MISSING", "image"),
        (_turn(content="\ud83d"), "TEXT_INVALID", "[1]"),
    ],
)
def test_faulty_record_is_put_aside_with_its_field(
    record: Any, reason: str, field: str, tmp_path: Path
) -> None:
    loaded = load(tmp_path, {"a.json": [GOOD, record]})
    [fault] = loaded.faults
    assert (fault.row_id, fault.reason, fault.field) == ("a/1", reason, field)
    assert fault.message
    assert len(loaded.rows) == 1


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"chosen": "Yes", "rejected": "No"}, "PROMPT_MISSING"),
        ({"prompt": "A", "chosen": TALK, "rejected": TALK}, "PREFERENCE_INVALID"),
        ({"prompt": "A", "chosen": _ends("B"), "rejected": TALK[:1]}, "PREFERENCE_INVALID"),
        ({"instruction": "A", "output": 5}, "RECORD_INVALID"),
        ({"instruction": "A", "output": "B", "history": [["C"]]}, "RECORD_INVALID"),
        ({"conversations": [{"from": "human", "value": "<image>\n?"}], "image": []}, "PLACEHOLDER_MISMATCH"),
    ],
)
def test_faults_of_the_other_forms(record: dict[str, Any], reason: str, tmp_path: Path) -> None:
    good = {
        "chosen": {"prompt": "A", "chosen": "B", "rejected": "C"},
        "instruction": {"instruction": "A", "output": "B"},
        "conversations": {
            "conversations": [{"from": "human", "value": "A"}, {"from": "gpt", "value": "B"}],
            "images": None,
        },
    }
    sound = next(value for key, value in good.items() if key in record)
    assert [fault.reason for fault in load(tmp_path, {"a.json": [sound, record]}).faults] == [reason]


def test_a_broken_line_costs_itself_and_a_broken_list_the_import(tmp_path: Path) -> None:
    text = lines(GOOD) + '\n\n{"messages": [\n' + lines(GOOD) + "\n\xff"
    loaded = load(tmp_path / "lines", {"a.jsonl": text.encode("latin-1")})
    assert [(fault.row_id, fault.reason, fault.field) for fault in loaded.faults] == [
        ("a/1", "MALFORMED_JSON", "line 3"),
        ("a/3", "MALFORMED_JSON", "line 5"),
    ]
    with pytest.raises(InvalidError) as error:
        load(tmp_path / "list", {"a.json": json.dumps([GOOD] * 3000)[:-9]})
    assert error.value.reason == "MALFORMED_JSON"


def test_an_endless_line_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 200)
    long = _turn(content="x" * 5000)
    loaded = load(tmp_path, {"a.jsonl": lines(GOOD, long, GOOD)})
    assert [(fault.row_id, fault.reason) for fault in loaded.faults] == [("a/1", "RECORD_TOO_LARGE")]
    assert sorted(loaded.rows) == ["a/0", "a/2"]


def test_a_named_format_needs_its_fields(tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as error:
        load(tmp_path, {"a.json": [GOOD]}, form=AnnotationFormat.ALPACA)
    assert error.value.reason == "NO_SUCH_RECORDS"
    assert "instruction and output" in error.value.message
