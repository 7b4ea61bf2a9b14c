"""Between what the pure packages say and the messages of the contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, TypeVar, cast

from google.protobuf.message import Message

from finemesh.core.spec.data import DatasetManifest, Leakage
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.v1 import attempt_pb2, dataset_pb2, ledger_pb2, preflight_pb2, validation_report_pb2

MAX_FINDINGS: Final = 200

M = TypeVar("M", bound=Message)


def ledger_summary(ledger: LedgerSummary) -> ledger_pb2.LedgerSummary:
    return ledger_pb2.LedgerSummary(
        inputs=ledger.inputs,
        kept=ledger.kept,
        quarantined=ledger.quarantined,
        dropped=ledger.dropped,
        by_reason=ledger.by_reason,
    )


def dataset_result(manifest: DatasetManifest, size_bytes: int) -> attempt_pb2.AttemptResult:
    """What a dataset came to. `size_bytes` is that of all files on the object store."""
    splits = [dataset_pb2.SplitCount(split=split, rows=rows) for split, rows in manifest.splits.items()]
    classes = [
        dataset_pb2.ClassCount(class_name=each.class_name, objects=each.visible) for each in manifest.classes
    ]
    summary = dataset_pb2.DatasetSummary(
        digest=manifest.digest,
        row_count=manifest.rows,
        size_bytes=size_bytes,
        video_count=manifest.videos,
        conversation_count=manifest.conversations,
        splits=splits,
        classes=classes,
        has_class_names=manifest.has_class_names,
        media=sorted(manifest.media),
        ledger=ledger_summary(manifest.ledger.check()),
        leakage=manifest.leakage.score if manifest.leakage else 0.0,
        warnings=manifest.warnings,
        parent_digests=manifest.parents,
        class_splits=_class_splits(manifest),
        leakage_shares=_leakage_shares(manifest.leakage) if manifest.leakage else None,
        mask_proof=dataset_pb2.MaskProof(**dataclasses.asdict(manifest.proof)) if manifest.proof else None,
    )
    return attempt_pb2.AttemptResult(dataset=summary)


def _class_splits(manifest: DatasetManifest) -> list[dataset_pb2.ClassSplitCount]:
    kind = dataset_pb2.ClassSplitCount
    objects = [
        kind(class_name=each.class_name, split=split, objects=each.splits.get(split, 0), rows=rows)
        for each in manifest.classes
        for split, rows in each.rows.items()
    ]
    whole = [
        kind(class_name=name, split=split, rows=rows)
        for name, splits in manifest.row_classes.items()
        for split, rows in splits.items()
    ]
    return objects + whole


def _leakage_shares(leakage: Leakage) -> dataset_pb2.LeakageShares:
    return dataset_pb2.LeakageShares(
        by_video=leakage.by_video, by_image=leakage.by_image, by_similar=leakage.by_similar
    )


def validation_result(report: Any) -> attempt_pb2.AttemptResult:
    """What a validation came to, from a `finemesh.data.ValidationReport`."""
    kind = validation_report_pb2.ValidationReport
    verdicts: Any = kind.Verdict
    return attempt_pb2.AttemptResult(
        validation=attempt_pb2.ValidationResult(
            verdict=verdicts.Value(f"VERDICT_{report.status.name}"),
            row_count=report.rows,
            finding_counts=report.counts,
            findings=[_finding(each) for each in report.findings[:MAX_FINDINGS]],
            measures=_measures(report.measures),
        )
    )


def _measures(measures: Any) -> validation_report_pb2.ValidationMeasures:
    return validation_report_pb2.ValidationMeasures(
        picture_count=measures.pictures,
        object_count=measures.objects,
        objects_per_picture=_histogram(measures.objects_per_picture),
        picture_sizes=[
            validation_report_pb2.PictureSizeCount(width=width, height=height, count=count)
            for width, height, count in measures.picture_sizes
        ],
        box_sizes=_histogram(measures.box_sizes),
        similar_pair_count=measures.near_pairs,
        leakage_shares=_leakage_shares(measures.leakage) if measures.leakage else None,
        tokens=_token_lengths(measures.tokens) if measures.tokens else None,
    )


def _token_lengths(tokens: Any) -> validation_report_pb2.TokenLengths:
    return validation_report_pb2.TokenLengths(
        tokenizer=tokens.tokenizer,
        max_tokens=tokens.max_tokens,
        row_count=tokens.rows,
        median=tokens.median,
        longest=tokens.longest,
        cut_row_count=tokens.rows_cut,
        cut_token_count=tokens.tokens_cut,
        lengths=_histogram(tokens.lengths),
    )


def _histogram(histogram: Any) -> validation_report_pb2.ValueHistogram:
    return validation_report_pb2.ValueHistogram(edges=histogram.edges, counts=histogram.counts)


def _finding(finding: Any) -> validation_report_pb2.Finding:
    severities: Any = validation_report_pb2.Finding.Severity
    return validation_report_pb2.Finding(
        id=finding.id,
        severity=severities.Value(f"SEVERITY_{finding.severity.name}"),
        row_id=finding.row_id,
        field=finding.field,
        evidence=finding.evidence,
        remedy=finding.remedy,
    )


def preflight_result(report: Any) -> attempt_pb2.AttemptResult:
    """What a preflight saw, from a `finemesh.finetune.preflight_report.PreflightReport`."""
    return attempt_pb2.AttemptResult(preflight=mirror(preflight_pb2.PreflightResult(), report))


def mirror(message: M, value: Any) -> M:
    """`message`, filled from a dataclass whose fields and enums have the same names."""
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        target: Any = getattr(message, field.name)
        if dataclasses.is_dataclass(item):
            target.SetInParent()
            mirror(target, item)
        elif isinstance(item, Enum):
            enum: Any = message.DESCRIPTOR.fields_by_name[field.name].enum_type
            prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
            setattr(message, field.name, enum.values_by_name[prefix + item.name].number)
        elif isinstance(item, Mapping):
            target.update(item)
        elif isinstance(item, tuple):
            for each in cast("tuple[Any, ...]", item):
                mirror(target.add(), each) if dataclasses.is_dataclass(each) else target.append(each)
        elif item is not None:
            setattr(message, field.name, item)
    return message
