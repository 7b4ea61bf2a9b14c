"""What a report says in words and tables, the same in Markdown and on its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from finemesh.core.spec.data import ClassCount, Severity, Split, ValidationStatus
from finemesh.data.validation.rules import RULES

if TYPE_CHECKING:
    from finemesh.data.validation.report import ValidationReport

MAX_EXAMPLES: Final = 100
"""Of one kind, in a report for people; in JSON there are all that were kept."""
MAX_CLASSES: Final = 300
_FIRST: Final = 5
_MAX_TEXT: Final = 400
_ORDER: Final = {split.value: place for place, split in enumerate(Split)}

_VERDICTS: Final = {
    ValidationStatus.PASSED: "Nothing stands against training on this dataset.",
    ValidationStatus.PASSED_WITH_WARNINGS: "It can be trained on, but some of it is probably not meant so.",
    ValidationStatus.FAILED: "Do not train on it as it is: some of it is wrong.",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts. `numbers` are the columns that are set to the right."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: tuple[int, ...] = ()
    note: str = ""


def title(report: ValidationReport) -> str:
    return f"Validation: {report.status.value.replace('_', ' ')}"


def verdict(report: ValidationReport) -> str:
    return _VERDICTS[report.status]


def facts(report: ValidationReport) -> str:
    """The ledger's sum and the name of the dataset."""
    ledger = report.ledger
    return (
        f"Ledger: {ledger.inputs:,} inputs = {ledger.kept:,} kept + {ledger.quarantined:,} quarantined"
        f" + {ledger.dropped:,} dropped. Dataset {report.dataset_digest}."
    )


def severities(counts: Mapping[str, int]) -> dict[Severity, int]:
    """How many findings there are of each severity."""
    found = dict.fromkeys((Severity.ERROR, Severity.WARNING, Severity.INFO), 0)
    for kind, count in counts.items():
        found[RULES[kind].severity] += count
    return found


def first_steps(report: ValidationReport) -> list[tuple[str, str]]:
    """What to do first, and why: the remedies of the gravest and most frequent kinds."""
    steps: dict[str, list[str]] = {}
    for kind, count in report.counts.items():
        rule = RULES[kind]
        if rule.severity is not Severity.INFO:
            steps.setdefault(rule.remedy, []).append(f"{rule.title} ({count:,} x {kind})")
    return [(remedy, "; ".join(reasons)) for remedy, reasons in list(steps.items())[:_FIRST]]


def figures(report: ValidationReport) -> list[tuple[str, str]]:
    """The most important numbers, by name."""
    measures = report.measures
    found: list[tuple[str, str]] = [("rows", f"{report.rows:,}"), ("pictures", f"{measures.pictures:,}")]
    if measures.objects:
        found.append(("objects", f"{measures.objects:,}"))
    if report.classes:
        found.append(("classes", f"{len(report.classes):,}"))
    if measures.near_pairs is not None:
        found.append(("pairs that look alike", f"{measures.near_pairs:,}"))
    if measures.leakage is not None:
        found.append(("of val and test leak", f"{measures.leakage.score:.1%}"))
    if measures.tokens is not None:
        found.append(("tokens, longest row", f"{measures.tokens.longest:,}"))
        if measures.tokens.max_tokens:
            found.append(("rows that would be cut", f"{measures.tokens.rows_cut:,}"))
    return found


def tables(report: ValidationReport) -> list[Table]:
    """The tables behind the findings; those without rows are left out."""
    found = [_splits(report), _classes(report), _leakage(report), _tokens(report), _lost(report)]
    return [table for table in found if table.rows]


def _splits(report: ValidationReport) -> Table:
    total = max(sum(report.splits.values()), 1)
    rows = [
        (split or "(not split)", f"{count:,}", f"{count / total:.1%}")
        for split, count in sorted(report.splits.items(), key=lambda item: _ORDER.get(item[0], 0))
    ]
    return Table("Splits", ("split", "rows", "share"), rows, (1, 2))


def _classes(report: ValidationReport) -> Table:
    """Objects that are visible per class and split, the most frequent class first."""
    ranked = sorted(report.classes, key=lambda item: (-item.objects, item.class_name))
    present = [split for split in Split if any(item.splits.get(split.value) for item in ranked)]
    rows = [_class_row(item, present) for item in ranked[:MAX_CLASSES]]
    counted = "objects" if report.measures.objects else "rows"
    header = ("class", counted, "visible", *(split.value or "not split" for split in present))
    rest = len(ranked) - len(rows)
    note = f"{rest:,} rarer classes are left out." if rest else ""
    return Table("Classes per split", header, rows, tuple(range(1, len(header))), note)


def _class_row(item: ClassCount, splits: Sequence[Split]) -> tuple[str, ...]:
    counts = [item.objects, item.visible, *(item.splits.get(split.value, 0) for split in splits)]
    return (short(item.class_name), *(f"{count:,}" for count in counts))


def _leakage(report: ValidationReport) -> Table:
    leakage = report.measures.leakage
    ways = (
        {}
        if leakage is None
        else {
            "any of these ways": leakage.score,
            "its video is in train": leakage.by_video,
            "its picture is in train, byte for byte": leakage.by_image,
            "a picture of train looks like its picture": leakage.by_similar,
        }
    )
    rows = [(way, f"{share:.1%}" if share is not None else "not compared") for way, share in ways.items()]
    return Table("Leakage", ("of the rows of val and test", "share"), rows, (1,))


def _tokens(report: ValidationReport) -> Table:
    tokens = report.measures.tokens
    if tokens is None:
        return Table("Tokens", (), [])
    rows = [
        ("tokenizer", short(tokens.tokenizer)),
        ("rows with a text", f"{tokens.rows:,}"),
        ("median length", f"{tokens.median:,}"),
        ("longest", f"{tokens.longest:,}"),
    ]
    if tokens.max_tokens:
        rows += [
            ("limit", f"{tokens.max_tokens:,}"),
            ("rows that would be cut", f"{tokens.rows_cut:,}"),
            ("tokens that would be lost", f"{tokens.tokens_cut:,}"),
        ]
    note = "Texts alone: what a picture takes depends on the model, and its token preflight shows it."
    return Table("Tokens", ("what", "value"), rows, (1,), note)


def _lost(report: ValidationReport) -> Table:
    rows = [(short(reason), f"{count:,}") for reason, count in report.ledger.by_reason.items()]
    return Table("Not kept", ("reason", "inputs"), rows[:MAX_EXAMPLES], (1,))


def short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
