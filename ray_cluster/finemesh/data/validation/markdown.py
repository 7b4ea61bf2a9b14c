"""A report as Markdown."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from finemesh.data.validation import words
from finemesh.data.validation.rules import RULES

if TYPE_CHECKING:
    from finemesh.data.validation.report import ValidationReport


def to_markdown(report: ValidationReport) -> str:
    return "\n\n".join(_blocks(report)) + "\n"


def _blocks(report: ValidationReport) -> Iterator[str]:
    yield f"# {words.title(report)}"
    figures = ", ".join(f"{value} {name}" for name, value in words.figures(report))
    yield f"{words.verdict(report)} Level {report.level.value}: {figures}. {words.facts(report)}"
    steps = words.first_steps(report)
    if steps:
        yield "## What to do first"
        yield "\n".join(f"{place}. {_text(what)}: {_text(why)}" for place, (what, why) in enumerate(steps, 1))
    kinds = [
        (RULES[kind].severity.value, kind, f"{count:,}", RULES[kind].title, RULES[kind].remedy)
        for kind, count in report.counts.items()
    ]
    yield from _table(words.Table("Findings", ("severity", "kind", "count", "what", "remedy"), kinds))
    examples = [
        (finding.id, *(words.short(text) for text in (finding.row_id, finding.field, finding.evidence)))
        for finding in report.findings
    ]
    yield from _table(words.Table("Examples", ("kind", "row", "field", "evidence"), examples))
    for table in words.tables(report):
        yield from _table(table)


def _table(table: words.Table) -> Iterator[str]:
    if not table.rows:
        return
    yield f"## {table.title}"
    rule = tuple("---:" if place in table.numbers else "---" for place in range(len(table.header)))
    yield "\n".join(_line(cells) for cells in (table.header, rule, *table.rows))
    if table.note:
        yield table.note


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _text(value: str) -> str:
    """Text that cannot end a cell or a line, nor become markup where Markdown lets HTML through."""
    safe = html.escape(value, quote=False)
    for mark in "\\`*[]|":
        safe = safe.replace(mark, "\\" + mark)
    return " ".join(safe.split())
