"""Plots as inline SVG: no script, no font, no network; the page has the colours, for light and for dark."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from finemesh.core.spec.data import ClassCount, Split
from finemesh.data.validation.measures import Histogram

SPLITS: Final = (Split.TRAIN, Split.VAL, Split.TEST, Split.GAP, Split.NONE)
"""In the order in which they are stacked; each has a colour of its name in the page."""

_WIDTH, _HEIGHT = 520, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 40
_MAX_CLASSES: Final = 30
_ROW: Final = 22
_MAX_RADIUS: Final = 22.0
_NAME: Final = 22  # letters of a class name beside its bar


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear axis from 0 to `top`, in marks of `step`."""

    top: float
    step: float

    @property
    def marks(self) -> list[float]:
        return [self.step * index for index in range(round(self.top / self.step) + 1)]


def _axis(largest: float, marks: int = 5) -> _Axis:
    """An axis that holds `largest`, with about so many marks at round numbers."""
    raw = max(largest, 1e-9) / marks
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(size * magnitude for size in (1, 2, 2.5, 5, 10) if size * magnitude >= raw)
    return _Axis(step * math.ceil(largest / step - 1e-9) if largest > 0 else step, step)


def _text(value: object) -> str:
    return html.escape(str(value))


def number(value: float) -> str:
    """A number for people: `12,345`, `1.5`, `0.003`."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"


def _svg(label: str, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{_text(label)}">'
        f"{''.join(body)}</svg>"
    )


def _mark(x: float, y: float, text: str, anchor: str = "middle", kind: str = "mark") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{_text(text)}</text>'


def _grid(axis: _Axis) -> list[str]:
    """Level lines with their numbers, from the bottom up."""
    lines: list[str] = []
    for value in axis.marks:
        y = _HEIGHT - _BOTTOM - value / axis.top * (_HEIGHT - _TOP - _BOTTOM)
        lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        lines.append(_mark(_LEFT - 6, y + 4, number(value), "end"))
    return lines


def histogram(data: Histogram, label: str, unit: str, *, percent: bool = False, cut: float = 0) -> str:
    """Upright bars between edges; those beyond `cut`, if it is not 0, in the colour of a warning."""
    bars = _trimmed(data)
    axis = _axis(max(bars.counts, default=0))
    body = _grid(axis)
    room = (_WIDTH - _LEFT - _RIGHT) / max(len(bars.counts), 1)
    factor = 100 if percent else 1
    every = max(math.ceil(len(bars.counts) / 8), 1)
    for index, count in enumerate(bars.counts):
        low, high = bars.edges[index] * factor, bars.edges[index + 1] * factor
        x, height = _LEFT + index * room, count / axis.top * (_HEIGHT - _TOP - _BOTTOM)
        kind = "bar over" if cut and low >= cut else "bar"
        whole = not percent and high - low == 1
        span = number(low) if whole else f"{number(low)} to {number(high)}"
        words = _text(f"{span} {unit}: {number(count)}")
        body.append(
            f'<rect x="{x + 1:.1f}" y="{_HEIGHT - _BOTTOM - height:.1f}" width="{max(room - 2, 1):.1f}"'
            f' height="{height:.1f}" rx="1.5" class="{kind}"><title>{words}</title></rect>'
        )
        if index % every == 0:
            body.append(_mark(x + (room / 2 if whole else 0), _HEIGHT - _BOTTOM + 16, number(low)))
    if cut and bars.edges[0] * factor < cut < bars.edges[-1] * factor:
        body += _cut_line(bars, cut)
    body.append(_mark((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, unit, kind="unit"))
    return _svg(label, _HEIGHT, body)


def _cut_line(bars: Histogram, cut: float) -> list[str]:
    share = (cut - bars.edges[0]) / (bars.edges[-1] - bars.edges[0])
    x = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
    return [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" class="cut"/>',
        _mark(x + 5, _TOP + 10, f"limit {number(cut)}", "start", "cuttext"),
    ]


def _trimmed(data: Histogram) -> Histogram:
    """Without empty bins at the ends, but for one."""
    filled = [index for index, count in enumerate(data.counts) if count]
    if not filled:
        return Histogram(data.edges[:2], data.counts[:1])
    first, last = max(filled[0] - 1, 0), min(filled[-1] + 2, len(data.counts))
    return Histogram(data.edges[first : last + 1], data.counts[first:last])


def class_bars(classes: Sequence[ClassCount], label: str) -> str:
    """Lying bars of the classes, the largest first, stacked by split; the rarest ones are summed up."""
    ranked = sorted(classes, key=lambda item: (-item.objects, item.class_name))
    shown, rest = ranked[:_MAX_CLASSES], ranked[_MAX_CLASSES:]
    left, right = 168, 58
    scale = (_WIDTH - left - right) / max([item.objects for item in shown] + [1])
    height = _TOP + _ROW * (len(shown) + bool(rest)) + 8
    body: list[str] = []
    for index, item in enumerate(shown):
        y = _TOP + index * _ROW
        name = item.class_name if len(item.class_name) <= _NAME else item.class_name[: _NAME - 1] + "…"
        body.append(_mark(left - 8, y + 14, name, "end", "name"))
        body += _stack(item, left, y, scale)
        body.append(_mark(left + item.objects * scale + 6, y + 14, number(item.objects), "start"))
    if rest:
        words = f"{len(rest)} more classes: {number(sum(item.objects for item in rest))} objects"
        body.append(_mark(left, _TOP + len(shown) * _ROW + 14, words, "start", "unit"))
    return _svg(label, height, body)


def _stack(item: ClassCount, left: float, y: float, scale: float) -> list[str]:
    """The parts of one bar. What no split accounts for, as hidden objects, has the colour of no split."""
    counts = {split: item.splits.get(split.value, 0) for split in SPLITS}
    counts[Split.NONE] += max(item.objects - sum(counts.values()), 0)
    parts: list[str] = []
    x = left
    for split, count in counts.items():
        if count:
            words = f"{item.class_name}, {split.value or 'no split, or hidden'}: {number(count)}"
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 3}" width="{max(count * scale, 0.8):.1f}" height="{_ROW - 7}"'
                f' rx="1.5" class="s-{split.value or "none"}"><title>{_text(words)}</title></rect>'
            )
            x += count * scale
    return parts


def sizes(found: Sequence[tuple[int, int, int]], label: str) -> str:
    """Height against width in pixels; the area of a circle is the number of pictures of that size."""
    across, up = (_axis(max((size[side] for size in found), default=0) * 1.05) for side in (0, 1))
    most = max((count for *_, count in found), default=1)
    body = _grid(up)
    for value in across.marks:
        x = _LEFT + value / across.top * (_WIDTH - _LEFT - _RIGHT)
        body.append(_mark(x, _HEIGHT - _BOTTOM + 16, number(value)))
    for width, height, count in sorted(found, key=lambda size: -size[2]):
        x = _LEFT + width / across.top * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - height / up.top * (_HEIGHT - _TOP - _BOTTOM)
        radius = max(_MAX_RADIUS * math.sqrt(count / most), 2.5)
        body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="dot">'
            f"<title>{width} x {height}: {number(count)}</title></circle>"
        )
    body.append(
        _mark(
            (_LEFT + _WIDTH - _RIGHT) / 2,
            _HEIGHT - 6,
            "across the width, upwards the height, in pixels",
            kind="unit",
        )
    )
    return _svg(label, _HEIGHT, body)
