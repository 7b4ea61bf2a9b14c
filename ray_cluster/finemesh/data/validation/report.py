"""The result of a validation: values, Markdown, and one HTML page that needs nothing else."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from finemesh.core.spec.data import ClassCount, Severity, ValidationLevel, ValidationStatus
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.data.validation.exhibits import Exhibit
from finemesh.data.validation.findings import Finding
from finemesh.data.validation.measures import Measures
from finemesh.data.validation.rules import RULES


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What was found in one dataset version.

    Attributes:
        dataset_digest: of the version that was examined.
        counts: how often each kind was found, by id, the gravest kinds first.
        findings: examples of each kind; `counts` has them all.
        measures: what the dataset is like, in figures.
        exhibits: pictures of some of the findings.
    """

    dataset_digest: str
    level: ValidationLevel
    status: ValidationStatus
    rows: int
    splits: dict[str, int]
    classes: tuple[ClassCount, ...]
    ledger: LedgerSummary
    counts: dict[str, int]
    findings: tuple[Finding, ...]
    measures: Measures
    exhibits: tuple[Exhibit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ValidationReport:
        return cls(
            dataset_digest=value["dataset_digest"],
            level=ValidationLevel(value["level"]),
            status=ValidationStatus(value["status"]),
            rows=value["rows"],
            splits=dict(value["splits"]),
            classes=tuple(ClassCount.from_json(item) for item in value["classes"]),
            ledger=LedgerSummary.from_json(value["ledger"]),
            counts=dict(value["counts"]),
            findings=tuple(
                Finding(**{**item, "severity": Severity(item["severity"])}) for item in value["findings"]
            ),
            measures=Measures.from_json(value["measures"]),
            exhibits=tuple(Exhibit.from_json(item) for item in value["exhibits"]),
        )

    def to_markdown(self) -> str:
        blocks = [f"# Validation: {_status_words(self.status)}", _facts(self)]
        for title, header, rows in _tables(self):
            blocks.append(f"## {title}\n\n{_markdown_table(header, rows)}")
        return "\n\n".join(blocks) + "\n"

    def to_html(self) -> str:
        tables = "".join(
            f"<h2>{_text(title)}</h2>{_html_table(header, rows)}" for title, header, rows in _tables(self)
        )
        title = f"Validation: {_status_words(self.status)}"
        return _PAGE.format(title=_text(title), status=self.status, facts=_text(_facts(self)), tables=tables)


Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


def _tables(report: ValidationReport) -> list[Table]:
    """Title, header and rows of the tables of a report; those without rows are left out."""
    kinds = [
        (RULES[kind].severity.value, kind, str(count), RULES[kind].title, RULES[kind].remedy)
        for kind, count in report.counts.items()
    ]
    examples = [(finding.id, finding.row_id, finding.field, finding.evidence) for finding in report.findings]
    splits = [(split or "(not split)", str(count)) for split, count in report.splits.items()]
    classes = [
        (
            item.class_name,
            str(item.objects),
            str(item.visible),
            ", ".join(f"{k or 'all'} {v}" for k, v in item.splits.items()),
        )
        for item in report.classes
    ]
    lost = [(reason, str(count)) for reason, count in report.ledger.by_reason.items()]
    tables: list[Table] = [
        ("Findings", ("severity", "kind", "count", "what", "remedy"), kinds),
        ("Examples", ("kind", "row", "field", "evidence"), examples),
        ("Splits", ("split", "rows"), splits),
        ("Classes", ("class", "objects", "visible", "per split"), classes),
        ("Not kept", ("reason", "inputs"), lost),
    ]
    return [table for table in tables if table[2]]


def _status_words(status: ValidationStatus) -> str:
    return status.value.replace("_", " ")


def _facts(report: ValidationReport) -> str:
    ledger = report.ledger
    return (
        f"{report.rows} rows, level {report.level.value}. Ledger: {ledger.inputs} inputs = {ledger.kept} kept"
        f" + {ledger.quarantined} quarantined + {ledger.dropped} dropped. Dataset {report.dataset_digest}."
    )


def _markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: str) -> str:
    """Text that cannot end a cell, nor become markup where Markdown lets HTML through."""
    return html.escape(value, quote=False).replace("|", "\\|").replace("\n", " ")


def _html_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{_text(value)}</th>" for value in header)
    body = "".join("<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: str) -> str:
    return html.escape(value)


_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0
 1rem }} h1 {{ border-left: .5rem solid #2a8a4a; padding-left: .75rem }} h1.passed_with_warnings {{
 border-color: #d99a1c }} h1.failed {{ border-color: #c0392b }} table {{ border-collapse: collapse; width:
 100% }} th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top
 }} td {{ overflow-wrap: anywhere }} th {{ background: #f5f5f5 }}
</style>
<h1 class="{status}">{title}</h1>
<p>{facts}</p>
{tables}
</html>
"""
