"""Between the contract's messages and the domain's values. No decisions."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from finemesh.chassis.dataset_options import (
    convert_options,
    fill,
    import_options,
    level_of,
    split_options,
)
from finemesh.chassis.errors import record_to_status
from finemesh.chassis.preflight_options import options_to_proto
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import MaskProof
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.dataprep.domain import (
    ClassSplitCount,
    ConvertOrigin,
    Dataset,
    DatasetSummary,
    Finding,
    ImportOrigin,
    LeakageShares,
    Life,
    Origin,
    Preflight,
    PreflightResult,
    Report,
    Result,
    SplitOrigin,
    Upload,
    ValidationResult,
)
from finemesh.v1 import (
    attempt_pb2,
    dataset_pb2,
    ledger_pb2,
    preflight_pb2,
    progress_pb2,
    validation_report_pb2,
)

# What lists and events leave out of a preflight's result.
_ROW_LISTS: Final = ("longest", "over_length", "all_masked", "mismatched", "not_trained", "shown")


def _value(enum: Any, name: str) -> Any:
    """The number of an enum's value by its full name."""
    return enum.Value(name)


def stamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


# From the contract


def origin_from_proto(message: dataset_pb2.Dataset) -> Origin:
    """Raises InvalidError naming the fields that are wrong or missing."""
    match message.WhichOneof("origin"):
        case "imported_from":
            origin = message.imported_from
            options = import_options(origin, "dataset.imported_from")
            return ImportOrigin(origin.upload, origin.source_uri, options)
        case "split_from":
            split = message.split_from
            return SplitOrigin(split.dataset, split_options(split, "dataset.split_from"))
        case "converted_from":
            convert = message.converted_from
            return ConvertOrigin(convert.dataset, convert_options(convert, "dataset.converted_from"))
        case _:
            raise InvalidError.of(
                "dataset.origin", "say how the dataset is made: imported_from, split_from or converted_from"
            )


def result_from_proto(message: attempt_pb2.AttemptResult) -> Result:
    """What an attempt brings back. Raises InvalidError for another service's result."""
    match message.WhichOneof("result"):
        case "dataset":
            return _summary_from_proto(message.dataset)
        case "validation":
            found = message.validation
            verdicts = validation_report_pb2.ValidationReport.Verdict
            return ValidationResult(
                verdict=verdicts.Name(found.verdict).removeprefix("VERDICT_"),
                row_count=found.row_count,
                finding_counts=dict(found.finding_counts),
                findings=tuple(_finding_from_proto(each) for each in found.findings),
                measures=json_format.MessageToDict(found.measures),
            )
        case "preflight":
            return PreflightResult(json_format.MessageToDict(message.preflight))
        case _:
            raise InvalidError.of("outcome.result", "the result of work on datasets belongs here")


def _summary_from_proto(message: dataset_pb2.DatasetSummary) -> DatasetSummary:
    ledger = message.ledger
    return DatasetSummary(
        digest=message.digest,
        row_count=message.row_count,
        size_bytes=message.size_bytes,
        video_count=message.video_count,
        conversation_count=message.conversation_count,
        splits=tuple((each.split, each.rows) for each in message.splits),
        classes=tuple((each.class_name, each.objects) for each in message.classes),
        has_class_names=message.has_class_names,
        media=tuple(message.media),
        ledger=LedgerSummary(
            ledger.inputs, ledger.kept, ledger.quarantined, ledger.dropped, dict(ledger.by_reason)
        ),
        leakage=message.leakage,
        warnings=tuple(message.warnings),
        parent_digests=tuple(message.parent_digests),
        class_splits=tuple(
            ClassSplitCount(each.class_name, each.split, each.objects, each.rows)
            for each in message.class_splits
        ),
        leakage_shares=_leakage_from_proto(message.leakage_shares)
        if message.HasField("leakage_shares")
        else None,
        mask_proof=_proof_from_proto(message.mask_proof) if message.HasField("mask_proof") else None,
    )


def _leakage_from_proto(message: dataset_pb2.LeakageShares) -> LeakageShares:
    similar = message.by_similar if message.HasField("by_similar") else None
    return LeakageShares(message.by_video, message.by_image, similar)


def _proof_from_proto(message: dataset_pb2.MaskProof) -> MaskProof:
    return MaskProof(
        message.masks, message.mean_iou, message.min_iou, message.below_floor, message.cpu_seconds
    )


def _finding_from_proto(message: validation_report_pb2.Finding) -> Finding:
    severity = validation_report_pb2.Finding.Severity.Name(message.severity).removeprefix("SEVERITY_")
    return Finding(message.id, severity, message.row_id, message.field, message.evidence, message.remedy)


# To the contract


def origin_to_proto(origin: Origin) -> dict[str, Any]:
    """The origin as keyword argument of a Dataset message."""
    match origin:
        case ImportOrigin():
            message = dataset_pb2.ImportOrigin(upload=origin.upload, source_uri=origin.source_uri)
            return {"imported_from": fill(message, origin.options)}
        case SplitOrigin():
            return {"split_from": fill(dataset_pb2.SplitOrigin(dataset=origin.dataset), origin.options)}
        case ConvertOrigin():
            message = dataset_pb2.ConvertOrigin(dataset=origin.dataset)
            return {"converted_from": fill(message, origin.options)}


def dataset_to_proto(dataset: Dataset, *, tables: bool = True) -> dataset_pb2.Dataset:
    """The dataset; without what may be long, lists of a split and the class table, for lists and events."""
    message = dataset_pb2.Dataset(
        name=str(dataset.name),
        display_name=dataset.display_name,
        labels=dict(dataset.labels),
        format=_value(dataset_pb2.DatasetFormat, f"DATASET_FORMAT_{dataset.format.name}"),
        state=_value(dataset_pb2.Dataset.State, f"STATE_{dataset.life.state}"),
        summary=_summary_to_proto(dataset.summary) if dataset.summary else None,
        **origin_to_proto(dataset.origin),
        **_life_to_proto(dataset.life),
    )
    if not tables:
        if message.HasField("split_from"):
            message.split_from.ClearField("assignments")
        if message.HasField("summary"):
            message.summary.ClearField("class_splits")
    return message


def report_to_proto(
    report: Report, html_url: str = "", *, findings: bool = True
) -> validation_report_pb2.ValidationReport:
    """The report; without its findings for lists and events."""
    kind = validation_report_pb2.ValidationReport
    message = kind(
        name=str(report.name),
        level=level_of(report.options),
        thresholds=fill(validation_report_pb2.ValidationThresholds(), report.options),
        state=_value(kind.State, f"STATE_{report.life.state}"),
        html_url=html_url,
        **_life_to_proto(report.life),
    )
    if report.result:
        message.verdict = _value(kind.Verdict, f"VERDICT_{report.result.verdict}")
        message.row_count = report.result.row_count
        message.finding_counts.update(report.result.finding_counts)
        if findings:
            message.findings.extend(_finding_to_proto(each) for each in report.result.findings)
            json_format.ParseDict(dict(report.result.measures), message.measures)
    return message


def preflight_to_proto(
    preflight: Preflight, html_url: str = "", json_url: str = "", *, rows: bool = True
) -> preflight_pb2.PreflightReport:
    """The report; without its lists of rows for lists and events."""
    spec, options = options_to_proto(preflight.options)
    message = preflight_pb2.PreflightReport(
        name=str(preflight.name),
        spec=spec,
        options=options,
        state=_value(preflight_pb2.PreflightReport.State, f"STATE_{preflight.life.state}"),
        html_url=html_url,
        json_url=json_url,
        **_life_to_proto(preflight.life),
    )
    if preflight.result:
        # A newer service may have stored what this one does not know.
        json_format.ParseDict(dict(preflight.result.content), message.result, ignore_unknown_fields=True)
        if not rows:
            _clear_rows(message.result)
    return message


def _clear_rows(result: preflight_pb2.PreflightResult) -> None:
    for name in _ROW_LISTS:
        result.ClearField(name)
    if result.HasField("longest_batch"):
        result.longest_batch.ClearField("row_ids")


def upload_to_proto(upload: Upload, url: str) -> dataset_pb2.Upload:
    return dataset_pb2.Upload(
        name=str(upload.name),
        filename=upload.filename,
        size_bytes=upload.size_bytes,
        sha256=upload.sha256,
        url=url,
        expire_time=stamp(upload.expire_time),
    )


def ledger_entry_to_proto(row: dict[str, Any]) -> ledger_pb2.LedgerEntry:
    """A row of the ledger's files."""
    kind = ledger_pb2.LedgerEntry
    return kind(
        row_id=row["row_id"],
        disposition=_value(kind.Disposition, f"DISPOSITION_{row['disposition'].upper()}"),
        reason=row["reason"],
        message=row["message"],
        field=row["field"],
        children=row["children"],
    )


def _life_to_proto(life: Life[Any]) -> dict[str, Any]:
    return {
        "progress": progress_pb2.Progress(
            fraction=life.fraction, message=life.message, update_time=stamp(life.report_time)
        ),
        "error": record_to_status(life.error) if life.error else None,
        "attempt": life.attempt,
        "create_time": stamp(life.create_time),
        "start_time": stamp(life.start_time),
        "end_time": stamp(life.end_time),
        "update_time": stamp(life.update_time),
    }


def _summary_to_proto(summary: DatasetSummary) -> dataset_pb2.DatasetSummary:
    ledger = summary.ledger
    return dataset_pb2.DatasetSummary(
        digest=summary.digest,
        row_count=summary.row_count,
        size_bytes=summary.size_bytes,
        video_count=summary.video_count,
        conversation_count=summary.conversation_count,
        splits=[dataset_pb2.SplitCount(split=split, rows=rows) for split, rows in summary.splits],
        classes=[dataset_pb2.ClassCount(class_name=name, objects=count) for name, count in summary.classes],
        has_class_names=summary.has_class_names,
        media=summary.media,
        ledger=ledger_pb2.LedgerSummary(
            inputs=ledger.inputs,
            kept=ledger.kept,
            quarantined=ledger.quarantined,
            dropped=ledger.dropped,
            by_reason=ledger.by_reason,
        ),
        leakage=summary.leakage,
        warnings=summary.warnings,
        parent_digests=summary.parent_digests,
        class_splits=[
            dataset_pb2.ClassSplitCount(**dataclasses.asdict(each)) for each in summary.class_splits
        ],
        leakage_shares=dataset_pb2.LeakageShares(**dataclasses.asdict(summary.leakage_shares))
        if summary.leakage_shares
        else None,
        mask_proof=dataset_pb2.MaskProof(**dataclasses.asdict(summary.mask_proof))
        if summary.mask_proof
        else None,
    )


def _finding_to_proto(finding: Finding) -> validation_report_pb2.Finding:
    kind = validation_report_pb2.Finding
    return kind(
        id=finding.id,
        severity=_value(kind.Severity, f"SEVERITY_{finding.severity}"),
        row_id=finding.row_id,
        field=finding.field,
        evidence=finding.evidence,
        remedy=finding.remedy,
    )
