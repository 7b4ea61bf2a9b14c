"""Tables as text: CSV and TSV with a line of column names. Cells are texts; a formula is not computed.

Source: RFC 4180; other separators are told by the first line, or by the `sep=` that Excel writes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Self, TextIO

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.readers.columns import lay_out
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.conversations.files import Builder
from finemesh.data.readers.conversations.records import Record
from finemesh.data.readers.encodings import open_text
from finemesh.data.readers.short_names import short_names
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate

SUFFIXES: Final = (".csv", ".tsv")
MAX_CELL: Final = 16 << 20
MAX_ROW: Final = 64 << 20
"""Characters."""
_LOOK: Final = 1 << 16  # characters of the first line that tell the separator
_SEPARATORS: Final = (",", ";", "\t", "|")
_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')
_STATED: Final = re.compile(r"sep=(.)\r?\n?$", re.IGNORECASE)


def detect(survey: Survey) -> str | None:
    return next(iter(table_files(survey, *SUFFIXES)), None)


def table_files(survey: Survey, *suffixes: str) -> list[str]:
    """Tables by their suffix, without those that tell about the pictures of a folder."""
    return [name for name in survey.with_suffix(*suffixes) if PurePosixPath(name).stem.lower() != "metadata"]


def read(context: ReadContext) -> Iterator[Candidate]:
    """A candidate for each row of each table.

    Raises:
        InvalidError: INVALID_COLUMNS (see lay_out), MALFORMED_TABLE, TEXT_ENCODING, FILE_UNREADABLE, or
            NO_SUCH_RECORDS without any table.
    """
    names = table_files(context.survey, *SUFFIXES)
    if not names:
        message = "the source holds no .csv or .tsv file: name the format that it is in"
        raise InvalidError(message, reason="NO_SUCH_RECORDS")
    # A limit of the whole process, and of csv alone; the default of 128 KiB is too short for a conversation.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    for name, prefix in short_names(names).items():
        try:
            with open_text(context, name) as file:
                yield from _read_table(context, name, prefix, file)
        except RowFault as fault:
            raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault


def _read_table(context: ReadContext, name: str, prefix: str, file: TextIO) -> Iterator[Candidate]:
    lines = _Lines(file, name)
    first = lines.peek()
    if stated := _STATED.match(first):
        next(lines)
        first = lines.peek()
    separator = stated.group(1) if stated else _separator(first)
    rows = csv.reader(lines, delimiter=separator, strict=True)
    header = _header(rows, lines, name)
    layout = lay_out(name, header, context.options.columns)
    builder = Builder(context, layout.form)
    for record in _records(rows, lines, layout.names):
        context.total = max(context.total, record.index + 1)
        yield builder.candidate(name, prefix, record)


def _separator(line: str) -> str:
    bare = _QUOTED.sub("", line[:_LOOK])
    return max(_SEPARATORS, key=bare.count)


def _header(rows: Any, lines: _Lines, name: str) -> list[str]:
    try:
        header = [cell.strip() for cell in next(rows, [])]
    except csv.Error as error:
        raise malformed_table(name, 1, str(error)) from error
    lines.begin_row()
    if not any(header):
        raise malformed_table(name, 1, "there are no names of columns in the first line")
    return header


def _records(rows: Any, lines: _Lines, names: tuple[str, ...]) -> Iterator[Record]:
    index = 0
    while True:
        key = f"line {lines.number + 1}"
        try:
            cells = next(rows, None)
        except csv.Error as error:
            fault = RowFault("MALFORMED_TABLE", f"the row cannot be read: {error}", key)
            yield Record(index, key, fault=fault)
            index += 1
            continue
        finally:
            lines.begin_row()
        if cells is None:
            return
        if cells:
            yield _record(index, key, cells, names)
            index += 1


def _record(index: int, key: str, cells: list[str], names: tuple[str, ...]) -> Record:
    if len(cells) != len(names):
        message = f"the row has {len(cells)} cells for {len(names)} columns: quote cells with separators"
        return Record(index, key, fault=RowFault("COLUMN_COUNT", message, key))
    # An empty cell says nothing, not even that it is a text.
    return Record(index, key, {name: cell or None for name, cell in zip(names, cells, strict=True)})


@dataclass(slots=True)
class _Lines:
    """Lines for `csv`, which joins those of a quoted cell without limit. `number` of the last one, from 1."""

    file: TextIO
    name: str
    number: int = 0
    used: int = 0
    ahead: str | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self.peek()
        self.ahead = None
        if not line:
            raise StopIteration
        self.number += 1
        self.used += len(line)
        if self.used > MAX_ROW or len(line) > MAX_CELL:
            problem = f"a row has more than {MAX_ROW} characters, or a line {MAX_CELL}: close its quotes"
            raise malformed_table(self.name, self.number, problem)
        return line

    def peek(self) -> str:
        """The next line, "" at the end."""
        if self.ahead is None:
            self.ahead = self.file.readline(MAX_CELL + 1)
        return self.ahead

    def begin_row(self) -> None:
        self.used = 0


def malformed_table(name: str, line: int, problem: str) -> InvalidError:
    return InvalidError(
        f"{name}, line {line}: {problem}",
        reason="MALFORMED_TABLE",
        metadata={"file": name, "line": str(line)},
    )
