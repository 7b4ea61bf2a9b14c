"""What a manifest counts, against a count by hand, whichever way the rows come."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from finemesh.core.spec.data import ClassCount
from finemesh.data.batches import RowBatch
from finemesh.data.rows import make_object, make_row
from finemesh.data.schema import ROW_SCHEMA
from finemesh.data.statistics import Statistics

# Split of the row, then class and visibility of its objects.
ROWS: list[tuple[str, list[tuple[str | None, bool]]]] = [
    ("train", [("cat", True), ("cat", True), ("dog", False)]),
    ("val", []),
    ("train", [("cat", True), (None, True)]),
    ("val", [("dog", False), ("cat", False)]),
    ("val", [("dog", True), (None, False)]),
]
CLASSES = (
    ClassCount("cat", 4, 3, {"train": 3}, {"train": 2}),
    ClassCount("dog", 3, 1, {"val": 1}, {"val": 1}),
)


def rows() -> list[Any]:
    made: list[Any] = []
    for number, (split, objects) in enumerate(ROWS):
        items = [
            make_object(str(place), name, bbox=[0, 0, 1, 1], visible=visible)
            for place, (name, visible) in enumerate(objects)
        ]
        row: Any = make_row(str(number), source={"file": "f", "key": ""}, pictures=[], objects=items)
        made.append({**row, "split": split})
    return made


@pytest.mark.parametrize("columns", [False, True])
def test_objects_are_counted_by_class_split_and_row(*, columns: bool) -> None:
    # Behind another row, so that the batch is a slice with offsets that do not begin at 0.
    padded = pa.RecordBatch.from_pylist([rows()[0], *rows()], schema=ROW_SCHEMA)
    batch = RowBatch(arrow=padded.slice(1)) if columns else RowBatch(rows())
    counted = Statistics()
    counted.observe(batch)
    assert counted.classes == CLASSES
    assert counted.splits == {"train": 2, "val": 3}
    assert not counted.has_class_names  # two have none
    counted.add(Statistics.from_json(counted.to_json()))
    assert [(item.class_name, item.objects) for item in counted.classes] == [("cat", 8), ("dog", 6)]


def test_columns_without_any_object() -> None:
    empty = [{**row, "objects": []} for row in rows()]
    counted = Statistics()
    counted.observe(RowBatch(arrow=pa.RecordBatch.from_pylist(empty, schema=ROW_SCHEMA)))
    assert counted.rows == len(ROWS)
    assert counted.classes == ()
