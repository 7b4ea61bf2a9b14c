"""Requests beside CreateExport, checked and as values of the domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.labels import describe_violations
from finemesh.core.names import check_id
from finemesh.export.archive import ArchiveKind
from finemesh.export.convert import expire_time_of, expiry_violations, timestamp
from finemesh.export.retention import Retention
from finemesh.v1 import export_pb2, export_retention_pb2
from finemesh.v1 import export_service_pb2 as pb

MAX_FORMATS: Final = 16
_CHANGEABLE: Final = ("display_name", "labels", "expire_time", "pinned")
_KINDS: Final = {
    pb.ARCHIVE_FORMAT_UNSPECIFIED: ArchiveKind.ZIP,
    pb.ARCHIVE_FORMAT_ZIP: ArchiveKind.ZIP,
    pb.ARCHIVE_FORMAT_TAR: ArchiveKind.TAR,
}


def members(request: pb.BatchCreateExportsRequest, prefix: str) -> Iterator[tuple[export_pb2.Export, str]]:
    """The exports that are asked for, each with its id. Raises InvalidError, reason INVALID_EXPORT."""
    formats = list(request.formats)
    problem = ""
    if not formats or len(formats) > MAX_FORMATS:
        problem = f"name at least one format, and at most {MAX_FORMATS}"
    elif len(set(formats)) != len(formats):
        problem = "names a format twice"
    if problem:
        raise InvalidError.of("formats", problem, reason="INVALID_EXPORT")
    if request.export.format:
        problem = "is for one export alone: leave it out, and name the formats in `formats`"
        raise InvalidError.of("export.format", problem, reason="INVALID_EXPORT")
    for number in formats:
        message = export_pb2.Export()
        message.CopyFrom(request.export)
        message.format = number
        known = number in export_pb2.ExportFormat.values()
        name = export_pb2.ExportFormat.Name(number) if known else str(number)
        suffix = name.removeprefix("EXPORT_FORMAT_").lower().replace("_", "-")
        yield message, check_id(f"{prefix}-{suffix}", "export_id_prefix")


def changes_from_proto(request: pb.UpdateExportRequest, now: datetime) -> Mapping[str, Any]:
    """Fields of an export and their new values. Raises InvalidError naming every wrong field."""
    message = request.export
    paths = list(request.update_mask.paths) or list(_CHANGEABLE)
    wrong = [
        FieldViolation("update_mask", f"{path} cannot be changed; these can: {', '.join(_CHANGEABLE)}")
        for path in paths
        if path not in _CHANGEABLE
    ]
    wrong += describe_violations(message.display_name, message.labels, "export")
    wrong += expiry_violations(message, now)
    if wrong:
        listed = "; ".join(f"{violation.field}: {violation.description}" for violation in wrong)
        raise InvalidError(listed, violations=wrong, reason="INVALID_EXPORT")
    values: dict[str, Any] = {
        "display_name": message.display_name,
        "labels": dict(message.labels),
        "expire_time": expire_time_of(message),
        "pinned": message.pinned,
    }
    return {path: values[path] for path in paths}


def kind_from_proto(request: pb.DownloadExportRequest) -> ArchiveKind:
    """Raises InvalidError for a kind of archive that there is not."""
    if request.format not in _KINDS:
        raise InvalidError.of("format", "choose one: ZIP or TAR")
    return _KINDS[request.format]


def retention_project(name: str, field: str) -> str:
    """The project of a retention's name. Raises InvalidError."""
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "projects" or parts[2] != "exportRetention":
        problem = f"{name!r} is not a name of this kind: write projects/{{project}}/exportRetention"
        raise InvalidError.of(field, problem, reason="MALFORMED_NAME")
    return check_id(parts[1], field)


def retention_from_proto(message: export_retention_pb2.ExportRetention) -> Retention:
    """Raises InvalidError, reason INVALID_RETENTION, naming every wrong field at once."""
    keep_last = message.keep_last if message.HasField("keep_last") else None
    max_age = message.max_age.ToTimedelta() if message.HasField("max_age") else None
    wrong: list[FieldViolation] = []
    if keep_last is not None and keep_last < 0:
        wrong.append(FieldViolation("export_retention.keep_last", "must not be negative"))
    if max_age is not None and max_age <= timedelta():
        wrong.append(FieldViolation("export_retention.max_age", "must be positive"))
    if wrong:
        listed = "; ".join(f"{violation.field}: {violation.description}" for violation in wrong)
        raise InvalidError(listed, violations=wrong, reason="INVALID_RETENTION")
    return Retention(keep_last, max_age)


def retention_to_proto(project: str, retention: Retention) -> export_retention_pb2.ExportRetention:
    """The resource as clients see it."""
    message = export_retention_pb2.ExportRetention(
        name=f"projects/{project}/exportRetention",
        keep_last=retention.keep_last,
        update_time=timestamp(retention.update_time),
    )
    if retention.max_age is not None:
        message.max_age.FromTimedelta(retention.max_age)
    return message
