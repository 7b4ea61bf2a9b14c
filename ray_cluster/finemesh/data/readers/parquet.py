"""Parquet files whose columns are the fields of one of the forms of instruction data, pictures and classes.

Pictures are structs of `bytes` and `path`, or bytes, or names; classes are names, or numbers of a ClassLabel.
Source: datasets, features/image.py and features/features.py; the features stand in the schema's metadata
under the key `huggingface`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.readers.columns import CLASS, Layout, lay_out
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.conversations.files import Builder
from finemesh.data.readers.conversations.records import Record
from finemesh.data.readers.image_folder_objects import OBJECTS, class_names_of, name_classes
from finemesh.data.readers.short_names import short_names
from finemesh.data.readers.survey import Survey
from finemesh.data.readers.tables import table_files
from finemesh.data.rows import Candidate

_BATCH_ROWS: Final = 32
_BATCH_BYTES: Final = 256 << 20
_RATIO_FLOOR_BYTES: Final = 64 << 20  # below it a high ratio does no harm
_ERRORS: Final = (pa.ArrowException, OSError, ValueError, TypeError, OverflowError)


def detect(survey: Survey) -> str | None:
    return next(iter(table_files(survey, ".parquet")), None)


def read(context: ReadContext) -> Iterator[Candidate]:
    """A candidate for each row of each Parquet file whose columns tell a form.

    Raises:
        InvalidError: INVALID_COLUMNS (see lay_out) if no file's do; PARQUET_UNREADABLE; ARCHIVE_BOMB;
            NO_SUCH_RECORDS without any file.
    """
    names = table_files(context.survey, ".parquet")
    if not names:
        message = "the source holds no .parquet file: name the format that it is in"
        raise InvalidError(message, reason="NO_SUCH_RECORDS")
    refusals: list[InvalidError] = []
    for name, prefix in short_names(names).items():
        with _open(context, name) as file:
            try:
                columns = _Columns(name, file.schema_arrow, context.options.columns)
            except InvalidError as error:
                context.warn(f"{name} was not read: {error.message}")
                refusals.append(error)
                continue
            rows = _batch_rows(context, name, file.metadata)
            context.total += file.metadata.num_rows
            builder = Builder(context, columns.layout.form)
            for record in _records(file, name, columns, rows):
                yield builder.candidate(name, prefix, record)
    if len(refusals) == len(names):
        raise refusals[0]


def _open(context: ReadContext, name: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(context.source.local_path(name))
        file.schema_arrow  # noqa: B018 - a damaged schema shows when it is looked at
        return file
    except RowFault as fault:
        raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault
    except _ERRORS as error:
        raise _unreadable(name, error) from error


class _Columns:
    """The columns of one file, and the names of its classes where they are numbered."""

    def __init__(self, name: str, schema: pa.Schema, chosen: Mapping[str, str]) -> None:
        features = _features(schema)
        labels = _label_names(features)
        if CLASS not in {*schema.names, *chosen} and len(labels) == 1:
            chosen = {**chosen, CLASS: next(iter(labels))}
        lists = frozenset(
            field.name
            for field in schema
            if pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
        )
        self.layout: Layout = lay_out(name, schema.names, chosen, lists)
        self._classes = labels.get(chosen.get(CLASS, CLASS), [])
        self._object_classes = class_names_of(features.get(OBJECTS))

    def record(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        record = dict(zip(self.layout.names, cells.values(), strict=True))
        number = record.get(CLASS)
        if isinstance(number, int) and not isinstance(number, bool):
            known = 0 <= number < len(self._classes)
            record[CLASS] = self._classes[number] if known else str(number)
        if self._object_classes and OBJECTS in record:
            record[OBJECTS] = name_classes(record[OBJECTS], self._object_classes)
        return record


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What `datasets` states of the columns, as JSON."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {column: feature for column, feature in features.items() if column in schema.names}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _label_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of the classes, by column."""
    return {
        column: [str(name) for name in feature["names"]]
        for column, feature in features.items()
        if isinstance(feature, dict)
        and feature.get("_type") == "ClassLabel"
        and isinstance(feature.get("names"), list)
    }


def _batch_rows(context: ReadContext, name: str, metadata: pq.FileMetaData) -> int:
    """How many rows to hold at a time: fewer where one value may be large, as a dictionary repeats values
    without saying so. Raises InvalidError (ARCHIVE_BOMB) for a file that unpacks to far more than it is.
    """
    options = context.options
    try:
        # Not by column: looking at a damaged column's metadata ends the process inside Arrow.
        sizes = [metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)]
    except _ERRORS as error:
        raise _unreadable(name, error) from error
    packed, total = context.source.size(name), sum(sizes)
    if total > options.max_total_bytes or total > max(_RATIO_FLOOR_BYTES, options.max_ratio * packed):
        message = (
            f"{name} of {packed} bytes unpacks to {total}: if it is yours, raise max_ratio, max_total_bytes"
        )
        raise InvalidError(message, reason="ARCHIVE_BOMB", metadata={"file": name})
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max([1, *sizes])))


def _records(file: pq.ParquetFile, name: str, columns: _Columns, rows: int) -> Iterator[Record]:
    index = 0
    try:
        for batch in file.iter_batches(rows):
            for row in range(batch.num_rows):
                yield _record(batch, row, index, columns)
                index += 1
    except _ERRORS as error:
        raise _unreadable(name, error) from error


def _record(batch: pa.RecordBatch, row: int, index: int, columns: _Columns) -> Record:
    key = f"row {index}"
    try:
        [cells] = batch.slice(row, 1).to_pylist()
    except _ERRORS as error:
        fault = RowFault("RECORD_INVALID", f"a cell cannot be read: {error}", key)
        return Record(index, key, fault=fault)
    return Record(index, key, columns.record(cells))


def _unreadable(name: str, error: Exception) -> InvalidError:
    return InvalidError(
        f"{name} is not a readable Parquet file ({error}): export it again",
        reason="PARQUET_UNREADABLE",
        metadata={"file": name},
    )
