"""Instruction data of any shape: rows that Arrow can hold, faults of rows, or an error of ours."""

from __future__ import annotations

import copy
import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from finemesh.core.errors import FinemeshError
from finemesh.core.spec.data import AnnotationFormat, ImportOptions
from finemesh.data.batches import RowBatch
from finemesh.data.faults import RowFault
from finemesh.data.importing import built_row
from finemesh.data.placeholders import PLACEHOLDER, join_placeholders, split_placeholders
from finemesh.data.readers import READERS, detect_format
from finemesh.data.readers.context import ReadContext
from finemesh.data.rows import IMAGE_PART, text_part
from finemesh.data.schema import Row
from finemesh.data.sources import open_source
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sources import png

FORMS = (
    AnnotationFormat.LLAVA,
    AnnotationFormat.SHAREGPT,
    AnnotationFormat.OPENAI,
    AnnotationFormat.ALPACA,
    AnnotationFormat.PROMPT_COMPLETION,
    AnnotationFormat.INPUT_OUTPUT,
    AnnotationFormat.PREFERENCE,
    AnnotationFormat.TEXT,
)


def read(
    name: str, data: bytes, form: AnnotationFormat | None, columns: dict[str, str] | None = None
) -> tuple[list[Row], list[RowFault]] | str:
    """The rows and faults of a source of one file and a picture; the reason if it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(data)
        (Path(folder) / "red.png").write_bytes(png(4, 2))
        options = ImportOptions(columns=columns or {})
        rows: list[Row] = []
        faults: list[RowFault] = []
        try:
            with open_source(Path(folder), options) as source:
                context = ReadContext(source, options)
                for candidate in READERS[form or detect_format(context.survey)].read(context):
                    try:
                        rows.append(built_row(candidate))
                    except RowFault as fault:
                        assert fault.reason
                        assert fault.message
                        faults.append(fault)
        except FinemeshError as error:
            assert error.reason
            return error.reason
    if rows:
        RowBatch(rows).arrow.validate(full=True)
        for row in rows:
            shown = sum(part["type"] == "image" for turn in row["messages"] for part in turn["content"])
            assert shown == len(row["images"]) or not row["messages"] or row["rejected"]
            for text in (row["attributes"], row["tools"], *(turn["tool_calls"] for turn in row["messages"])):
                json.loads(text or "0", parse_constant=_no_constant)
    return rows, faults


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
SHOWN = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "red.png"}}]
SOUND: list[dict[str, Any]] = [
    {
        "id": 1,
        "image": "red.png",
        "conversations": [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": "!"}],
    },
    {
        "conversations": [
            {"from": "human", "value": "?"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
            {"from": "observation", "value": ""},
            {"from": "gpt", "value": "!"},
        ],
        "tools": '[{"name": "f"}]',
        "system": "s",
    },
    {
        "messages": [
            {"role": "user", "content": SHOWN},
            {"role": "assistant", "content": None, "tool_calls": CALLS, "weight": 0},
            {"role": "tool", "tool_call_id": "c", "content": "1"},
            {"role": "assistant", "content": "!"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    },
    {"instruction": "?", "input": "x", "output": "!", "system": "s", "history": [["a", "b"]]},
    {"prompt": [{"role": "user", "content": "?"}], "completion": "!", "images": ["red.png"]},
    {"input": "?", "output": "!"},
    {"prompt": "?", "chosen": [{"role": "assistant", "content": "!"}], "rejected": "no", "score": 1.5},
    {"chosen": "a b", "rejected": "a c"},
    {"text": "words", "url": "u"},
]  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, item in items for deeper in _paths(item, (*path, key)))]


words = st.sampled_from(
    [
        *("", " ", "<image>", "<image>\n<image>x", "\ud800", "\0", "human", "assistant", "{", "[1]", "NaN"),
        *("red.png", "../red.png", "/etc/passwd", "http://a/b.png", "data:image/png;base64,AAAA", "data:,"),
        *('{"name": 1}', "é" * 50, "\n\nHuman: a\n\nAssistant: b"),
    ]
)
scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.just(10**400) | words
names = st.sampled_from(
    [
        *("from", "value", "role", "content", "type", "text", "image", "images", "url", "bytes", "function"),
        *("name", "arguments", "tool_calls", "tools", "train", "weight", "system", "parts"),
        *("message_fields", "conversations"),
    ]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_sound_record_with_strange_values(data: st.DataObject) -> None:
    record = copy.deepcopy(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([path for path in _paths(record) if path]))
        holder = record
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = data.draw(values)
    form = data.draw(st.sampled_from([None, *FORMS]))
    lines = data.draw(st.booleans())
    raw = json.dumps(record if lines else [record]).encode()
    outcome = read("a.jsonl" if lines else "a.json", raw, form)
    if not isinstance(outcome, str):
        assert len(outcome[0]) + len(outcome[1]) == 1


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=60) | st.lists(values).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["a.json", "a.jsonl", "a.txt", "a.csv", "a.tsv", "a.parquet"]),
    st.sampled_from([None, *FORMS, AnnotationFormat.TABLE, AnnotationFormat.PARQUET]),
)
def test_files_of_anything(data: bytes, name: str, form: AnnotationFormat | None) -> None:
    read(name, data, form)


def test_deeply_nested_values_are_the_fault_of_their_record() -> None:
    deep = "[" * 600 + "]" * 600
    for extra in (f'"x": {deep}', f'"tools": {json.dumps(deep)}'):
        outcome = read("a.jsonl", f'{{"input": "?", "output": "!", {extra}}}'.encode(), None)
        assert not isinstance(outcome, str)
        assert len(outcome[0]) + len(outcome[1]) == 1


cells = st.text(alphabet='a,;"\n\r\t|=\0é', max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=6), st.sampled_from(",;\t|"))
def test_what_csv_writes_is_read_as_csv_reads_it(rows: list[list[str]], separator: str) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerows([["prompt", "completion"], *rows])
    outcome = read("a.csv", buffer.getvalue().encode(), None)
    if "\0" in buffer.getvalue():
        assert outcome == "TEXT_ENCODING"
        return
    assert not isinstance(outcome, str)
    said = [
        ["".join(part["text"] for part in turn["content"]) for turn in row["messages"]] for row in outcome[0]
    ]
    assert said == [row for row in rows if all(cell.strip() for cell in row)]
    assert len(outcome[0]) + len(outcome[1]) == len(rows)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet='ab,;"\n\r\t|', max_size=60))
def test_any_table_is_read_or_refused(text: str) -> None:
    read("a.csv", ("prompt,completion\n" + text).encode(), None)
    read("a.csv", text.encode(), None, {"text": "a"})


def _parquet() -> bytes:
    sink = io.BytesIO()
    records = [
        {"messages": SOUND[2]["messages"][2:], "images": [{"bytes": png(4, 2), "path": None}], "n": index}
        for index in range(5)
    ]
    pq.write_table(pa.Table.from_pylist(records), sink)
    return sink.getvalue()


PARQUET = _parquet()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(PARQUET) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_parquet_is_read_or_refused(damage: list[tuple[int, int]]) -> None:
    data = bytearray(PARQUET)
    for position, value in damage:
        data[position] = value
    read("a.parquet", bytes(data), AnnotationFormat.PARQUET)


parts = st.lists(
    st.just(IMAGE_PART) | st.text(alphabet="a \n", min_size=1, max_size=4).map(text_part),
    max_size=6,
)


@given(parts)
def test_parts_survive_as_a_text_with_placeholders(content: list[Any]) -> None:
    """Texts side by side become one, as they say the same."""
    joined: list[Any] = []
    for part in content:
        if joined and joined[-1]["type"] == part["type"] == "text":
            joined[-1] = text_part(joined[-1]["text"] + part["text"])
        else:
            joined.append(part)
    assert split_placeholders(join_placeholders(joined)) == joined


@given(
    st.lists(
        st.sampled_from(["a", "b\nc", "\n", PLACEHOLDER, f"{PLACEHOLDER}\n", f"\n{PLACEHOLDER}"]), max_size=6
    )
)
def test_text_within_a_turn_is_kept_to_the_letter(pieces: list[str]) -> None:
    text = "x" + "".join(pieces) + "y"
    assert join_placeholders(split_placeholders(text)) == text
