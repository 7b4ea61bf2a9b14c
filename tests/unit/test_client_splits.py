"""What the command line reads for a split, and how it shows one."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from finemesh.client.cli.splits import class_table, leakage_text, read_assignments
from finemesh.v1 import dataset_pb2

Count = dataset_pb2.ClassSplitCount
WANTED = {"a b.jpg": "train", "c,d.jpg": "val", "*": "gap"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lists.csv", 'a b.jpg,train\n"c,d.jpg",val\n*,gap\n'),
        ("lists.csv", '\ufeffname,split\r\na b.jpg, train\r\n\r\n"c,d.jpg",val\r\n*,gap'),
        ("lists.tsv", "a b.jpg\ttrain\nc,d.jpg\tval\n*\tgap\n"),
        ("lists.json", '{"a b.jpg": "train", "c,d.jpg": "val", "*": "gap"}'),
        ("lists.json", '{"train": ["a b.jpg"], "val": ["c,d.jpg"], "gap": ["*"]}'),
    ],
)
def test_lists_of_names_in_all_their_forms(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, newline="")
    assert read_assignments(tmp_path / name) == WANTED


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("lists.csv", b"a,train\na,test\n", "line 2: 'a' is in train and in test"),
        ("lists.csv", b"a,train\nb\n", "line 2: 1 columns"),
        ("lists.csv", b"name,split\n", "names nothing"),
        ("lists.csv", b"a,\xff\n", "cannot be read"),
        ("lists.json", b'{"a": 1}', "'a' is neither"),
        ("lists.json", b"[]", "write an object"),
        ("lists.json", b"{", "is not JSON"),
    ],
)
def test_lists_that_say_nothing_clear_are_refused(tmp_path: Path, name: str, text: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(typer.BadParameter, match=told):
        read_assignments(tmp_path / name)


def test_class_table_keeps_classes_of_objects_and_of_rows_apart() -> None:
    shown = class_table(
        [
            Count(class_name="dog", split="train", objects=6, rows=3),
            Count(class_name="dog", split="test", objects=2, rows=2),
            Count(class_name="dog", split="test", rows=7),
        ]
    )
    assert shown is not None
    cells = [list(column.cells) for column in shown.columns]
    assert [column.header for column in shown.columns] == ["class", "objects in rows", "train", "test"]
    assert list(zip(*cells, strict=True)) == [
        ("dog", "8 in 5", "6 in 3  75.0%", "2 in 2  25.0%"),
        ("dog", "7 rows", "0 rows  0.0%", "7 rows  100.0%"),
    ]
    assert class_table([]) is None


def test_leakage_says_what_it_is_made_of() -> None:
    shares = dataset_pb2.LeakageShares(by_image=0.25, by_similar=0.5)
    summary = dataset_pb2.DatasetSummary(leakage=0.5, leakage_shares=shares)
    assert leakage_text(summary) == "0.5000 (by video 0.0000, same picture 0.2500, similar picture 0.5000)"
    summary.leakage_shares.ClearField("by_similar")
    assert leakage_text(summary).endswith("similar picture not compared)")
    assert not leakage_text(dataset_pb2.DatasetSummary())
