"""Exports between values and rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import RowMapping

from finemesh.core.errors import ErrorRecord
from finemesh.core.names import Name
from finemesh.core.spec.export import CheckpointSelection, ExportFormat
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.states import ExportState
from finemesh.export.domain import Export, PackageFile, ParityReport, Source, SourceCheckpoint
from finemesh.export.retention import Ended, Retention

# Columns that are fields of the same name and type.
_PLAIN: Final = (
    *("display_name", "labels", "training_job", "output_uri", "size_bytes", "manifest_sha256"),
    *("fraction", "message", "report_time", "attempt", "restarts"),
    *("create_time", "start_time", "end_time", "update_time", "revision"),
    *("content_key", "waits_for", "made_by", "expire_time", "pinned"),
    *("download_count", "link_count", "last_download_time"),
)


def export_values(export: Export) -> dict[str, Any]:
    """The columns of an export's row."""
    checkpoint = asdict(export.source.checkpoint)
    return {name: getattr(export, name) for name in _PLAIN} | {
        "project": export.name.project,
        "id": export.name.id,
        "name": str(export.name),
        "choice": export.choice,
        "format": export.format,
        "state": export.state,
        "step": export.source.checkpoint.step,
        "group_id": export.group,
        "files": None if export.files is None else files_values(export.files),
        "source": {
            "spec": export.source.spec.to_dict(),
            "checkpoint": checkpoint | {"metrics": _jsonable(checkpoint["metrics"])},
            "dataset_uri": export.source.dataset_uri,
            "lineage": dict(export.source.lineage),
            "allow_drift": export.source.allow_drift,
            "licence_override": export.source.licence_override,
            "licence_override_subject": export.source.licence_override_subject,
        },
        "parity": _jsonable(asdict(export.parity)) if export.parity else None,
        "error": asdict(export.error) if export.error else None,
    }


def export_of(row: RowMapping) -> Export:
    """The export in a row of `exports`."""
    return Export(
        **{name: row[name] for name in _PLAIN},
        name=Name(row["project"], "exports", row["id"]),
        choice=CheckpointSelection(row["choice"]),
        format=ExportFormat(row["format"]),
        state=ExportState(row["state"]),
        group=row["group_id"],
        files=None if row["files"] is None else tuple(PackageFile(**each) for each in row["files"]),
        source=_source_of(row["source"]),
        parity=_parity_of(row["parity"]) if row["parity"] else None,
        error=ErrorRecord(**row["error"]) if row["error"] else None,
    )


def files_values(files: Iterable[PackageFile]) -> list[dict[str, Any]]:
    """The column of a package's files."""
    return [asdict(file) for file in files]


def ended_of(row: RowMapping) -> Ended:
    """What retention looks at, of a row of `exports`."""
    return Ended(
        id=row["id"],
        line=(row["training_job"], row["format"]),
        released=row["state"] == ExportState.SUCCEEDED,
        pinned=row["pinned"],
        end_time=row["end_time"],
        expire_time=row["expire_time"],
    )


def retention_of(row: RowMapping) -> Retention:
    """The retention in a row of `retentions`."""
    seconds = row["max_age_seconds"]
    max_age = None if seconds is None else timedelta(seconds=seconds)
    return Retention(row["keep_last"], max_age, row["update_time"])


def retention_values(retention: Retention) -> dict[str, Any]:
    """The columns of a retention's row, but for the project."""
    return {
        "keep_last": retention.keep_last,
        "max_age_seconds": None if retention.max_age is None else retention.max_age.total_seconds(),
        "update_time": retention.update_time,
    }


def _source_of(value: Mapping[str, Any]) -> Source:
    checkpoint = SourceCheckpoint(**value["checkpoint"])
    metrics = {key: float(number) for key, number in checkpoint.metrics.items()}
    spec = FineTuneSpec.from_dict(value["spec"])
    fields: dict[str, Any] = {"spec": spec, "checkpoint": replace(checkpoint, metrics=metrics)}
    return Source(**{**value, **fields})


def _parity_of(value: Mapping[str, Any]) -> ParityReport:
    floats: dict[str, Any] = {
        key: float(value[key]) for key in ("max_logit_difference", "logit_tolerance", "token_agreement")
    }
    return ParityReport(**{**value, **floats})


def _jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity and no NaN, and PostgreSQL insists on JSON: they are written as text."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
