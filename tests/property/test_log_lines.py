"""The cursor of logs: wherever reading stops and goes on, nothing is missing, doubled or out of order."""

from __future__ import annotations

from itertools import pairwise

from finemesh.training.logs.lines import MAX_LINE_BYTES, Line, Place, Segment, read_lines
from hypothesis import given
from hypothesis import strategies as st

# Short lines, empty ones, letters of several bytes, and some that are longer than a line may be.
_CONTENT = st.lists(
    st.sampled_from(["\n", "a", "ü", "日", "x" * 700, "\r\n", "y" * MAX_LINE_BYTES]), max_size=40
).map(lambda parts: "".join(parts).encode())
_LOGS = st.lists(_CONTENT, min_size=1, max_size=3)
_CUTS = st.lists(st.integers(0, 60_000), max_size=12)


def segments(logs: list[bytes], cuts: list[int]) -> list[Segment]:
    """The logs of attempts 1, 2, … cut at these offsets."""
    found: list[Segment] = []
    for attempt, content in enumerate(logs, start=1):
        edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
        found += [Segment(attempt, a, content[a:b]) for a, b in pairwise(edges)]
    return found


def behind(found: list[Segment], place: Place) -> list[Segment]:
    return [
        s for s in found if s.attempt > place.attempt or (s.attempt == place.attempt and s.end > place.offset)
    ]


@given(_LOGS, _CUTS)
def test_the_lines_are_those_of_the_bytes(logs: list[bytes], cuts: list[int]) -> None:
    lines, _ = read_lines(segments(logs, cuts), Place(), live=0)
    for attempt, content in enumerate(logs, start=1):
        mine = [line for line in lines if line.attempt == attempt]
        expected = content.split(b"\n")
        if not expected[-1]:
            expected.pop()
        joined: list[str] = []
        for line in mine:  # a piece of a long line goes on where the one before was cut
            if line.offset and content[line.offset - 1 : line.offset] != b"\n":
                joined[-1] += line.text
            else:
                joined.append(line.text)
        # Where a long line is cut within a letter, each half is shown as what it is: no letter.
        assert len(joined) == len(expected)
        for got, want in zip(joined, expected, strict=True):
            if len(want) < MAX_LINE_BYTES:
                assert got == want.removesuffix(b"\r").decode()


@given(_LOGS, _CUTS, st.lists(st.integers(1, 5), max_size=20))
def test_going_on_from_a_cursor_reads_what_reading_on_would(
    logs: list[bytes], cuts: list[int], steps: list[int]
) -> None:
    """The log is read while it grows, a few segments more each time, from the text of the last place."""
    everything = segments(logs, cuts)
    whole, end = read_lines(everything, Place(), live=0)
    got: list[Line] = []
    place, there = Place(), 0
    for step in steps:
        there = min(there + step, len(everything))
        known = everything[:there]
        live = known[-1].attempt if known else 1
        lines, place = read_lines(behind(known, place), Place.parse(str(place)), live)
        got += lines
    lines, place = read_lines(behind(everything, place), place, live=0)
    assert got + lines == whole
    assert place == end


@given(_CONTENT, st.integers(0, 60_000), st.integers(0, 60_000))
def test_what_was_dropped_is_counted(content: bytes, begin: int, length: int) -> None:
    end = min(begin + length, len(content))
    if begin >= end or end == len(content):
        return
    kept = [Segment(1, 0, content[:begin]), Segment(1, end, content[end:])]
    lines, place = read_lines([s for s in kept if s.content], Place(), live=0)
    assert sum(line.dropped for line in lines) == end - begin
    assert place.offset == len(content)
