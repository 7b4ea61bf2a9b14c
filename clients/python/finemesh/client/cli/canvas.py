"""Lines in a terminal, drawn with the eight dots of Braille (Unicode block U+2800)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

Line = tuple[Sequence[float], Sequence[float], str]
"""Places, values and a colour of rich."""

WIDTH: Final = 64  # characters, each two dots wide and four high
HEIGHT: Final = 16
# The bit of the dot in column x and row y of a character.
_BITS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def drawing(lines: Sequence[Line]) -> str:
    """Lines over their common ranges, in rich's markup, with the ends of both axes. Gaps stay gaps."""
    points = [
        point for places, values, _ in lines for point in zip(places, values, strict=True) if _drawn(point)
    ]
    if not points:
        return "[dim]nothing to draw[/]"
    left, right = _range([x for x, _ in points])
    low, high = _range([y for _, y in points])
    dots: dict[tuple[int, int], int] = {}
    colours: dict[tuple[int, int], str] = {}
    for places, values, colour in lines:
        scaled = [
            (
                round((x - left) / (right - left) * (2 * WIDTH - 1)),
                round((high - y) / (high - low) * (4 * HEIGHT - 1)),
            )
            if _drawn((x, y))
            else None
            for x, y in zip(places, values, strict=True)
        ]
        for before, after in zip([None, *scaled], scaled, strict=False):
            for x, y in _between(before, after):
                cell = (x // 2, y // 4)
                dots[cell] = dots.get(cell, 0) | _BITS[x % 2][y % 4]
                colours[cell] = colour
    return _framed(dots, colours, (left, right), (low, high))


def _drawn(point: tuple[float, float]) -> bool:
    return all(map(math.isfinite, point))


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _between(before: tuple[int, int] | None, after: tuple[int, int] | None) -> list[tuple[int, int]]:
    """The dots from one point to the next."""
    if after is None:
        return []
    if before is None:
        return [after]
    count = max(abs(after[0] - before[0]), abs(after[1] - before[1]), 1)
    return [
        (
            before[0] + round((after[0] - before[0]) * part / count),
            before[1] + round((after[1] - before[1]) * part / count),
        )
        for part in range(1, count + 1)
    ]


def _framed(
    dots: dict[tuple[int, int], int],
    colours: dict[tuple[int, int], str],
    across: tuple[float, float],
    up: tuple[float, float],
) -> str:
    names = [f"{up[1]:.4g}", f"{up[0]:.4g}"]
    margin = max(map(len, names))
    rows: list[str] = []
    for y in range(HEIGHT):
        name = names[0] if y == 0 else names[1] if y == HEIGHT - 1 else ""
        cells = (
            f"[{colours[x, y]}]{chr(0x2800 + dots[x, y])}[/]" if (x, y) in dots else " " for x in range(WIDTH)
        )
        rows.append(f"{name:>{margin}} │{''.join(cells)}")
    first, last = f"{across[0]:.6g}", f"{across[1]:.6g}"
    rows.append(f"{'':>{margin}} └{'─' * WIDTH}")
    rows.append(f"{'':>{margin}}  {first}{last:>{WIDTH - len(first)}}")
    return "\n".join(rows)
