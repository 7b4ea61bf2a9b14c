"""Tables, Parquet and plain text, against what `csv`, pyarrow and `datasets` say of the same files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.core.spec.data import AnnotationFormat, ImportOptions
from finemesh.data import import_source, iter_ledger, iter_rows
from finemesh.data.readers import READERS, tables
from finemesh.data.readers.conversations import paragraphs
from finemesh.data.readers.survey import Survey
from finemesh.data.schema import Row
from finemesh.data.sources import open_source

from tests.support.sources import Loaded, load, png, write_files

RED = png(4, 2)
TEXT, TABLE = AnnotationFormat.TEXT, AnnotationFormat.TABLE


def read(folder: Path, content: Any, name: str = "table.csv", /, **columns: str) -> Loaded:
    """Import one file, with pictures beside it."""
    files = {name: content, "red.png": RED}
    source = write_files(folder / "source", files)
    roles = {role.rstrip("_"): column for role, column in columns.items()}
    options = ImportOptions(columns=roles, max_quarantined_fraction=1.0)
    manifest = import_source(source, folder / "out", options, lambda _fraction, _message: None)
    rows = {row["row_id"]: row for row in iter_rows(folder / "out")}
    return Loaded(manifest, rows, [entry for entry in iter_ledger(folder / "out") if entry.reason])


def words(row: Row) -> list[str]:
    return ["".join(part["text"] for part in turn["content"]) for turn in row["messages"]]


CELLS = [
    ["question", "answer", "note"],
    ["What is 1, 2?", 'It is "3";\nor more', "=2+3"],
    ["Größe?", "5 €\tso", "@SUM(A1:A9)"],
    ["", "nothing asked", "+1"],
]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "windows-1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_cells_are_what_csv_reads(separator: str, encoding: str, line_end: str, tmp_path: Path) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator, lineterminator=line_end).writerows(CELLS)
    raw = buffer.getvalue().encode(encoding)
    theirs = list(csv.reader(io.StringIO(raw.decode(encoding), newline=""), delimiter=separator))
    loaded = read(tmp_path, raw, "table.tsv", prompt="question", completion="answer")
    assert [words(row) for row in loaded.rows.values()] == [line[:2] for line in theirs[1:3]]
    notes = [json.loads(row["attributes"])["note"] for row in loaded.rows.values()]
    assert notes == ["=2+3", "@SUM(A1:A9)"], "a formula stays the text that it is"
    assert [(fault.row_id, fault.reason, fault.field) for fault in loaded.faults] == [
        ("table/2", "RECORD_INVALID", "prompt")
    ]
    assert any("Windows-1252" in warning for warning in loaded.manifest.warnings) == (
        encoding == "windows-1252"
    )


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"instruction": "b", "input": "c", "output": "d", "system": "a"}, ["1", "2\n3", "4"]),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, ["1", "2"]),
        ({"input": "d", "output": "a"}, ["4", "1"]),
    ],
)
def test_roles_choose_the_form(columns: dict[str, str], expected: list[str], tmp_path: Path) -> None:
    [row] = read(tmp_path, "a,b,c,d\n1,2,3,4\n", **columns).rows.values()
    assert words(row) == expected
    assert [turn["role"] for turn in row["rejected"]] == (["assistant"] if "chosen" in columns else [])


def test_pictures_captions_classes_and_texts(tmp_path: Path) -> None:
    [row] = read(tmp_path / "1", "file,label\nred.png, plum\n", image="file", class_="label").rows.values()
    assert (row["class_name"], row["images"][0]["data"], row["messages"]) == ("plum", RED, [])
    [row] = read(tmp_path / "2", "image,text\nred.png,a plum\n").rows.values()
    assert (row["captions"], row["text"], len(row["images"])) == (["a plum"], None, 1)
    [row] = read(tmp_path / "3", "text,source\nOnce upon a time,book\n").rows.values()
    assert (row["text"], json.loads(row["attributes"])) == ("Once upon a time", {"source": "book"})


def test_faulty_lines_cost_themselves(tmp_path: Path) -> None:
    table = 'sep=;\nprompt;completion\n1;2\n\n3\n"4"5;6\n"7;\n8";9\n"10;11'
    loaded = read(tmp_path, table)
    assert [words(row) for row in loaded.rows.values()] == [["1", "2"], ["7;\n8", "9"]]
    assert [(fault.reason, fault.field) for fault in loaded.faults] == [
        ("COLUMN_COUNT", "line 5"),
        ("MALFORMED_TABLE", "line 6"),
        ("MALFORMED_TABLE", "line 9"),
    ]


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_ROW", 1000)
    with pytest.raises(InvalidError) as error:
        read(tmp_path, 'prompt,completion\n"1,2\n' + "3,4\n" * 1000)
    assert error.value.reason == "MALFORMED_TABLE"
    assert "close its quotes" in error.value.message


@pytest.mark.parametrize(
    ("table", "columns", "reason", "said"),
    [
        ("a,b\n1,2\n", {}, "INVALID_COLUMNS", "'a', 'b'"),
        ("a,b\n1,2\n", {"prompt": "c", "completion": "b"}, "INVALID_COLUMNS", "'c'"),
        ("a,b\n1,2\n", {"question": "a"}, "INVALID_COLUMNS", "is no role"),
        ("a,b\n1,2\n", {"prompt": "a", "completion": "a"}, "INVALID_COLUMNS", "one role"),
        ("a,a\n1,2\n", {"text": "a"}, "INVALID_COLUMNS", "twice"),
        (",,\n1,2,3\n", {}, "MALFORMED_TABLE", "no names"),
        ("\0prompt", {}, "TEXT_ENCODING", "UTF-8"),
    ],
)
def test_tables_that_tell_nothing_are_refused(
    table: str, columns: dict[str, str], reason: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidError) as error:
        read(tmp_path, table, **columns)
    assert error.value.reason == reason
    assert said in error.value.message
    assert not (tmp_path / "out").exists()


def parquet(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    return sink.getvalue()


MESSAGES = [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "3"}]
TURNS = [{"from": "human", "value": "Add."}, {"from": "gpt", "value": "3"}]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": MESSAGES, "n": 7}, ["Add.", "3"]),
        (
            {"conversations": [{"from": "human", "value": "Add."}, {"from": "gpt", "value": "3"}]},
            ["Add.", "3"],
        ),
        ({"prompt": "Add.", "chosen": "3", "rejected": "4"}, ["Add.", "3"]),
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, ["Add.", "3"]),
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, ["Add.\n1, 2", "3"]),
    ],
)
def test_parquet_columns_tell_the_form(record: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    raw = parquet([record] * 40)
    assert pq.read_table(io.BytesIO(raw)).num_rows == 40
    loaded = read(tmp_path, raw, "data.parquet")
    assert loaded.manifest.options["format"] == "parquet"
    assert [words(row) for row in loaded.rows.values()] == [expected] * 40


def test_parquet_of_datasets_keeps_pictures_and_class_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["plum", "pear"])}
    )
    made = datasets.Dataset.from_dict(
        {"image": [{"bytes": RED, "path": "x/red.png"}] * 2, "label": [1, 0]}, features=features
    )
    path = tmp_path / "made.parquet"
    datasets.disable_progress_bars()
    made.to_parquet(str(path))
    loaded = read(tmp_path, path.read_bytes(), "data.parquet")
    assert [row["class_name"] for row in loaded.rows.values()] == ["pear", "plum"]
    assert [row["images"][0]["data"] for row in loaded.rows.values()] == [RED, RED]


@pytest.mark.parametrize("side_by_side", [True, False])
def test_parquet_of_datasets_keeps_the_objects_of_pictures(side_by_side: bool, tmp_path: Path) -> None:
    import datasets

    of_one = {"bbox": datasets.List(datasets.Value("float32"), length=4)}
    of_one["category"] = datasets.ClassLabel(names=["plum", "pear"])  # pyright: ignore[reportArgumentType]
    kind = (
        {key: datasets.List(each) for key, each in of_one.items()} if side_by_side else datasets.List(of_one)
    )
    boxes, classes = [[0, 0, 2, 1], [1, 1, 1, 1]], [1, 0]
    told: Any = {"bbox": boxes, "category": classes}
    if not side_by_side:
        told = [{"bbox": box, "category": number} for box, number in zip(boxes, classes, strict=True)]
    made = datasets.Dataset.from_dict(
        {"image": [{"bytes": RED, "path": "x/red.png"}], "objects": [told]},
        features=datasets.Features({"image": datasets.Image(), "objects": kind}),
    )
    datasets.disable_progress_bars()
    made.to_parquet(str(tmp_path / "made.parquet"))
    [row] = read(tmp_path, (tmp_path / "made.parquet").read_bytes(), "data.parquet").rows.values()
    assert [(item["class_name"], item["bbox"]) for item in row["objects"]] == [
        ("pear", [0, 0, 2, 1]),
        ("plum", [1, 1, 1, 1]),
    ]


def test_parquet_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    table = pa.table({"text": [letter * (22 << 20) for letter in "abc"]})
    pq.write_table(table, sink, compression="zstd")
    assert len(sink.getvalue()) < 1 << 20
    with pytest.raises(InvalidError) as error:
        read(tmp_path, sink.getvalue(), "data.parquet")
    assert error.value.reason == "ARCHIVE_BOMB"


def test_parquet_that_is_none_or_tells_nothing(tmp_path: Path) -> None:
    for number, (raw, reason) in enumerate(
        [(b"PAR1 no more PAR1", "PARQUET_UNREADABLE"), (parquet([{"a": 1}]), "INVALID_COLUMNS")]
    ):
        with pytest.raises(FinemeshError) as error:
            read(tmp_path / str(number), raw, "data.parquet")
        assert error.value.reason == reason


def test_paragraphs_are_rows_and_agree_with_datasets(tmp_path: Path) -> None:
    import datasets

    text = "\n\nOne line.\n  And more.\n\n\nTwo:\n- a\n\n\nThree"
    loaded = load(tmp_path, {"book.txt": text, "README.txt": "about"})
    datasets.disable_progress_bars()
    theirs: Any = datasets.load_dataset(
        "text",
        data_files=str(tmp_path / "source/book.txt"),
        sample_by="paragraph",
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    ours = [row["text"] for row in loaded.rows.values()]
    assert ours == [each["text"].strip("\n") for each in theirs if each["text"].strip()]
    assert [row["source"]["key"] for row in loaded.rows.values()] == ["line 3", "line 7", "line 11"]


def test_texts_in_json_and_long_paragraphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(tmp_path / "json", {"a.jsonl": '{"text": "Once", "url": "u"}\n{"text": " "}'})
    assert loaded.rows["a/0"]["text"] == "Once"
    assert [fault.reason for fault in loaded.faults] == ["EMPTY_TEXT"]
    monkeypatch.setattr(paragraphs, "MAX_PARAGRAPH", 50)
    loaded = load(tmp_path / "text", {"a.txt": "short\n\n" + "long " * 40 + "\nlong\n\nshort"})
    assert [fault.reason for fault in loaded.faults] == ["RECORD_TOO_LARGE"]
    assert len(loaded.rows) == 2


def test_labels_of_numbers_and_metadata_are_no_text(tmp_path: Path) -> None:
    metadata = {"metadata.jsonl": '{"file_name": "red.png", "text": "a plum"}', "metadata.csv": "text\na"}
    for number, files in enumerate([{"a.txt": "0 0.5 0.5 0.1 0.1\n"}, {**metadata, "red.png": RED}]):
        with open_source(write_files(tmp_path / str(number), files), ImportOptions()) as source:
            survey = Survey(source)
            assert [READERS[form].detect(survey) for form in (TEXT, TABLE)] == [None, None]
