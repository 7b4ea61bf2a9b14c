"""The result of a validation: values, Markdown, and one HTML page that needs nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finemesh.core.spec.data import ClassCount, Severity, ValidationLevel, ValidationStatus
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.data.validation.exhibits import Exhibit
from finemesh.data.validation.findings import Finding
from finemesh.data.validation.markdown import to_markdown
from finemesh.data.validation.measures import Measures
from finemesh.data.validation.page import to_html


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What was found in one dataset version.

    Attributes:
        dataset_digest: of the version that was examined.
        counts: how often each kind was found, by id, the gravest kinds first.
        classes: of the objects, or of whole rows where there are no objects.
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
    measures: Measures = field(default_factory=Measures)
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
        return to_markdown(self)

    def to_html(self) -> str:
        """One page of less than 5 MB that needs nothing else."""
        return to_html(self)
