"""Evaluations of packages as a table: for the terminal, and as one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from finemesh.package.evaluating import Evaluation
from finemesh.package.judging import MAIN_METRIC

HEAD: Final = ("package", "format", "size", "memory", "load", "per item", "95% below", "items")
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #222; }
div { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
td.best { font-weight: 700; }
small { color: #666; display: block; font-weight: 400; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
@media (prefers-color-scheme: dark) {
  body { background: #16181d; color: #ddd; } th, td { border-color: #333; } small { color: #999; }
}
"""
_WIDTH, _HEIGHT, _EDGE = 640, 300, 60
_LABEL_WIDTH, _LABEL_HEIGHT = 200, 14


def metric_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """What is shown, the main metric first: no ends of intervals, nothing of single classes or sizes."""
    task = str(evaluations[0].manifest.spec["task"])
    named = {name for each in evaluations for name in each.metrics}
    shown = {name for name in named if not name.endswith(("_low", "_high")) and "/" not in name}
    return sorted(shown, key=lambda name: (name != MAIN_METRIC[task], name))


def rows(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[tuple[str, ...]]:
    """A row of words for each, in the columns of `HEAD` and then those metrics."""
    return [
        (
            str(each.package),
            each.manifest.format.value,
            f"{each.size_bytes / 1e6:,.1f} MB",
            f"{each.peak_memory_bytes / 1e6:,.0f} MB",
            f"{each.load_seconds:.1f} s",
            f"{1000 * each.seconds[0]:.1f} ms",
            f"{1000 * each.seconds[1]:.1f} ms",
            str(each.items),
            *(_metric(each, name) for name in names),
        )
        for each in evaluations
    ]


def _metric(evaluation: Evaluation, name: str) -> str:
    metrics = evaluation.metrics
    if name not in metrics:
        return ""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{metrics[name]:.3f}{interval}"


def to_html(evaluations: Sequence[Evaluation], dataset: str, split: str) -> str:
    """The page."""
    names = metric_names(evaluations)
    best = _best(evaluations)
    head = "".join(f"<th>{html.escape(each)}</th>" for each in (*HEAD, *names))
    body = ""
    for index, row in enumerate(rows(evaluations, names)):
        cells = "".join(
            f"<td{' class=best' if (index, column) in best else ''}>{_cell(cell)}</td>"
            for column, cell in enumerate(row)
        )
        body += f"<tr>{cells}</tr>\n"
    left_out = evaluations[0].left_out
    aside = f" {left_out} rows could not be asked or judged." if left_out else ""
    versions = "".join(
        f"<li>{html.escape(str(each.package))}: {html.escape(_versions(each))}</li>" for each in evaluations
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Packages compared</title>
<style>
{_STYLE}</style>
<body>
<h1>Packages compared</h1>
<p>On {evaluations[0].items} items of the split <b>{html.escape(split)}</b> of {html.escape(dataset)},
each package in a process of its own.{aside} In brackets: 95% intervals. In bold: the best of a column.</p>
<div><table><thead><tr>{head}</tr></thead><tbody>
{body}</tbody></table></div>
{_plot(evaluations, names[0])}
<ul>{versions}</ul>
</body>
</html>
"""


def _cell(words: str) -> str:
    """A figure, its interval below it."""
    figure, bracket, interval = words.partition(" [")
    return html.escape(figure) + (f"<small>{html.escape(bracket[1:] + interval)}</small>" if bracket else "")


def _versions(evaluation: Evaluation) -> str:
    return ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())


def _best(evaluations: Sequence[Evaluation]) -> set[tuple[int, int]]:
    """(row, column) of the best in size, memory, time and the main metric, where there is a choice."""
    if len(evaluations) < 2:
        return set()
    main = metric_names(evaluations)[0]
    columns = {
        2: [-each.size_bytes for each in evaluations],
        3: [-each.peak_memory_bytes for each in evaluations],
        4: [-each.load_seconds for each in evaluations],
        5: [-each.seconds[0] for each in evaluations],
        6: [-each.seconds[1] for each in evaluations],
        len(HEAD): [each.metrics[main] for each in evaluations],
    }
    return {
        (row, column)
        for column, values in columns.items()
        for row, value in enumerate(values)
        if value == max(values) > min(values)
    }


def _plot(evaluations: Sequence[Evaluation], name: str) -> str:
    """The main metric, with its interval, over the time of an item: what one pays, and what one gets."""
    most = max(each.seconds[0] for each in evaluations) * 1.15
    parts = [
        f'<line x1="{_EDGE}" y1="{_HEIGHT - 40}" x2="{_WIDTH}" y2="{_HEIGHT - 40}" stroke="currentColor"/>',
        f'<line x1="{_EDGE}" y1="28" x2="{_EDGE}" y2="{_HEIGHT - 40}" stroke="currentColor"/>',
        f'<text x="{_WIDTH}" y="{_HEIGHT - 8}" text-anchor="end">ms per item, up to {1000 * most:.0f}</text>',
        f'<text x="4" y="20">{html.escape(name)}</text>',
        f'<text x="{_EDGE - 6}" y="{_HEIGHT - 38}" text-anchor="end">0</text>',
        f'<text x="{_EDGE - 6}" y="40" text-anchor="end">1</text>',
    ]

    def height(value: float) -> float:
        return (_HEIGHT - 40) - min(max(value, 0.0), 1.0) * (_HEIGHT - 75)

    labels: list[tuple[float, float]] = []
    for each in evaluations:
        x = _EDGE + each.seconds[0] / most * (_WIDTH - _EDGE - 10)
        value = each.metrics[name]
        low, high = each.metrics.get(f"{name}_low", value), each.metrics.get(f"{name}_high", value)
        label = html.escape(f"{each.package.name} ({each.manifest.format.value})")
        anchor = "end" if x > _WIDTH / 2 else "start"
        y = height(value) - 9
        while any(abs(x - x2) < _LABEL_WIDTH and abs(y - y2) < _LABEL_HEIGHT for x2, y2 in labels):
            y -= _LABEL_HEIGHT
        labels.append((x, y))
        parts += [
            f'<path d="M{x:.1f} {height(low):.1f}V{height(high):.1f}" stroke="#4c72b0"/>',
            f'<circle cx="{x:.1f}" cy="{height(value):.1f}" r="5" fill="#4c72b0"/>',
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>',
        ]
    title = f"{name} over the time of an item"
    drawn = "".join(parts)
    size = f'viewBox="0 0 {_WIDTH + 10} {_HEIGHT}" width="{_WIDTH}"'
    return f'<svg {size} role="img" aria-label="{html.escape(title)}">{drawn}</svg>'
