"""Datasets, reports and uploads in SQL. Every query is confined to one project."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from finemesh.chassis.filtering import Field, Kind
from finemesh.chassis.paging import Listing
from finemesh.chassis.sql import Tx, UtcDateTime
from finemesh.chassis.tables import chassis_tables
from finemesh.core.errors import AlreadyExistsError, ErrorRecord, NotFoundError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.core.spec import codec
from finemesh.core.spec.data import (
    MaskProof,
    ValidateOptions,
)
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.core.states import DatasetState, PreflightReportState, ValidationReportState
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
    SplitOrigin,
    Upload,
    ValidationResult,
    Work,
)

METADATA: Final = MetaData()
CHASSIS: Final = chassis_tables(METADATA)


def _life_columns() -> list[Column[Any]]:
    return [
        Column("state", String(16), nullable=False),
        Column("fraction", Float, nullable=False),
        Column("message", String(512), nullable=False),
        Column("report_time", UtcDateTime),
        Column("attempt", Integer, nullable=False),
        Column("error", JSON),
        Column("create_time", UtcDateTime, nullable=False),
        Column("update_time", UtcDateTime, nullable=False),
        Column("start_time", UtcDateTime),
        Column("end_time", UtcDateTime),
        Column("revision", Integer, nullable=False),
    ]


DATASETS: Final = Table(
    "datasets",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("display_name", String(256), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("origin_case", String(16), nullable=False),
    Column("origin", JSON, nullable=False),
    Column("format", String(32), nullable=False),
    Column("summary", JSON),
    *_life_columns(),
)


def _reports(name: str) -> Table:
    return Table(
        name,
        METADATA,
        Column("project", String(63), primary_key=True),
        Column("dataset", String(63), primary_key=True),
        Column("id", String(63), primary_key=True),
        Column("options", JSON, nullable=False),
        Column("result", JSON),
        *_life_columns(),
    )


REPORTS: Final = _reports("validation_reports")
PREFLIGHTS: Final = _reports("preflight_reports")
UPLOADS: Final = Table(
    "uploads",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("filename", String(512), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("expire_time", UtcDateTime, nullable=False),
)

DATASET_LISTING: Final = Listing(
    {
        "name": Field(DATASETS.c.id),
        "display_name": Field(DATASETS.c.display_name),
        "state": Field(DATASETS.c.state, Kind.ENUM, tuple(DatasetState)),
        "format": Field(DATASETS.c.format, Kind.ENUM, ("CANONICAL", "HUGGING_FACE", "LLAVA")),
        "create_time": Field(DATASETS.c.create_time, Kind.TIME),
        "update_time": Field(DATASETS.c.update_time, Kind.TIME),
    }
)
REPORT_LISTING: Final = Listing(
    {"name": Field(REPORTS.c.id), "create_time": Field(REPORTS.c.create_time, Kind.TIME)}
)
PREFLIGHT_LISTING: Final = Listing(
    {"name": Field(PREFLIGHTS.c.id), "create_time": Field(PREFLIGHTS.c.create_time, Kind.TIME)}
)


class Store:
    """Reads and writes within a transaction of the caller."""

    # Uploads

    async def insert_upload(self, tx: Tx, upload: Upload) -> None:
        values = {
            each.name: getattr(upload, each.name)
            for each in dataclasses.fields(upload)
            if each.name != "name"
        }
        await tx.execute(insert(UPLOADS).values(project=upload.name.project, id=upload.name.id, **values))

    async def upload(self, tx: Tx, name: Name) -> Upload:
        """Raises NotFoundError, reason UPLOAD_NOT_FOUND."""
        row = await tx.row(select(UPLOADS).filter_by(project=name.project, id=name.id))
        if row is None:
            raise _not_found("upload", name)
        values = {key: value for key, value in row.items() if key not in {"project", "id"}}
        return Upload(name=name, **values)

    # Datasets

    async def insert_dataset(self, tx: Tx, dataset: Dataset) -> None:
        """Raises AlreadyExistsError, reason DATASET_EXISTS."""
        values = {"project": dataset.name.project, "id": dataset.name.id, **_dataset_values(dataset)}
        if not await tx.insert_new(DATASETS, **values):
            raise AlreadyExistsError(
                f"{dataset.name} exists already: choose another id, or leave it out",
                reason="DATASET_EXISTS",
                metadata={"dataset": str(dataset.name)},
            )

    async def dataset(self, tx: Tx, name: Name) -> Dataset:
        """Raises NotFoundError, reason DATASET_NOT_FOUND."""
        row = await tx.row(select(DATASETS).filter_by(project=name.project, id=name.id))
        if row is None:
            raise _not_found("dataset", name)
        return _dataset(row)

    async def datasets(self, tx: Tx, project: str, request: PageRequest) -> tuple[list[Dataset], str]:
        """A page of the project's datasets, and the token of the next."""
        page = DATASET_LISTING.page(request, scope=project)
        rows, token = page.split(await tx.rows(page.apply(select(DATASETS).filter_by(project=project))))
        return [_dataset(row) for row in rows], token

    async def delete_dataset(self, tx: Tx, name: Name) -> None:
        """Delete a dataset with its reports."""
        for reports in (REPORTS, PREFLIGHTS):
            await tx.execute(delete(reports).filter_by(project=name.project, dataset=name.id))
        await tx.execute(delete(DATASETS).filter_by(project=name.project, id=name.id))

    # Reports

    async def insert_report(self, tx: Tx, report: Report) -> None:
        await tx.execute(insert(REPORTS).values(**_report_keys(report.name), **_report_values(report)))

    async def report(self, tx: Tx, name: Name) -> Report:
        """Raises NotFoundError, reason VALIDATION_REPORT_NOT_FOUND."""
        row = await tx.row(select(REPORTS).filter_by(**_report_keys(name)))
        if row is None:
            raise _not_found("validation report", name)
        return _report(row)

    async def reports(self, tx: Tx, dataset: Name, request: PageRequest) -> tuple[list[Report], str]:
        """A page of a dataset's reports, and the token of the next."""
        page = REPORT_LISTING.page(request, scope=str(dataset))
        query = select(REPORTS).filter_by(project=dataset.project, dataset=dataset.id)
        rows, token = page.split(await tx.rows(page.apply(query)))
        return [_report(row) for row in rows], token

    async def live_reports(self, tx: Tx, dataset: Name) -> int:
        """How many validations and preflights of a dataset are under way."""
        count = 0
        for table in (REPORTS, PREFLIGHTS):
            query = select(table.c.id).filter_by(project=dataset.project, dataset=dataset.id)
            live = table.c.state.in_(("QUEUED", "RUNNING", "CANCELLING"))
            count += len(await tx.rows(query.where(live)))
        return count

    async def insert_preflight(self, tx: Tx, preflight: Preflight) -> None:
        keys = _report_keys(preflight.name)
        await tx.execute(insert(PREFLIGHTS).values(**keys, **_preflight_values(preflight)))

    async def preflight(self, tx: Tx, name: Name) -> Preflight:
        """Raises NotFoundError, reason PREFLIGHT_REPORT_NOT_FOUND."""
        row = await tx.row(select(PREFLIGHTS).filter_by(**_report_keys(name)))
        if row is None:
            raise _not_found("preflight report", name)
        return _preflight(row)

    async def preflights(self, tx: Tx, dataset: Name, request: PageRequest) -> tuple[list[Preflight], str]:
        """A page of a dataset's preflight reports, and the token of the next."""
        page = PREFLIGHT_LISTING.page(request, scope=str(dataset))
        query = select(PREFLIGHTS).filter_by(project=dataset.project, dataset=dataset.id)
        rows, token = page.split(await tx.rows(page.apply(query)))
        return [_preflight(row) for row in rows], token

    # Any of them

    async def item(self, tx: Tx, name: Name) -> Work:
        """The dataset or report that a name of work means."""
        match name.child_collection:
            case "validationReports":
                return await self.report(tx, name)
            case "preflightReports":
                return await self.preflight(tx, name)
            case _:
                return await self.dataset(tx, name)

    async def save(self, tx: Tx, item: Work) -> None:
        """Write a changed item and count the change."""
        name = item.name
        match item:
            case Dataset():
                statement = update(DATASETS).filter_by(project=name.project, id=name.id)
                values = _dataset_values(item)
            case Report():
                statement = update(REPORTS).filter_by(**_report_keys(name))
                values = _report_values(item)
            case Preflight():
                statement = update(PREFLIGHTS).filter_by(**_report_keys(name))
                values = _preflight_values(item)
        await tx.execute(statement.values(values | {"revision": item.life.revision + 1}))


def _not_found(noun: str, name: Name) -> NotFoundError:
    return NotFoundError(
        f"there is no {noun} {name}",
        reason=f"{noun.upper().replace(' ', '_')}_NOT_FOUND",
        metadata={noun.replace(" ", "_"): str(name)},
    )


_ORIGINS: Final[dict[str, type[Origin]]] = {
    kind.case: kind for kind in (ImportOrigin, SplitOrigin, ConvertOrigin)
}


def _life_values(life: Life[Any]) -> dict[str, Any]:
    values = {each.name: getattr(life, each.name) for each in dataclasses.fields(life)}
    return values | {
        "error": dataclasses.asdict(life.error) if life.error else None,
        "message": life.message[:512],
    }


L = TypeVar("L", DatasetState, ValidationReportState, PreflightReportState)


def _life(row: RowMapping, states: type[L]) -> Life[L]:
    values = {each.name: row[each.name] for each in dataclasses.fields(Life)}
    error: Mapping[str, Any] | None = values.pop("error")
    return Life(state=states(values.pop("state")), error=ErrorRecord(**error) if error else None, **values)


def _dataset_values(dataset: Dataset) -> dict[str, Any]:
    return {
        "display_name": dataset.display_name,
        "labels": dict(dataset.labels),
        "origin_case": dataset.origin.case,
        "origin": codec.encode(dataset.origin),
        "format": dataset.format.name,
        "summary": dataclasses.asdict(dataset.summary) if dataset.summary else None,
        **_life_values(dataset.life),
    }


def _dataset(row: RowMapping) -> Dataset:
    return Dataset(
        name=Name(row["project"], "datasets", row["id"]),
        origin=_origin(row["origin_case"], row["origin"]),
        life=_life(row, DatasetState),
        display_name=row["display_name"],
        labels=row["labels"],
        summary=_summary(row["summary"]) if row["summary"] else None,
    )


def _origin(case: str, stored: Mapping[str, Any]) -> Origin:
    return codec.decode(_ORIGINS[case], stored, "origin")


def _summary(values: dict[str, Any]) -> DatasetSummary:
    pairs = {key: tuple((name, count) for name, count in values[key]) for key in ("splits", "classes")}
    texts = {key: tuple(values[key]) for key in ("media", "warnings", "parent_digests")}
    tables = {"class_splits": tuple(ClassSplitCount(**each) for each in values.get("class_splits", ()))}
    shares: Mapping[str, Any] | None = values.get("leakage_shares")
    proof: Mapping[str, Any] | None = values.get("mask_proof")
    parts = {
        "ledger": LedgerSummary(**values["ledger"]),
        "leakage_shares": LeakageShares(**shares) if shares else None,
        "mask_proof": MaskProof(**proof) if proof else None,
    }
    merged: dict[str, Any] = {**values, **pairs, **texts, **tables, **parts}
    return DatasetSummary(**merged)


def _report_keys(name: Name) -> dict[str, str]:
    return {"project": name.project, "dataset": name.id, "id": name.child_id}


def _preflight_values(preflight: Preflight) -> dict[str, Any]:
    result = dict(preflight.result.content) if preflight.result else None
    return {"options": codec.encode(preflight.options), "result": result, **_life_values(preflight.life)}


def _preflight(row: RowMapping) -> Preflight:
    return Preflight(
        name=Name(row["project"], "datasets", row["dataset"], "preflightReports", row["id"]),
        options=codec.decode(PreflightOptions, row["options"], "options"),
        life=_life(row, PreflightReportState),
        result=PreflightResult(row["result"]) if row["result"] else None,
    )


def _report_values(report: Report) -> dict[str, Any]:
    result = dataclasses.asdict(report.result) if report.result else None
    return {"options": codec.encode(report.options), "result": result, **_life_values(report.life)}


def _report(row: RowMapping) -> Report:
    return Report(
        name=Name(row["project"], "datasets", row["dataset"], "validationReports", row["id"]),
        options=codec.decode(ValidateOptions, row["options"], "options"),
        life=_life(row, ValidationReportState),
        result=_result(row["result"]) if row["result"] else None,
    )


def _result(values: dict[str, Any]) -> ValidationResult:
    merged: dict[str, Any] = {**values, "findings": tuple(Finding(**each) for each in values["findings"])}
    return ValidationResult(**merged)
