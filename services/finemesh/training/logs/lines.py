"""From segments of bytes to lines, and where to go on: pure functions.

A log is a run of bytes per attempt. What is read next is a place in it: an attempt and an offset. Reading
from any place that was handed out before gives the same lines as reading on did.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from finemesh.core.errors import InvalidError

MAX_LINE_BYTES: Final = 16 * 1024


class Place(NamedTuple):
    """Where reading goes on."""

    attempt: int = 1
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises InvalidError for what is not the text of a place."""
        attempt, colon, offset = text.partition(":")
        if not (colon and attempt.isascii() and attempt.isdigit() and offset.isascii() and offset.isdigit()):
            raise InvalidError.of("cursor", f"{text!r} is none: give the last `cursor` that came, or nothing")
        return cls(int(attempt), int(offset))


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an attempt's log."""

    attempt: int
    begin: int
    content: bytes

    @property
    def end(self) -> int:
        return self.begin + len(self.content)


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end; `dropped` bytes before it are no more."""

    attempt: int
    offset: int
    text: str
    dropped: int = 0


def read_lines(segments: Iterable[Segment], place: Place, live: int) -> tuple[list[Line], Place]:
    """The whole lines from `place` on, and the place behind them.

    Args:
        segments: in their order; of one attempt they follow on each other, but for what was dropped.
        place: where to begin.
        live: the attempt of which more is to come; of the others the last line may lack its end.
    """
    lines: list[Line] = []
    pending, dropped = b"", 0
    for segment in segments:
        if segment.end <= place.offset and segment.attempt == place.attempt:
            continue
        if segment.attempt != place.attempt:
            lines, place = _closed(lines, place, pending, dropped, whole=place.attempt != live)
            if pending and place.attempt == live:
                return lines, place
            place, pending, dropped = Place(segment.attempt), b"", 0
        if segment.begin > place.offset + len(pending):
            lines, place = _closed(lines, place, pending, dropped, whole=True)
            dropped, pending, place = segment.begin - place.offset, b"", Place(place.attempt, segment.begin)
        pending += segment.content[max(0, place.offset + len(pending) - segment.begin) :]
        *whole, pending = _split(pending)
        for content in whole:
            lines.append(Line(*place, _text(content), dropped))
            place, dropped = Place(place.attempt, place.offset + len(content)), 0
    return _closed(lines, place, pending, dropped, whole=place.attempt != live)


def _closed(
    lines: list[Line], place: Place, pending: bytes, dropped: int, *, whole: bool
) -> tuple[list[Line], Place]:
    """With the line that has no end, if it will not get one."""
    if not pending or not whole:
        return lines, place
    line = Line(*place, _text(pending), dropped)
    return [*lines, line], Place(place.attempt, place.offset + len(pending))


def _split(content: bytes) -> list[bytes]:
    """Whole lines with their ends, and what follows the last one. Long ones are cut."""
    parts: list[bytes] = []
    begin = 0
    while True:
        end = content.find(b"\n", begin, begin + MAX_LINE_BYTES)
        if end < 0 and len(content) - begin < MAX_LINE_BYTES:
            return [*parts, content[begin:]]
        stop = end + 1 if end >= 0 else begin + MAX_LINE_BYTES
        parts.append(content[begin:stop])
        begin = stop


def _text(content: bytes) -> str:
    return content.removesuffix(b"\n").removesuffix(b"\r").decode(errors="replace")
