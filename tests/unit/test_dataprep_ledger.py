"""Questions to a ledger: a text is found by itself and nothing else, in the input's order, page by page."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from finemesh.chassis.objects import upload_directory
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.dataprep.files import ObjectFiles
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.memory_object_store import MemoryObjectStore

DATASET = Name("p", "datasets", "d")
ids = st.lists(st.text("a%_'\"\\; -ä:*()", min_size=1, max_size=6), min_size=1, max_size=12, unique=True)


async def ledger_of(row_ids: list[str], parts: int) -> ObjectFiles:
    """The files of a dataset whose ledger has these rows, every second one set aside."""
    objects = MemoryObjectStore()
    with TemporaryDirectory() as folder:
        (Path(folder) / "ledger").mkdir()
        for number in range(parts):
            own = range(len(row_ids) * number // parts, len(row_ids) * (number + 1) // parts)
            values = {
                "row_id": [row_ids[i] for i in own],
                "disposition": ["quarantined" if i % 2 else "kept" for i in own],
                "reason": ["WRONG" if i % 2 else "" for i in own],
                "message": [""] * len(own),
                "field": [""] * len(own),
                "children": [[] for _ in own],
            }
            kinds = pa.schema([(name, pa.string()) for name in list(values)[:-1]])
            schema = kinds.append(pa.field("children", pa.list_(pa.string())))
            pq.write_table(pa.table(values, schema), Path(folder) / f"ledger/part-{number:05d}.parquet")
        await upload_directory(objects, Path(folder), str(DATASET))
    return ObjectFiles(objects)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@settings(max_examples=25, deadline=None)
@given(ids, st.integers(1, 3), st.integers(1, 5))
async def test_pages_are_the_ledger_in_its_order(row_ids: list[str], parts: int, size: int) -> None:
    files = await ledger_of(row_ids, parts)
    found: list[str] = []
    token = ""
    while True:
        rows, token = await files.ledger(DATASET, PageRequest(size, token, ""))
        assert len(rows) <= size
        found += [row["row_id"] for row in rows]
        if not token:
            break
    assert found == row_ids


@settings(max_examples=25, deadline=None)
@given(ids, st.data())
async def test_a_row_is_found_by_its_id_alone(row_ids: list[str], data: st.DataObject) -> None:
    files = await ledger_of(row_ids, 1)
    wanted = data.draw(st.sampled_from(row_ids))
    rows, _ = await files.ledger(DATASET, PageRequest(100, "", f"row_id = {quoted(wanted)}"))
    assert [row["row_id"] for row in rows] == [wanted]


async def test_disposition_and_reason_together() -> None:
    row_ids = [f"r{index}" for index in range(20)]
    files = await ledger_of(row_ids, 2)
    both = 'disposition = "QUARANTINED" AND reason = "WRONG"'
    rows, _ = await files.ledger(DATASET, PageRequest(100, "", both))
    assert [row["row_id"] for row in rows] == row_ids[1::2]
    rows, _ = await files.ledger(DATASET, PageRequest(100, "", 'disposition = "DROPPED"'))
    assert not rows
