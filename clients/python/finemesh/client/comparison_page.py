"""A comparison as one HTML page that needs nothing else: verdict, tables, pictures."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Final

from finemesh.client.figures import measured
from finemesh.client.plots import (
    Compared,
    by_interest,
    draw_curves,
    draw_parallel,
    draw_scatter,
    picture_of,
    single,
)
from finemesh.v1.run_pb2 import MetricSummary
from finemesh.v1.tracking_service_pb2 import CompareRunsResponse

_NEEDED_NONE: Final = "no number would"


def page_of(compared: Compared) -> str:
    """The page. Raises PlotsMissingError."""
    answer, names = compared.answer, compared.names
    figures = [single(draw_curves, compared, key) for key in compared.drawn]
    figures += [single(draw_parallel, compared), single(draw_scatter, compared)]
    parts = [
        f"<p class='verdict {'sure' if answer.conclusive else 'open'}'>{_text(answer.verdict)}</p>",
        _list(answer.recommendations),
        _items(compared),
        _metrics(answer, names),
        *_differences(answer, names),
        _costs(answer, names),
        "<h2>Pictures</h2>",
        *(f"<figure>{_svg(picture_of(figure, 'svg'))}</figure>" for figure in figures),
    ]
    return _PAGE.format(title=_text("Comparison of " + ", ".join(names)), body="\n".join(filter(None, parts)))


def _items(compared: Compared) -> str:
    answer = compared.answer
    if not answer.HasField("items"):
        why = f"<p>Not compared item by item: {_text(answer.items_problem)}.</p>"
        return why if answer.items_problem else ""
    found = answer.items
    labels = [", ".join(run.rpartition("/")[2] for run in group.runs) for group in found.groups]
    rows = [
        (
            f"{labels[each.first]} - {labels[each.second]}",
            f"{each.estimate:+.4g}",
            f"{each.low:+.4g} to {each.high:+.4g}",
            f"{each.p_value:.2g}",
            f"{each.adjusted_p_value:.2g}",
            "yes" if each.conclusive else "not yet",
            "" if each.conclusive else str(each.items_needed) if each.items_needed > 0 else _NEEDED_NONE,
        )
        for each in found.differences
    ]
    left_out = f", {found.left_out_count} that not all have left out" if found.left_out_count else ""
    about = (
        f"{found.metric} on the same {found.item_count} items in {found.cluster_count} groups{left_out};"
        f" drawn {found.resamples} times; 95% intervals, p-values as they are and corrected by Holm."
    )
    means = [
        (label, f"{group.mean:.6g}", len(group.runs))
        for label, group in zip(labels, found.groups, strict=True)
    ]
    heads = (
        "difference",
        "estimate",
        "interval",
        "p",
        "p, corrected",
        "more than noise",
        "more items needed",
    )
    return (
        f"<h2>Item by item</h2><p>{_text(about)}</p>"
        f"{_table(('runs', 'mean', 'seeds'), means)}{_table(heads, rows)}"
    )


def _metrics(answer: CompareRunsResponse, names: Sequence[str]) -> str:
    rows: list[tuple[str, ...]] = []
    for metric in by_interest(answer):
        cells: list[str] = []
        for summary, difference in zip(metric.summaries, metric.last_differences, strict=True):
            cells.append(_measured(summary, difference))
        rows.append((metric.key, *cells))
    return f"<h2>Metrics, last and best</h2>{_table(('metric', *names), rows)}" if rows else ""


def _measured(summary: MetricSummary, difference: float) -> str:
    """Empty for a run that has not measured it."""
    text = measured(summary.key, summary.last_value, 5)
    if difference and not math.isnan(difference):
        text += f" ({'+' if difference > 0 else ''}{measured(summary.key, difference, 3)})"
    if not math.isnan(summary.best_value):
        text += f", best {measured(summary.key, summary.best_value, 5)}"
    return text if summary.key else ""


def _differences(answer: CompareRunsResponse, names: Sequence[str]) -> Iterable[str]:
    for title, differences in (
        ("Parameters that differ", answer.config_differences),
        ("Data that differ", answer.data_differences),
        ("Programs that differ", answer.code_differences),
        ("Libraries and machines that differ", answer.environment_differences),
    ):
        if differences:
            rows = [(each.field, *each.values) for each in differences]
            yield f"<h2>{title}</h2>{_table(('field', *names), rows)}"


def _costs(answer: CompareRunsResponse, names: Sequence[str]) -> str:
    priced = any(each.cost for each in answer.costs)
    rows = [
        (
            name,
            f"{each.seconds / 60:.3g}",
            f"{each.device_seconds / 60:.3g}",
            _figure(each.gain),
            f"{each.device_seconds_per_point / 60:.3g}" if each.device_seconds_per_point else "",
            *(
                (f"{each.cost:.4g}", f"{each.cost_per_point:.4g}" if each.cost_per_point else "")
                if priced
                else ()
            ),
        )
        for name, each in zip(names, answer.costs, strict=False)
    ]
    heads = ("run", "minutes", "device minutes", "gain", "device minutes per hundredth")
    more = ("cost", "cost per hundredth") if priced else ()
    return f"<h2>What it took</h2>{_table((*heads, *more), rows)}" if rows else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = "".join(f"<th>{_text(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _list(sentences: Iterable[str]) -> str:
    points = "".join(f"<li>{_text(each)}</li>" for each in sentences)
    return f"<ul>{points}</ul>" if points else ""


def _svg(picture: bytes) -> str:
    """The element alone, without the declarations of a file."""
    content = picture.decode()
    return content[content.index("<svg") :]


def _figure(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.5g}"


def _text(value: object) -> str:
    return html.escape(str(value))


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c1c1e; --soft: #6b6b70; --line: #d9d9de; --page: #fff;
  --tint: #f4f4f7 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #ececf0; --soft: #a0a0a8; --line: #3a3a40; --page: #161618; --tint: #212125 }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.3rem }} h2 {{ font-size: 1.05rem; margin-top: 2rem }}
.verdict {{ font-size: 1.1rem; padding: .8rem 1rem; background: var(--tint); border-left: 4px solid #e69f00 }}
.verdict.sure {{ border-color: #009e73 }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top }}
th {{ color: var(--soft); font-weight: 600 }}
figure {{ margin: 1rem 0 }} svg {{ max-width: 100%; height: auto }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""
