"""A first look at a source: what its files are called and what stands at the start of each, so that formats
can say whether it is theirs. No file is read further than a bounded start.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Final

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.jsonio import parse_json
from finemesh.data.sources import Source

_LINES_SUFFIXES: Final = (".jsonl", ".ndjson")
HEAD_BYTES: Final = 1 << 16
_KEPT_HEADS: Final = 256  # a source may hold a file per picture
RECORD_BYTES: Final = 1 << 24
"""How far a first record may reach, which may hold pictures."""


@dataclass(frozen=True, slots=True)
class JsonHead:
    """How a JSON file begins.

    Attributes:
        kind: of the value at the top: `object`, `list` or `other`.
        keys: of the object at the top, in their order, as far as the start of the file shows them.
        record: the first element of the list at the top, if it is an object that ends within the start of
            the file; of JSON Lines, the object of the first line.
    """

    kind: str
    keys: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = None


class Survey:
    """Looks are kept, and the starts of the last files."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._heads: dict[str, bytes] = {}
        self._json: dict[str, JsonHead] = {}
        self._records: dict[str, Mapping[str, Any] | None] = {}

    @cached_property
    def json_files(self) -> list[str]:
        return self.with_suffix(".json")

    @cached_property
    def json_lines_files(self) -> list[str]:
        return self.with_suffix(*_LINES_SUFFIXES)

    def with_suffix(self, *suffixes: str) -> list[str]:
        return [name for name in self.source.names if name.lower().endswith(suffixes)]

    def named(self, *base_names: str) -> list[str]:
        """Files with one of these base names, in any folder."""
        return [name for name in self.source.names if PurePosixPath(name).name in base_names]

    def head(self, name: str) -> bytes:
        """The first HEAD_BYTES of a file. Raises InvalidError (FILE_UNREADABLE)."""
        if name not in self._heads:
            if len(self._heads) >= _KEPT_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[name] = self._start(name, HEAD_BYTES)
        return self._heads[name]

    def _start(self, name: str, size: int) -> bytes:
        try:
            with self.source.open(name) as file:
                return file.read(size)
        except RowFault as fault:
            raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault

    def json_head(self, name: str) -> JsonHead:
        """How a JSON or JSON Lines file begins. Raises InvalidError (MALFORMED_JSON) for what is no JSON."""
        if name not in self._json:
            look = _lines_head if self.is_json_lines(name) else _json_head
            self._json[name] = look(self.head(name), name)
        return self._json[name]

    def is_json_lines(self, name: str) -> bool:
        """Whether a file holds a JSON value a line: by its suffix, or because an object that fills its first
        line is followed by another.
        """
        if name.lower().endswith(_LINES_SUFFIXES):
            return True
        first, _, rest = self.head(name).removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
        return first.startswith(b"{") and rest.lstrip().startswith(b"{") and _parses(first)

    def first_record(self, name: str) -> Mapping[str, Any] | None:
        """The first record of a JSON list or of JSON Lines, also one that ends behind the start of the file.
        None if it is no object, or longer than RECORD_BYTES. Raises InvalidError (MALFORMED_JSON).
        """
        head = self.json_head(name)
        if head.record is not None or head.kind != "list" or len(self.head(name)) < HEAD_BYTES:
            return head.record
        if name not in self._records:
            start = self._start(name, RECORD_BYTES)
            self._records[name] = _first_object(start.decode("utf-8-sig", errors="replace"))
        return self._records[name]

    def json_with_keys(self, *keys: str) -> list[str]:
        """JSON files whose object at the top shows one of these keys in the start of the file."""
        return [name for name in self.json_files if not {*keys}.isdisjoint(self.json_head(name).keys)]


def _json_head(head: bytes, name: str) -> JsonHead:
    if len(head) < HEAD_BYTES:
        value = parse_json(head, name)
        if isinstance(value, dict):
            return JsonHead("object", tuple(value))
        first = value[0] if isinstance(value, list) and value else None
        return JsonHead("list" if isinstance(value, list) else "other", (), _object(first))
    return _cut_head(head.decode("utf-8-sig", errors="replace"), name)


# A string that does not end takes all that is left: to try again behind each quote would take quadratic time.
# An object or a list that holds no other is one piece.
_PIECE: Final = re.compile(
    r'"(?:[^"\\]|\\.)*+"?|[{[](?:[^][{}"]++|"(?:[^"\\]|\\.)*+")*+[]}]|[][{}:]|[^][{}:,"\s]+'
)


def _cut_head(text: str, name: str) -> JsonHead:
    """Of the start of a longer text: the keys at depth 1 of an object, the first element of a list."""
    start = len(text) - len(text.lstrip())
    kind = {"{": "object", "[": "list"}.get(text[start : start + 1], "other")
    keys, depth, last = list[str](), 1, ""
    first: int | None = None
    for match in _PIECE.finditer(text, start + 1) if kind != "other" else ():
        piece = match.group()
        first = match.start() if first is None else first
        if kind == "object" and depth == 1 and piece == ":":
            keys.append(str(parse_json(last.encode(), name)))
        if len(piece) == 1:
            depth += (piece in "[{") - (piece in "]}")
        if depth == 0:
            break
        if kind == "list" and depth == 1:
            value = parse_json(text[first : match.end()].encode(), name) if text[first] == "{" else None
            return JsonHead(kind, (), _object(value))
        last = piece
    return JsonHead(kind, tuple(keys))


def _object(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None


def _parses(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False


def _first_object(text: str) -> Mapping[str, Any] | None:
    """The object that a text begins with, or the list that it begins with."""
    start = len(text) - len(text.lstrip().removeprefix("[").lstrip())
    try:
        return _object(json.JSONDecoder().raw_decode(text, start)[0])
    except (ValueError, RecursionError):
        return None


def _lines_head(head: bytes, name: str) -> JsonHead:
    lines = head.removeprefix(codecs.BOM_UTF8).lstrip()
    line, ended, _ = lines.partition(b"\n")
    if not line or (not ended and len(head) >= HEAD_BYTES):
        return JsonHead("list")
    value = parse_json(line, f"{name} line 1")
    return JsonHead("list", (), _object(value))
