"""The headers `Range`, `If-Range` and `If-None-Match` of HTTP (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# One range of bytes. A server may ignore what asks for several, and so do we: the answer is the whole.
_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `begin` to before `end` of something that has `total`; none at all if it is refused.

    `partial`: whether a range was asked for, so that the answer has to say which it is.
    """

    begin: int
    end: int
    total: int
    partial: bool = False

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin

    @property
    def refused(self) -> bool:
        """Whether the range that was asked for has no byte in common with what there is."""
        return self.partial and not self.size_bytes

    @property
    def content_range(self) -> str:
        """The header that says which bytes these are."""
        return f"bytes */{self.total}" if self.refused else f"bytes {self.begin}-{self.end - 1}/{self.total}"


def is_among(etag: str, named: str) -> bool:
    """Whether the header `If-None-Match`, empty if there is none, names an entity tag."""
    return named.strip() == "*" or etag in {each.strip().removeprefix("W/") for each in named.split(",")}


def span_of(total: int, *, offset: int, asked: str, only_if: str, etag: str) -> Span:
    """The bytes to send.

    Args:
        total: how many there are.
        offset: where to begin, if `asked` is empty; from 0 to `total`.
        asked: the header `Range`; empty if there is none. One that is not understood counts as none.
        only_if: the header `If-Range`; unless it is empty or `etag`, something else was downloaded so far,
            and everything is sent.
        etag: of what there is now, with its quotes.
    """
    match = _RANGE.fullmatch(asked.strip())
    if match is None or (only_if and only_if.strip() != etag):
        return Span(0 if asked else offset, total, total)
    first, last, suffix = match.groups()
    if suffix is not None:
        return Span(max(0, total - int(suffix)), total, total, partial=True)
    begin = int(first)
    if last is not None and int(last) < begin:  # not a range, says the grammar
        return Span(0, total, total)
    end = total if last is None else min(int(last) + 1, total)
    return Span(min(begin, end), end, total, partial=True)
