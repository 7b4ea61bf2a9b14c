"""The records of a JSON list or of JSON Lines, one by one, in bounded memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.jsonstream import iter_pieces, loads
from finemesh.data.readers.context import ReadContext

MAX_LINE_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """What stands at one place of a file.

    Attributes:
        index: from 0; blank lines do not count.
        key: the place, for people and for the row's source.
        value: any JSON value.
        fault: why there is no value.
    """

    index: int
    key: str
    value: Any = None
    fault: RowFault | None = None


class _Metered:
    """A stream that counts what was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        self.bytes += len(chunk)
        return chunk

    def readline(self, size: int = -1) -> bytes:
        line = self._stream.readline(size)
        self.bytes += len(line)
        return line


def iter_records(context: ReadContext, name: str) -> Iterator[Record]:
    """The records of a file. Keeps `context.total` at what the file seems to hold.

    Raises:
        InvalidError: the file is no JSON, or neither a list nor lines (MALFORMED_JSON,
            MALFORMED_ANNOTATIONS, JSON_TOO_LARGE, FILE_UNREADABLE). A single line that is no JSON is the
            fault of its record.
    """
    before, size = context.total, max(context.source.size(name), 1)
    try:
        with context.source.open(name) as stream:
            metered = _Metered(stream)
            lines = context.survey.is_json_lines(name)
            for record in _lines(metered) if lines else _elements(metered, name):
                context.total = before + int((record.index + 1) * size / max(metered.bytes, 1))
                yield record
    except RowFault as fault:
        raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault


def _elements(stream: Any, name: str) -> Iterator[Record]:
    for piece in iter_pieces(stream, name):
        if piece.key or piece.first < 0:
            raise malformed_annotations(name, "the top", "is not a list of records, nor one record a line")
        for index, value in enumerate(piece.values, piece.first):
            yield Record(index, f"[{index}]", value)


def _lines(stream: _Metered) -> Iterator[Record]:
    index = number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        key = f"line {number}"
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            fault = RowFault("RECORD_TOO_LARGE", f"the line has more than {MAX_LINE_BYTES} bytes", key)
            yield Record(index, key, fault=fault)
        elif text := line.strip():
            yield _line(index, key, text)
        else:
            continue
        index += 1


def _line(index: int, key: str, line: bytes) -> Record:
    try:
        return Record(index, key, loads(line.removeprefix(codecs.BOM_UTF8), key))
    except InvalidError as error:
        return Record(index, key, fault=RowFault(error.reason, error.message, key))
