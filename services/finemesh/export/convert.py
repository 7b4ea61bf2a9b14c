"""Messages of the contract to values of the domain and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

from google.api import field_behavior_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from finemesh.chassis.errors import record_to_status
from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.labels import describe_violations
from finemesh.core.names import Name, parse_name
from finemesh.core.spec.export import CheckpointSelection, ExportFormat
from finemesh.export.domain import Export, ExportResult, PackageFile, ParityReport, SourceCheckpoint
from finemesh.export.service import Draft
from finemesh.v1 import attempt_pb2, training_job_pb2
from finemesh.v1 import export_pb2 as pb

_FORMATS: Final = {pb.ExportFormat.Value(f"EXPORT_FORMAT_{each}"): each for each in ExportFormat}
_EVIDENCE: Final = ("checks", "differences", "reasons", "metric")
_CHOICES: Final = {
    pb.Export.CHECKPOINT_CHOICE_UNSPECIFIED: CheckpointSelection.BEST,
    pb.Export.CHECKPOINT_CHOICE_BEST: CheckpointSelection.BEST,
    pb.Export.CHECKPOINT_CHOICE_LAST: CheckpointSelection.LAST,
    pb.Export.CHECKPOINT_CHOICE_STEP: CheckpointSelection.STEP,
}
# Fields of a request that say nothing of what is in the package, or that are looked at by themselves.
_NO_OPTIONS: Final = frozenset(
    {
        *("name", "display_name", "labels", "expire_time", "pinned"),
        *("training_job", "checkpoint", "step", "format"),
    }
)


def draft_from_proto(message: pb.Export, name: Name, now: datetime) -> Draft:
    """The checked content of a create request.

    Raises InvalidError, reason INVALID_EXPORT, naming every wrong field under `export` at once.
    """
    violations = list(describe_violations(message.display_name, message.labels, "export"))
    job = job_of(message.training_job)
    try:
        if parse_name(job, "trainingJobs").project != name.project:
            violations.append(
                FieldViolation(
                    "export.training_job", f"{message.training_job} is not in project {name.project!r}"
                )
            )
    except InvalidError as error:
        violations.append(FieldViolation("export.training_job", error.violations[0].description))
    if message.format not in _FORMATS:
        problem = f"choose one: {', '.join(_FORMATS.values())}"
        violations.append(FieldViolation("export.format", problem))
    if message.checkpoint not in _CHOICES:
        violations.append(FieldViolation("export.checkpoint", "choose one: BEST, LAST or STEP"))
    violations += _step_violations(message)
    violations += expiry_violations(message, now)
    if violations:
        listed = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidError(listed, violations=violations, reason="INVALID_EXPORT")
    return Draft(
        name=name,
        training_job=job,
        choice=_CHOICES[message.checkpoint],
        format=_FORMATS[message.format],
        display_name=message.display_name,
        labels=dict(message.labels),
        step=message.step,
        options=_options_digest(message),
        expire_time=expire_time_of(message),
        pinned=message.pinned,
        allow_drift=message.allow_drift,
        licence_override=message.licence_override.strip(),
    )


def job_of(name: str) -> str:
    """The name of a training job, given that or the name of its run, which has the same id."""
    head, _, run = name.partition("/runs/")
    return f"{head}/trainingJobs/{run}" if run else name


def expire_time_of(message: pb.Export) -> datetime | None:
    """None where it is unset."""
    return message.expire_time.ToDatetime(UTC) if message.HasField("expire_time") else None


def expiry_violations(message: pb.Export, now: datetime) -> Iterator[FieldViolation]:
    """What is wrong with `expire_time`."""
    expire_time = expire_time_of(message)
    if expire_time is not None and expire_time <= now:
        problem = f"{expire_time.isoformat()} is over: give a later time, or none"
        yield FieldViolation("export.expire_time", problem)


def _step_violations(message: pb.Export) -> Iterator[FieldViolation]:
    named = message.checkpoint == pb.Export.CHECKPOINT_CHOICE_STEP
    if named and message.step < 1:
        yield FieldViolation("export.step", "name the step of the checkpoint, 1 or more")
    if message.step and not named:
        yield FieldViolation("export.step", "is only read with checkpoint STEP: set that, or leave it out")


def _options_digest(message: pb.Export) -> str:
    """SHA-256 over every field that its sender may set and that changes what is in the package."""
    options = pb.Export()
    options.CopyFrom(message)
    for field in pb.Export.DESCRIPTOR.fields:
        behaviours: Sequence[int] = field.GetOptions().Extensions[
            cast("Any", field_behavior_pb2.field_behavior)
        ]
        if field.name in _NO_OPTIONS or field_behavior_pb2.OUTPUT_ONLY in behaviours:
            options.ClearField(field.name)
    return hashlib.sha256(options.SerializeToString(deterministic=True)).hexdigest()


def export_to_proto(export: Export) -> pb.Export:
    """The resource as clients see it."""
    message = pb.Export(
        name=str(export.name),
        display_name=export.display_name,
        labels=export.labels,
        training_job=export.training_job,
        checkpoint=f"CHECKPOINT_CHOICE_{export.choice}",
        format=f"EXPORT_FORMAT_{export.format}",
        state=f"STATE_{export.state}",
        step=export.source.checkpoint.step,
        size_bytes=export.size_bytes,
        manifest_sha256=export.manifest_sha256,
        attempt=export.attempt,
        create_time=timestamp(export.create_time),
        start_time=timestamp(export.start_time),
        end_time=timestamp(export.end_time),
        update_time=timestamp(export.update_time),
        group=export.group,
        made_by=export.made_by,
        expire_time=timestamp(export.expire_time),
        pinned=export.pinned,
        download_count=export.download_count,
        link_count=export.link_count,
        last_download_time=timestamp(export.last_download_time),
        allow_drift=export.source.allow_drift,
        licence_override=export.source.licence_override,
        licence_override_subject=export.source.licence_override_subject,
    )
    message.progress.fraction = export.fraction
    message.progress.message = export.message
    if export.report_time is not None:
        message.progress.update_time.FromDatetime(export.report_time)
    if export.parity is not None:
        message.parity.CopyFrom(_parity_to_proto(export.parity))
    if export.error is not None:
        message.error.CopyFrom(record_to_status(export.error))
    return message


def _parity_to_proto(parity: ParityReport) -> pb.ParityReport:
    message = pb.ParityReport(
        items=parity.items,
        max_logit_difference=parity.max_logit_difference,
        logit_tolerance=parity.logit_tolerance,
        token_agreement=parity.token_agreement,
        passed=parity.passed,
        runtime=parity.runtime,
    )
    return ParseDict(dict(parity.evidence), message)


def result_from_proto(message: attempt_pb2.AttemptResult) -> ExportResult:
    """Raises InvalidError when an attempt at another kind of work speaks, or has measured nothing."""
    if message.WhichOneof("result") != "export":
        raise InvalidError.of("result", "an attempt at an export ends with `export`")
    result, parity = message.export, message.export.parity
    if parity.passed and parity.items < 1:
        raise InvalidError.of("result.export.parity", "nothing was compared: an export is proven or rejected")
    return ExportResult(
        parity=ParityReport(
            items=parity.items,
            max_logit_difference=parity.max_logit_difference,
            logit_tolerance=parity.logit_tolerance,
            token_agreement=parity.token_agreement,
            passed=parity.passed,
            runtime=parity.runtime,
            evidence=_evidence_of(parity),
        ),
        size_bytes=result.size_bytes,
        manifest_sha256=result.manifest_sha256,
        files=_files_of(result),
    )


def _evidence_of(parity: pb.ParityReport) -> dict[str, Any]:
    """What says more than the figures, as JSON; whoever reads an older one finds less of it."""
    content = MessageToDict(parity, preserving_proto_field_name=True)
    return {name: content[name] for name in _EVIDENCE if name in content}


def _files_of(result: attempt_pb2.ExportResult) -> tuple[PackageFile, ...] | None:
    """None where a cluster of an earlier release does not tell."""
    files = sorted(PackageFile(each.path, each.size_bytes, each.sha256, each.crc32) for each in result.files)
    return tuple(files) or None


def checkpoint_from_proto(message: training_job_pb2.Checkpoint) -> SourceCheckpoint:
    """A checkpoint as Training tells of it."""
    return SourceCheckpoint(
        step=message.step,
        uri=message.uri,
        manifest_sha256=message.manifest_sha256,
        size_bytes=message.size_bytes,
        attempt=message.attempt,
        metrics=dict(message.metrics),
        sample_hash=message.sample_hash,
        best=message.best,
    )


def checkpoint_to_proto(checkpoint: SourceCheckpoint) -> training_job_pb2.Checkpoint:
    """The checkpoint for a command."""
    return training_job_pb2.Checkpoint(
        step=checkpoint.step,
        uri=checkpoint.uri,
        manifest_sha256=checkpoint.manifest_sha256,
        size_bytes=checkpoint.size_bytes,
        attempt=checkpoint.attempt,
        metrics=checkpoint.metrics,
        sample_hash=checkpoint.sample_hash,
        best=checkpoint.best,
    )


def timestamp(value: datetime | None) -> Timestamp | None:
    """`value` as a message; None stays None."""
    if value is None:
        return None
    message = Timestamp()
    message.FromDatetime(value)
    return message
