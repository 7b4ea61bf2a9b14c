"""Folders of pictures, with metadata or a folder per class, as `datasets` itself reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat

from tests.support.sources import Files, load, png, write_files

OBJECTS = {
    "bbox": [[1.0, 2.0, 30.0, 20.0], [5.0, 5.0, 4.0, 4.0]],
    "categories": ["cat", "dog"],
    "hard": [True, False],
}
RECORDS: list[dict[str, Any]] = [
    {"file_name": "a.png", "text": "a cat and a dog", "objects": OBJECTS, "licence": "free"},
    {
        "file_name": "deep/b.png",
        "text": "nothing",
        "objects": {"bbox": [], "categories": [], "hard": []},
        "licence": "x",
    },
]


def lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def peer(folder: Path, files: Files) -> Any:
    write_files(folder / "peer", files)
    return load_dataset("imagefolder", data_dir=str(folder / "peer"), cache_dir=str(folder / "cache"))


def test_captions_objects_and_splits_are_those_that_datasets_reads(tmp_path: Path) -> None:
    files: Files = {
        "train/metadata.jsonl": lines(RECORDS),
        "train/a.png": png(),
        "train/deep/b.png": png(64, 32),
        "validation/metadata.jsonl": lines([{**RECORDS[0], "text": "other"}]),
        "validation/a.png": png(value=1),
        "README.md": "# pictures",
    }
    theirs = peer(tmp_path, files)
    loaded = load(tmp_path, files)
    assert loaded.manifest.options["format"] == AnnotationFormat.IMAGE_FOLDER
    for split, name in (("train", "train"), ("val", "validation")):
        rows = [row for row in loaded.rows.values() if row["split"] == split]
        assert len(rows) == len(theirs[name])
        for row, stated in zip(rows, theirs[name], strict=True):
            assert row["captions"] == [stated["text"]]
            assert (row["images"][0]["width"], row["images"][0]["height"]) == stated["image"].size
            assert [item["bbox"] for item in row["objects"]] == stated["objects"]["bbox"]
            assert [item["class_name"] for item in row["objects"]] == stated["objects"]["categories"]
            hard = [json.loads(item["attributes"])["hard"] for item in row["objects"]]
            assert hard == stated["objects"]["hard"]
            assert json.loads(row["attributes"]) == {"licence": stated["licence"]}


def test_a_folder_per_class_is_what_datasets_makes_of_it(tmp_path: Path) -> None:
    names = ["train/cat/1.png", "train/cat/2.png", "train/dog/3.png", "test/cat/4.png", "test/dog/5.png"]
    files = {name: png(value=index) for index, name in enumerate(names)}
    theirs = peer(tmp_path, files)
    loaded = load(tmp_path, files)
    for split in ("train", "test"):
        label = theirs[split].features["label"]
        stated = sorted(label.int2str(number) for number in theirs[split]["label"])
        assert (
            sorted(row["class_name"] or "" for row in loaded.rows.values() if row["split"] == split) == stated
        )
    assert not any("no class names" in warning for warning in loaded.manifest.warnings)


def test_folders_that_tell_no_classes_give_none(tmp_path: Path) -> None:
    for number, names in enumerate(
        (["a.png", "b.png"], ["x/a.png", "x/y/b.png"], ["train/a.png", "test/b.png"])
    ):
        loaded = load(tmp_path / str(number), {name: png() for name in names})
        assert [row["class_name"] for row in loaded.rows.values()] == [None, None]
        assert any("name no classes" in warning for warning in loaded.manifest.warnings)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_metadata_as_a_table(kind: str, tmp_path: Path) -> None:
    records = [{"file_name": "a.png", "caption": 'one, "two"', "label": "cat", "objects": OBJECTS}]
    if kind == "parquet":
        path = tmp_path / "metadata.parquet"
        pq.write_table(pa.Table.from_pylist(records), path)
        metadata: Any = path.read_bytes()
    else:
        cell = json.dumps(OBJECTS).replace('"', '""')
        metadata = f'file_name,caption,label,objects\na.png,"one, ""two""",cat,"{cell}"\n'
    (row,) = load(tmp_path, {f"metadata.{kind}": metadata, "a.png": png()}).rows.values()
    assert (row["captions"], row["class_name"]) == (['one, "two"'], "cat")
    assert [item["bbox"] for item in row["objects"]] == OBJECTS["bbox"]


def test_several_pictures_of_one_record_keep_their_order(tmp_path: Path) -> None:
    records = [
        {"file_names": ["b.png", "a.png"], "text": "two"},
        {"before_file_name": "a.png", "after_file_name": "b.png"},
    ]
    files = {"metadata.jsonl": lines(records), "a.png": png(), "b.png": png(7, 7), "c.png": png()}
    loaded = load(tmp_path, files)
    assert [[image["name"] for image in row["images"]] for row in loaded.rows.values()] == [
        ["b.png", "a.png"],
        ["a.png", "b.png"],
    ]
    assert loaded.manifest.warnings[0] == "1 pictures, such as c.png, are in no metadata file: left out"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"file_name": "gone.png"}, "IMAGE_MISSING"),
        ({"text": "no name"}, "NO_IMAGE"),
        ({"file_name": 7}, "NO_IMAGE"),
        (["a.png"], "RECORD_INVALID"),
        ({"file_name": "a.png", "objects": 7}, "OBJECTS_INVALID"),
        ({"file_name": "a.png", "objects": {"bbox": [[1, 1, 1, 1]], "categories": []}}, "OBJECTS_INVALID"),
        ({"file_name": "a.png", "objects": [{"bbox": [1, 1, -1, 1]}]}, "BBOX_INVALID"),
        ({"file_name": "a.png", "label": " "}, "EMPTY_CLASS_NAME"),
        ({"file_name": "a.png", "text": "\ud800"}, "TEXT_INVALID"),
    ],
)
def test_a_faulty_record_is_put_aside(record: Any, reason: str, tmp_path: Path) -> None:
    text = lines([{"file_name": "a.png"}, record])
    loaded = load(tmp_path, {"metadata.jsonl": text, "a.png": png()})
    assert [(entry.row_id, entry.reason) for entry in loaded.faults] == [("metadata/1", reason)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("metadata.csv", 'file_name,text\na.png,"open', "MALFORMED_TABLE"),
        ("metadata.parquet", b"PAR1", "PARQUET_UNREADABLE"),
    ],
)
def test_metadata_that_cannot_be_read_ends_the_import(
    name: str, content: Any, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidError) as caught:
        load(tmp_path, {name: content, "a.png": png()})
    assert caught.value.reason == reason
