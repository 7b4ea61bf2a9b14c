"""Lines in a terminal: where the dots are."""

from __future__ import annotations

import math
import re

from finemesh.client.cli.canvas import HEIGHT, WIDTH, drawing


def cells(text: str) -> list[str]:
    """The rows of a drawing without colours and margins."""
    plain = re.sub(r"\[/?[a-z]*\]", "", text)
    return [row.partition("│")[2] for row in plain.splitlines()[:HEIGHT]]


def test_a_line_goes_from_corner_to_corner_and_touches_every_column() -> None:
    rows = cells(drawing([([0, 100], [1, 5], "cyan")]))
    assert [len(row) for row in rows] == [WIDTH] * HEIGHT
    assert rows[0][-1] == "⠉"
    assert rows[-1][0] == "⣀"
    assert all(any(row[column] != " " for row in rows) for column in range(WIDTH))


def test_gaps_and_flat_lines() -> None:
    rows = cells(drawing([([0, 1, 2, 3, 4], [0, 0, math.nan, 1, 1], "cyan")]))
    assert set(rows[-1][: WIDTH // 4]) == {"⣀"}
    assert not "".join(row[WIDTH // 2] for row in rows).strip()
    assert "5" in drawing([([1, 1], [5, 5], "cyan")])
    assert "nothing" in drawing([([], [], "cyan"), ([1], [math.inf], "cyan")])
