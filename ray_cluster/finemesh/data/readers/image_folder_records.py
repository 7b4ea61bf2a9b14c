"""The records of metadata.jsonl, metadata.csv and metadata.parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any, Final, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.conversations.records import Record, iter_records
from finemesh.data.readers.encodings import open_text

_MAX_CELL: Final = 16 << 20
_BATCH_ROWS: Final = 256
_ERRORS: Final = (pa.ArrowException, OSError, ValueError, TypeError, OverflowError)


def metadata_records(context: ReadContext, name: str) -> Iterator[Record]:
    """Raises InvalidError (MALFORMED_TABLE, PARQUET_UNREADABLE, FILE_UNREADABLE, and as iter_records)."""
    suffix = name.lower().rpartition(".")[2]
    read = {"csv": _of_csv, "parquet": _of_parquet}.get(suffix, iter_records)
    try:
        yield from read(context, name)
    except RowFault as fault:
        raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault


def _of_csv(context: ReadContext, name: str) -> Iterator[Record]:
    """Cells are texts, but for lists and objects as JSON; an empty cell says nothing."""
    # A limit of the whole process, and of csv alone.
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))
    with open_text(context, name) as file:
        rows = csv.reader(_lines(file, name), strict=True)
        try:
            header = [cell.strip() for cell in next(rows, [])]
            for index, cells in enumerate(cells for cells in rows if cells):
                context.total += 1
                yield _of_cells(index, header, cells)
        except csv.Error as error:
            raise _malformed(name, rows.line_num, str(error)) from error


def _lines(file: TextIO, name: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_CELL + 1):
        number += 1
        if len(line) > _MAX_CELL:
            raise _malformed(name, number, f"it has more than {_MAX_CELL} characters: close its quotes")
        yield line


def _malformed(name: str, line: int, problem: str) -> InvalidError:
    metadata = {"file": name, "line": str(line)}
    return InvalidError(f"{name}, line {line}: {problem}", reason="MALFORMED_TABLE", metadata=metadata)


def _of_cells(index: int, header: list[str], cells: list[str]) -> Record:
    key = f"row {index}"
    if len(cells) != len(header):
        message = f"the row has {len(cells)} cells for {len(header)} columns: quote cells with separators"
        return Record(index, key, fault=RowFault("COLUMN_COUNT", message, key))
    return Record(index, key, {name: _cell(cell) for name, cell in zip(header, cells, strict=True) if cell})


def _cell(cell: str) -> Any:
    if cell[0] in "[{":
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _of_parquet(context: ReadContext, name: str) -> Iterator[Record]:
    index = 0
    try:
        with pq.ParquetFile(context.source.local_path(name)) as file:
            context.total += file.metadata.num_rows
            for batch in file.iter_batches(_BATCH_ROWS):
                for value in batch.to_pylist():
                    yield Record(index, f"row {index}", value)
                    index += 1
    except _ERRORS as error:
        raise InvalidError(
            f"{name} is not a readable Parquet file ({error}): export it again",
            reason="PARQUET_UNREADABLE",
            metadata={"file": name},
        ) from error
