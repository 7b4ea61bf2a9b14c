"""A report as one HTML page that needs nothing else: no script, no network, pictures and plots within."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from finemesh.core.spec.data import Severity, ValidationStatus
from finemesh.data.validation import charts, words
from finemesh.data.validation.exhibits import Exhibit
from finemesh.data.validation.findings import Finding
from finemesh.data.validation.rules import RULES

if TYPE_CHECKING:
    from finemesh.data.validation.report import ValidationReport

_STYLE: Final = (files("finemesh.data.validation") / "page.css").read_text(encoding="utf-8")
# Nothing may be fetched, and no script runs, whatever a text of the dataset tries.
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_MARKS: Final = {Severity.ERROR: "✕", Severity.WARNING: "!", Severity.INFO: "i"}
_VERDICT_MARKS: Final = {
    ValidationStatus.PASSED: "✓",
    ValidationStatus.PASSED_WITH_WARNINGS: "!",
    ValidationStatus.FAILED: "✕",
}
_MAX_ROWS: Final = 8  # of examples that are shown without being asked for
_WIDE: Final = 4  # columns from which on a table takes the page's width
_NAMES: Final = {Severity.ERROR: "errors", Severity.WARNING: "warnings", Severity.INFO: "notes"}


def to_html(report: ValidationReport) -> str:
    parts = [_head(report), _first_steps(report), _findings(report), _plots(report), _tables(report)]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(words.title(report))}</title>\n<style>\n{_STYLE}</style>\n"
        f"<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _text(value: str) -> str:
    return html.escape(value)


def _data(value: str) -> str:
    """Text out of the dataset, which may also be written from right to left."""
    return f"<bdi>{_text(words.short(value))}</bdi>"


def _head(report: ValidationReport) -> str:
    found = words.severities(report.counts)
    tiles = [
        f'<li class="{severity.value}"><b>{count:,}</b> {_NAMES[severity]}</li>'
        for severity, count in found.items()
    ]
    tiles += [f"<li><b>{_text(value)}</b> {_text(name)}</li>" for name, value in words.figures(report)]
    return (
        f'<header class="{report.status.value}"><span class="seal" aria-hidden="true">'
        f"{_VERDICT_MARKS[report.status]}</span><div><h1>{_text(words.title(report))}</h1>"
        f"<p>{_text(words.verdict(report))}</p></div></header>\n"
        f'<ul class="tiles">{"".join(tiles)}</ul>\n'
        f'<p class="quiet">Level {report.level.value}. {_text(words.facts(report))}</p>\n'
    )


def _first_steps(report: ValidationReport) -> str:
    steps = words.first_steps(report)
    if not steps:
        return ""
    items = "".join(
        f"<li><b>{_text(what[:1].upper() + what[1:])}.</b> <span>{_text(why)}</span></li>"
        for what, why in steps
    )
    return f'<section class="steps"><h2>What to do first</h2><ol>{items}</ol></section>\n'


def _findings(report: ValidationReport) -> str:
    by_kind: defaultdict[str, list[tuple[int, Finding]]] = defaultdict(list)
    for place, finding in enumerate(report.findings):
        by_kind[finding.id].append((place, finding))
    exhibits = {exhibit.finding: exhibit for exhibit in report.exhibits}
    kinds = [_kind(kind, count, by_kind[kind], exhibits) for kind, count in report.counts.items()]
    body = "".join(kinds) or '<p class="quiet">Nothing was found.</p>'
    return f"<section><h2>Findings</h2>\n{body}</section>\n"


def _kind(kind: str, count: int, examples: list[tuple[int, Finding]], exhibits: dict[int, Exhibit]) -> str:
    rule = RULES[kind]
    severity = rule.severity
    summary = (
        f'<span class="chip {severity.value}"><span aria-hidden="true">{_MARKS[severity]}</span> '
        f"{severity.value}</span> <strong>{_text(_sentence(rule.title))}</strong>"
        f' <span class="count">{count:,}</span> <code>{kind}</code>'
    )
    figures = "".join(_figure(finding, exhibits[place]) for place, finding in examples if place in exhibits)
    gallery = f'<div class="gallery">{figures}</div>' if figures else ""
    is_open = " open" if severity is not Severity.INFO else ""
    return (
        f'<details class="{severity.value}"{is_open}><summary>{summary}</summary>'
        f'<p class="remedy">What to do: {_text(rule.remedy)}.</p>{gallery}'
        f"{_examples(count, examples, figures.count('<figure'))}</details>\n"
    )


def _figure(finding: Finding, exhibit: Exhibit) -> str:
    names = ("the picture", "the picture that it resembles")
    pictures = "".join(
        f'<img src="{_text(url)}" alt="{name}, of row {_text(words.short(finding.row_id))}">'
        for url, name in zip(exhibit.pictures, names, strict=False)
    )
    wide = ' class="pair"' if len(exhibit.pictures) > 1 else ""
    return (
        f'<figure{wide}><div class="pictures">{pictures}</div><figcaption><b>{_data(finding.row_id)}</b> '
        f"<code>{_data(finding.field)}</code><br>{_data(finding.evidence)}</figcaption></figure>"
    )


def _examples(count: int, examples: list[tuple[int, Finding]], pictured: int) -> str:
    """The examples as a table: folded where it is long or pictures tell some, none where they tell all."""
    shown = [finding for _, finding in examples[: words.MAX_EXAMPLES]]
    if not shown or pictured == count:
        return ""
    placed = any(finding.row_id for finding in shown)
    rows = "".join(
        "<tr>"
        + (f"<td>{_data(finding.row_id)}</td>" if placed else "")
        + f"<td><code>{_data(finding.field)}</code></td><td>{_data(finding.evidence)}</td></tr>"
        for finding in shown
    )
    head = '<th scope="col">row</th>' if placed else ""
    more = f'<p class="quiet">and {count - len(shown):,} more</p>' if count > len(shown) else ""
    table = (
        f'<div class="scroll"><table class="examples"><thead><tr>{head}<th scope="col">field</th>'
        f'<th scope="col">what was seen</th></tr></thead><tbody>{rows}</tbody></table></div>{more}'
    )
    if len(shown) <= _MAX_ROWS and not pictured:
        return table
    which = f"All {count:,}" if len(shown) == count else f"The first {len(shown):,} of {count:,}"
    return f"<details><summary>{which}, as a list</summary>{table}</details>"


def _plots(report: ValidationReport) -> str:
    plots = "".join(
        f'<figure class="plot"><figcaption>{_text(title)}</figcaption>{drawn}</figure>'
        for title, drawn in _drawn(report)
    )
    return f'<section><h2>The data</h2><div class="plots">{plots}</div></section>\n' if plots else ""


def _drawn(report: ValidationReport) -> Iterator[tuple[str, str]]:
    """Titles and plots of what there is."""
    measures = report.measures
    if report.classes:
        title = "Objects per class" if measures.objects else "Rows per class"
        yield title, charts.class_bars(report.classes, title) + _legend(report)
    if measures.objects:
        title = "Objects per picture"
        yield title, charts.histogram(measures.objects_per_picture, title, "objects in a picture")
    if measures.picture_sizes:
        title = "Sizes of the pictures"
        yield title, charts.sizes(measures.picture_sizes, title)
    if measures.box_sizes.total:
        title = "Sizes of the boxes"
        unit = "side of a box, in % of its picture's"
        yield title, charts.histogram(measures.box_sizes, title, unit, percent=True)
    if measures.tokens is not None and measures.tokens.rows:
        title = "Lengths of the texts in tokens"
        drawn = charts.histogram(
            measures.tokens.lengths, title, "tokens in a row", cut=measures.tokens.max_tokens
        )
        yield title, drawn


def _legend(report: ValidationReport) -> str:
    present = [
        split for split in charts.SPLITS if any(item.splits.get(split.value) for item in report.classes)
    ]
    if len(present) < 2:
        return ""
    keys = "".join(
        f'<li><span class="key s-{split.value or "none"}"></span>{split.value or "not split"}</li>'
        for split in present
    )
    return f'<ul class="legend">{keys}</ul>'


def _tables(report: ValidationReport) -> str:
    return "".join(f"<section>{_table(table)}</section>\n" for table in words.tables(report))


def _table(table: words.Table) -> str:
    head = "".join(
        f'<th scope="col"{_side(table, place)}>{_text(cell)}</th>' for place, cell in enumerate(table.header)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{_side(table, place)}>{_data(cell)}</td>" for place, cell in enumerate(row))
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="quiet">{_text(table.note)}</p>' if table.note else ""
    kind = ' class="narrow"' if len(table.header) < _WIDE else ""
    return (
        f'<h2>{_text(table.title)}</h2><div class="scroll"><table{kind}>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def _side(table: words.Table, place: int) -> str:
    return ' class="number"' if place in table.numbers else ""
