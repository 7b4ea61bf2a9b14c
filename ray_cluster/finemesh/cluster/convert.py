"""Between what the pure packages say and the messages of the contract."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.data import (
    AnnotationFormat,
    ConvertOptions,
    DatasetFormat,
    DatasetManifest,
    ImportOptions,
    InstructionTask,
    SplitOptions,
    SplitStrategy,
    ValidateOptions,
    ValidationLevel,
)
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.v1 import attempt_pb2, dataset_pb2, ledger_pb2, validation_report_pb2

MAX_FINDINGS: Final = 200
DEFAULT_RATIOS: Final = (0.6, 0.1, 0.3)
DEFAULT_GAP_FRAMES: Final = 5
DEFAULT_QUARANTINED_FRACTION: Final = 0.5

_ANNOTATIONS: Final = {
    dataset_pb2.ANNOTATION_FORMAT_UNSPECIFIED: None,
    dataset_pb2.ANNOTATION_FORMAT_SAM2: AnnotationFormat.SAM2_ARCHIVE,
    dataset_pb2.ANNOTATION_FORMAT_SAV: AnnotationFormat.SAV_JSON,
    dataset_pb2.ANNOTATION_FORMAT_COCO: AnnotationFormat.COCO_INSTANCES,
}
_STRATEGIES: Final = {
    dataset_pb2.SPLIT_STRATEGY_UNSPECIFIED: SplitStrategy.AUTO,
    dataset_pb2.SPLIT_STRATEGY_BY_VIDEO: SplitStrategy.GROUPED_BY_VIDEO,
    dataset_pb2.SPLIT_STRATEGY_TEMPORAL: SplitStrategy.TEMPORAL,
}
_FORMATS: Final = {
    dataset_pb2.DATASET_FORMAT_CANONICAL: DatasetFormat.CANONICAL,
    dataset_pb2.DATASET_FORMAT_HUGGING_FACE: DatasetFormat.HUGGING_FACE,
    dataset_pb2.DATASET_FORMAT_LLAVA: DatasetFormat.LLAVA,
}
_INSTRUCTIONS: Final = {
    dataset_pb2.INSTRUCTION_TASK_UNSPECIFIED: None,
    dataset_pb2.INSTRUCTION_TASK_CLASSIFY_REGION: InstructionTask.CLASSIFY_REGION,
    dataset_pb2.INSTRUCTION_TASK_LOCATE_OBJECT: InstructionTask.LOCATE_OBJECT,
}


def import_options(origin: dataset_pb2.ImportOrigin) -> ImportOptions:
    return ImportOptions(
        format=_ANNOTATIONS[origin.format],
        seed=origin.seed,
        max_quarantined_fraction=origin.max_quarantined_fraction or DEFAULT_QUARANTINED_FRACTION,
    )


def split_options(origin: dataset_pb2.SplitOrigin) -> SplitOptions:
    """Shares are relative to their sum."""
    ratios = (origin.train_ratio, origin.validation_ratio, origin.test_ratio)
    if not any(ratios):
        ratios = DEFAULT_RATIOS
    train, val, test = (ratio / sum(ratios) for ratio in ratios)
    return SplitOptions(
        strategy=_STRATEGIES[origin.strategy],
        train=train,
        val=val,
        test=test,
        gap_frames=origin.gap_frames or DEFAULT_GAP_FRAMES,
        seed=origin.seed,
    )


def convert_options(origin: dataset_pb2.ConvertOrigin) -> ConvertOptions:
    return ConvertOptions(
        target=_FORMATS[origin.format],
        instruction=_INSTRUCTIONS[origin.instruction],
        image_size_px=origin.image_size_pixels,
        seed=origin.seed,
    )


def validate_options(level: int) -> ValidateOptions:
    strict = level == validation_report_pb2.VALIDATION_LEVEL_STRICT
    return ValidateOptions(level=ValidationLevel.STRICT if strict else ValidationLevel.BASIC)


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
        splits=splits,
        classes=classes,
        has_class_names=manifest.has_class_names,
        media=sorted(manifest.media),
        ledger=ledger_summary(manifest.ledger.check()),
        leakage=manifest.leakage.score if manifest.leakage else 0.0,
        warnings=manifest.warnings,
        parent_digests=manifest.parents,
    )
    return attempt_pb2.AttemptResult(dataset=summary)


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
        )
    )


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
