"""What the contract says a zero means, and that every choice of the contract is known to the packages."""

from __future__ import annotations

from typing import Any

import pytest
from finemesh.cluster import convert
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import (
    DatasetFormat,
    InstructionTask,
    Severity,
    SplitOptions,
    ValidationLevel,
    ValidationStatus,
)
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.data import Finding, ValidationReport
from finemesh.v1 import dataset_pb2, validation_report_pb2


def test_zero_means_the_default() -> None:
    assert convert.import_options(dataset_pb2.ImportOrigin()).max_quarantined_fraction == 0.5
    assert convert.import_options(dataset_pb2.ImportOrigin()).format is None
    assert convert.split_options(dataset_pb2.SplitOrigin()) == SplitOptions(train=0.6, val=0.1, test=0.3)
    options = convert.convert_options(dataset_pb2.ConvertOrigin(format=dataset_pb2.DATASET_FORMAT_CANONICAL))
    assert (options.image_size_px, options.instruction) == (112, None)
    assert convert.validate_options(0).level is ValidationLevel.BASIC


def test_ratios_are_relative_to_their_sum() -> None:
    options = convert.split_options(dataset_pb2.SplitOrigin(train_ratio=8, test_ratio=2, gap_frames=3))
    assert (options.train, options.val, options.test, options.gap_frames) == (0.8, 0.0, 0.2, 3)


def test_negative_ratios_are_refused() -> None:
    with pytest.raises(InvalidError):
        convert.split_options(dataset_pb2.SplitOrigin(train_ratio=2, test_ratio=-1))


def test_every_choice_of_the_contract_is_known() -> None:
    names: Any = dataset_pb2
    converted = [
        convert.convert_options(dataset_pb2.ConvertOrigin(format=target, instruction=instruction))
        for target in list(names.DatasetFormat.keys())[1:]
        for instruction in list(names.InstructionTask.keys())
    ]
    assert {options.target for options in converted} == set(DatasetFormat)
    assert {options.instruction for options in converted} == {None, *InstructionTask}
    for source in list(names.AnnotationFormat.keys()):
        convert.import_options(dataset_pb2.ImportOrigin(format=source))
    for strategy in list(names.SplitStrategy.keys()):
        convert.split_options(dataset_pb2.SplitOrigin(strategy=strategy))


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
    )
    result = convert.validation_result(report).validation
    assert result.verdict == validation_report_pb2.ValidationReport.VERDICT_PASSED_WITH_WARNINGS
    assert (result.row_count, dict(result.finding_counts)) == (10, {"SMALL_CLASS": 300})
    assert len(result.findings) == 200
    assert result.findings[0].severity == validation_report_pb2.Finding.SEVERITY_WARNING
