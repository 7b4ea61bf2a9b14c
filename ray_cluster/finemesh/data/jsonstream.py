"""Large JSON files, element by element, in memory that does not grow with the file.

A file is read in chunks. One numpy pass over a chunk finds the brackets that lie outside strings, and so
where the elements of the lists begin and end; only whole elements are handed to the JSON parser, many at a
time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt
import orjson

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.jsonio import malformed_json, parse_json

CHUNK_BYTES: Final = 1 << 18
MAX_VALUE_BYTES: Final = 256 << 20
"""Of one element, or of a value that is not a list: they are held whole."""

_QUOTE, _BACKSLASH, _OPEN, _CLOSE = 1, 2, 3, 4
_KINDS: Final = np.zeros(256, dtype=np.uint8)
_KINDS[[ord('"'), ord("\\")]] = _QUOTE, _BACKSLASH
_KINDS[[ord("{"), ord("[")]] = _OPEN
_KINDS[[ord("}"), ord("]")]] = _CLOSE
_BLANKS: Final = re.compile(rb"[ \t\r\n]*")
_SCALAR: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[^\s,:{}\[\]"]++', re.DOTALL)

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the value of one key.

    Attributes:
        key: of the object at the top; "" where the top is a list.
        first: index of the first of `values` in the list; -1 for a value that is not a list.
        values: elements of the list, one after the other; or the one value.
    """

    key: str
    first: int
    values: list[Any]


def iter_pieces(stream: BinaryIO, name: str, *, skip: Collection[str] = ()) -> Iterator[Piece]:
    """The value at the top, in pieces, in the order of the file. An empty list gives one piece without
    values. Lists under the keys in `skip`, which may change between pieces, are passed over without parsing
    their elements.

    Raises:
        InvalidError: MALFORMED_JSON with the byte; JSON_TOO_LARGE for a value beyond MAX_VALUE_BYTES;
            FILE_UNREADABLE.
    """
    yield from _Scanner(stream, name, skip).pieces()


def loads(raw: bytes, name: str, base: int = 0) -> Any:
    """The value of a JSON text that begins at byte `base` of a file; whole numbers beyond 64 bits become
    floating ones. Raises InvalidError (MALFORMED_JSON).
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        # What orjson refuses and the standard library reads: NaN, and numbers beyond 64 bits.
        return parse_json(raw, name, base)


class _Scanner:
    """What is not consumed yet begins at `_at` in `_buffer`, whose first byte is byte `_base` of the file.
    `_closings` are the positions in the buffer of brackets that close something, `_depths` what they leave
    open.
    """

    def __init__(self, stream: BinaryIO, name: str, skip: Collection[str]) -> None:
        self._stream, self._name, self._skip = stream, name, skip
        self._buffer = b""
        self._base = self._at = self._depth = 0
        self._in_string = self._escaped = False
        self._closings = self._depths = np.zeros(0, dtype=np.int64)

    def pieces(self) -> Iterator[Piece]:
        if self._peek() == b"\xef" and self._buffer.startswith(b"\xef\xbb\xbf"):  # a byte order mark
            self._at = 3
        first = self._peek()
        if first == b"{":
            yield from self._object()
        elif first == b"[":
            yield from self._list("", 0)
        else:
            yield Piece("", -1, [self._scalar()])
        if self._peek():
            raise self._malformed("something follows the end")

    def _object(self) -> Iterator[Piece]:
        self._at += 1
        if self._peek() == b"}":
            self._at += 1
            return
        while True:
            key = self._key()
            opening = self._peek()
            if opening == b"[":
                yield from self._list(key, 1)
            else:
                yield Piece(key, -1, [self._whole(1) if opening == b"{" else self._scalar()])
            separator = self._peek()
            self._at += 1
            if separator == b"}":
                return
            if separator != b",":
                raise self._malformed("',' or '}' is missing", -1)

    def _key(self) -> str:
        if self._peek() != b'"':
            raise self._malformed("a name in quotes is missing")
        key = self._scalar()
        if self._peek() != b":":
            raise self._malformed("':' is missing")
        self._at += 1
        return str(key)

    def _whole(self, level: int) -> Any:
        """The object that begins here, consumed."""
        while (end := self._closing(level)) is None:
            self._need_more()
        return self._take(end + 1)

    def _scalar(self) -> Any:
        """The string, number or word that begins here, consumed."""
        while (match := _SCALAR.match(self._buffer, self._at)) is None or match.end() == len(self._buffer):
            if not self._read():
                break
        if match is None:
            raise self._malformed("a value is missing, or the file ends too early")
        return self._take(match.end())

    def _list(self, key: str, level: int) -> Iterator[Piece]:
        """Elements of the list that begins here, as many at a time as the buffer holds whole."""
        self._at += 1
        count = 0
        while True:
            end = self._closing(level)
            last = self._last_closing(level + 1) if end is None else None
            if end is not None or last is not None:
                stop = end if end is not None else cast("int", last) + 1
                values = self._elements(key, stop, first=count == 0)
                if values or (end is not None and count == 0):
                    yield Piece(key, count, values)
                count += len(values)
                self._at = stop
            if end is not None:
                self._at += 1
                return
            self._need_more()

    def _elements(self, key: str, stop: int, *, first: bool) -> list[Any]:
        """The elements from here to `stop`, behind a comma if they are not the first."""
        if key in self._skip or self._peek_before(stop) == b"":
            return []
        if not first:
            if self._peek() != b",":
                raise self._malformed("',' is missing between two elements")
            self._at += 1
        raw = b"[" + self._buffer[self._at : stop] + b"]"
        return loads(raw, self._name, self._base + self._at - 1)

    # The buffer

    def _closing(self, level: int) -> int | None:
        """Position of the next bracket that leaves `level` open."""
        start = int(np.searchsorted(self._closings, self._at))
        found = np.flatnonzero(self._depths[start:] <= level)
        return int(self._closings[start + found[0]]) if found.size else None

    def _last_closing(self, level: int) -> int | None:
        """Position of the last bracket in the buffer that leaves `level` open."""
        start = int(np.searchsorted(self._closings, self._at))
        found = np.flatnonzero(self._depths[start:] == level)
        return int(self._closings[start + found[-1]]) if found.size else None

    def _take(self, end: int) -> Any:
        value = loads(self._buffer[self._at : end], self._name, self._base + self._at)
        self._at = end
        return value

    def _peek(self) -> bytes:
        """The next byte that is no blank, b"" at the end of the file; the blanks are consumed."""
        while self._peek_before(len(self._buffer)) == b"":
            if not self._read():
                return b""
        return self._buffer[self._at : self._at + 1]

    def _peek_before(self, stop: int) -> bytes:
        match = cast("re.Match[bytes]", _BLANKS.match(self._buffer, self._at, stop))
        self._at = match.end()
        return self._buffer[self._at : min(self._at + 1, stop)]

    def _need_more(self) -> None:
        if not self._read():
            raise malformed_json(self._name, self._base + len(self._buffer), "the file ends too early")

    def _read(self) -> bool:
        if len(self._buffer) - self._at > MAX_VALUE_BYTES:
            raise InvalidError(
                f"{self._name} holds a value of more than {MAX_VALUE_BYTES} bytes at byte"
                f" {self._base + self._at}: divide it",
                reason="JSON_TOO_LARGE",
                metadata={"file": self._name, "byte": str(self._base + self._at)},
            )
        try:
            chunk = self._stream.read(max(CHUNK_BYTES, len(self._buffer) - self._at))
        except RowFault as fault:
            raise InvalidError(fault.message, reason=fault.reason, metadata={"file": self._name}) from fault
        if chunk:
            self._append(chunk)
        return bool(chunk)

    def _append(self, chunk: bytes) -> None:
        done = self._at
        kept = int(np.searchsorted(self._closings, done))
        begin = len(self._buffer) - done
        self._buffer = self._buffer[done:] + chunk
        self._base, self._at = self._base + done, 0
        closings, depths = self._scan(np.frombuffer(chunk, dtype=np.uint8))
        self._closings = np.concatenate((self._closings[kept:] - done, closings + begin))
        self._depths = np.concatenate((self._depths[kept:], depths))

    def _scan(self, chunk: npt.NDArray[np.uint8]) -> tuple[Indices, Indices]:
        """Positions of the closing brackets outside strings, and how many are open behind each."""
        kinds = _KINDS[chunk]
        at = np.flatnonzero(kinds)
        kinds = kinds[at]
        escaped = self._escaped_positions(at[kinds == _BACKSLASH], chunk.size)
        if escaped.size:
            kinds[np.isin(at, escaped, assume_unique=True)] = 0
        quotes = kinds == _QUOTE
        parity = np.cumsum(quotes) + self._in_string
        brackets = (kinds >= _OPEN) & (parity % 2 == 0)
        steps = np.where(kinds[brackets] == _OPEN, 1, -1)
        depths = self._depth + np.cumsum(steps)
        if at.size:
            self._in_string = bool(parity[-1] % 2)
        if depths.size:
            self._depth = int(depths[-1])
        closing = steps < 0
        return at[brackets][closing], depths[closing]

    def _escaped_positions(self, slashes: Indices, size: int) -> Indices:
        """Where a character follows an odd run of backslashes, given where those are; a run may go on from
        the chunk before, and into the next.
        """
        if self._escaped:
            slashes = np.concatenate(([-1], slashes))
        if not slashes.size:
            return slashes
        starts = np.flatnonzero(np.concatenate(([True], np.diff(slashes) != 1)))
        lengths = np.diff(np.concatenate((starts, [slashes.size])))
        behind = (slashes[starts] + lengths)[lengths % 2 == 1]
        self._escaped = bool(behind.size and behind[-1] == size)
        return behind[behind < size]

    def _malformed(self, problem: str, offset: int = 0) -> InvalidError:
        return malformed_json(self._name, self._base + self._at + offset, problem)
