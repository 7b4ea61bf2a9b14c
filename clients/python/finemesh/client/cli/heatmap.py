"""Rows token by token for a terminal: what carries loss stands out, the prompt steps back."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from rich.text import Text

from finemesh.v1 import preflight_pb2

_LOSS: Final = ("bold black on green", "bold black on bright_green")
_PROMPT: Final = ("dim", "dim italic")
_CUT: Final = ("red strike", "red strike italic")
_IMAGE: Final = "magenta"
_BAR_WIDTH: Final = 40
# Line breaks, and what joins letters and emoji.
_JOINERS: Final = "\n\u200c\u200d"

LEGEND: Final = Text.assemble(
    ("carries loss", _LOSS[0]), "  ", ("is read", _PROMPT[0]), "  ", ("is cut off", _CUT[0])
)
PLAIN_LEGEND: Final = "[[ carries loss ]]  is read  ~~ is cut off ~~"


def heat_map(row: preflight_pb2.ShownRow, *, colour: bool) -> Text:
    """The text that is encoded, each token in the style of what becomes of it.

    Neighbouring tokens have two shades in turn. Without colour, loss stands in `[[ ]]` and what is cut off
    in `~~ ~~`. A picture is `<image x N>`.
    """
    if not colour:
        alike = groupby(row.segments, key=lambda segment: (segment.cut, segment.loss))
        return Text("".join(_bracketed(list(group)) for _, group in alike))
    made = Text()
    for segment in row.segments:
        for shade, text in enumerate(_words(segment)):
            made.append(text, _style(segment, shade % 2))
    return made


def _bracketed(segments: list[preflight_pb2.TokenSegment]) -> str:
    """Neighbours that are all cut off, all carry loss, or neither."""
    text = "".join(word for segment in segments for word in _words(segment))
    if segments[0].cut:
        return f"~~{text}~~"
    return f"[[{text}]]" if segments[0].loss else text


def _words(segment: preflight_pb2.TokenSegment) -> Iterator[str]:
    if segment.image:
        yield f"<image x {segment.count}>"
    else:
        yield from (printable(text) for text in segment.texts)


def _style(segment: preflight_pb2.TokenSegment, shade: int) -> str:
    if segment.cut:
        return _CUT[shade]
    if segment.image:
        return _IMAGE
    return _LOSS[shade] if segment.loss else _PROMPT[shade]


def printable(text: str) -> str:
    """`text` without what would command the terminal: controls and changes of direction become pictures."""
    return "".join(character if _is_harmless(character) else _picture(character) for character in text)


def _is_harmless(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _picture(character: str) -> str:
    """Unicode has a picture for each of the first 32 controls; others are shown by their number."""
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else f"<U+{code:04X}>"


def histogram_lines(histogram: preflight_pb2.PreflightHistogram) -> list[str]:
    """A line per bucket: its range, and how many rows have so many tokens, in all and with loss."""
    counts = list(zip(histogram.tokens, histogram.loss_tokens, strict=True))
    tallest = max((max(pair) for pair in counts), default=0)
    last = len(str(histogram.edges[-1])) if counts else 0
    lines: list[str] = []
    for index, (every, loss) in enumerate(counts):
        low, high = histogram.edges[index], histogram.edges[index + 1] - 1
        for name, count, block in (("all ", every, "▒"), ("loss", loss, "█")):
            bar = block * -(-_BAR_WIDTH * count // tallest)
            lines.append(f"{low:>{last}} to {high:>{last}} {name} {bar} {count}")
    return lines
