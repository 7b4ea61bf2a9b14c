"""Rows token by token on a terminal: everything is there, and nothing commands the terminal."""

from __future__ import annotations

import io

from finemesh.client.cli.heatmap import heat_map, histogram_lines, printable
from finemesh.v1.preflight_pb2 import PreflightHistogram, ShownRow, TokenSegment
from rich.console import Console

ROW = ShownRow(
    segments=[
        TokenSegment(turn=0, role="user", count=1, ids=[1], texts=["[b]Look: "]),
        TokenSegment(turn=0, role="user", image=True, count=576, ids=[9], texts=["<image>"]),
        TokenSegment(
            turn=1, role="assistant", loss=True, count=3, ids=[2, 3, 4], texts=["re", "d", "\x1b[2J"]
        ),
        TokenSegment(turn=1, role="assistant", cut=True, count=1, ids=[5], texts=[" end"]),
    ]
)


def rendered(*, colour: bool) -> str:
    stream = io.StringIO()
    system = "truecolor" if colour else None
    console = Console(file=stream, color_system=system, force_terminal=colour, width=200)
    console.print(heat_map(ROW, colour=colour), soft_wrap=True)
    return stream.getvalue()


def test_without_colour_loss_and_cuts_are_in_brackets() -> None:
    assert rendered(colour=False) == "[b]Look: <image x 576>[[red␛[2J]]~~ end~~\n"


def test_with_colour_neighbouring_tokens_with_loss_differ() -> None:
    text = rendered(colour=True)
    assert "\x1b[2J" not in text
    first, second = text[: text.index("re")], text[text.index("re") : text.index("d\x1b")]
    codes = [part.rpartition("\x1b[")[2] for part in (first, second)]
    assert codes == ["1;30;42m", "1;30;102m"]


def test_controls_and_changes_of_direction_are_shown_not_sent() -> None:
    assert printable("a\tb\x9b\u202ec\n👩\u200d🔬") == "a␉b<U+009B><U+202E>c\n👩\u200d🔬"


def test_bars_are_as_long_as_their_counts() -> None:
    lines = histogram_lines(PreflightHistogram(edges=[0, 50, 100], tokens=[1, 4], loss_tokens=[5, 0]))
    assert [line.count("▒") + line.count("█") for line in lines] == [8, 40, 32, 0]
    assert [line.split()[-1] for line in lines] == ["1", "5", "4", "0"]
    assert lines[2].startswith(" 50 to  99 all ")
    assert histogram_lines(PreflightHistogram()) == []
