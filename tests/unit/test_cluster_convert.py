"""What a validation came to, in the words of the contract."""

from __future__ import annotations

from finemesh.cluster import convert
from finemesh.core.spec.data import (
    Leakage,
    Severity,
    ValidationLevel,
    ValidationStatus,
)
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.data import Finding, ValidationReport
from finemesh.data.validation.measures import Measures
from finemesh.v1 import validation_report_pb2


def test_a_report_is_cut_to_what_the_contract_carries() -> None:
    findings = tuple(
        Finding("SMALL_CLASS", Severity.WARNING, f"row-{index}", "", "few", "more") for index in range(300)
    )
    report = ValidationReport(
        dataset_digest="sha256:0",
        level=ValidationLevel.BASIC,
        status=ValidationStatus.PASSED_WITH_WARNINGS,
        rows=10,
        splits={},
        classes=(),
        ledger=LedgerSummary(),
        counts={"SMALL_CLASS": 300},
        findings=findings,
        measures=Measures(
            pictures=4, near_pairs=0, picture_sizes=((640, 480, 4),), leakage=Leakage(0.5, 0.5, 0.0)
        ),
    )
    result = convert.validation_result(report).validation
    assert result.verdict == validation_report_pb2.ValidationReport.VERDICT_PASSED_WITH_WARNINGS
    assert (result.row_count, dict(result.finding_counts)) == (10, {"SMALL_CLASS": 300})
    assert len(result.findings) == 200
    assert result.findings[0].severity == validation_report_pb2.Finding.SEVERITY_WARNING
    assert (result.measures.picture_sizes[0].width, result.measures.leakage_shares.by_video) == (640, 0.5)
    assert result.measures.HasField("similar_pair_count"), "none found is not the same as not compared"
    assert not result.measures.leakage_shares.HasField("by_similar")
