"""Evaluations in SQL: what they are, and where their files lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    RowMapping,
    String,
    Table,
    select,
)

from finemesh.chassis.filtering import Field, Kind
from finemesh.chassis.paging import Listing
from finemesh.chassis.sql import Database, UtcDateTime
from finemesh.core.errors import AlreadyExistsError, NotFoundError
from finemesh.core.names import Name, parse_name
from finemesh.core.requests import PageRequest
from finemesh.tracking.access import not_found
from finemesh.tracking.evaluations import Evaluation
from finemesh.tracking.store import METADATA, RUNS

EVALUATIONS: Final = Table(
    "evaluations",
    METADATA,
    Column("name", String(320), primary_key=True),
    Column("run", ForeignKey(RUNS.c.name, ondelete="CASCADE"), nullable=False),
    Column("split", String(32), nullable=False),
    Column("variant", String(32), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("dataset", String(512), nullable=False),
    Column("dataset_digest", String(512), nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("item_count", Integer, nullable=False),
    Column("items_sha256", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("object_key", String(1024), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Index("ix_evaluations_run", "run", "split", "variant", "step"),
)
_COLUMNS: Final = EVALUATIONS.c
LISTING: Final = Listing(
    {
        "name": Field(_COLUMNS.name),
        "split": Field(_COLUMNS.split),
        "variant": Field(_COLUMNS.variant),
        "step": Field(_COLUMNS.step, Kind.NUMBER),
        "attempt": Field(_COLUMNS.attempt, Kind.NUMBER),
        "create_time": Field(_COLUMNS.create_time, Kind.TIME),
    },
    default_order="step desc",
)


class EvaluationRows:
    """`ports.EvaluationStore` on the service's database. Who may see a run is asked elsewhere."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, evaluation: Evaluation) -> Evaluation:
        """Store a new one, or return the one that was logged before.

        Raises:
            AlreadyExistsError: EVALUATION_EXISTS, another one was logged under the same name.
            NotFoundError: the run is not there any more.
        """
        name = str(evaluation.name)
        async with self._db.begin() as tx:
            await tx.lock(str(evaluation.run))
            if await tx.row(select(RUNS.c.name).where(RUNS.c.name == str(evaluation.run))) is None:
                raise not_found(evaluation.run)
            if await tx.insert_new(EVALUATIONS, name=name, **_row(evaluation)):
                return evaluation
            row = await tx.row(select(EVALUATIONS).where(_COLUMNS.name == name))
        assert row is not None
        found = _evaluation(row)
        if found.sha256 != evaluation.sha256:
            raise AlreadyExistsError(
                f"{name} was logged before with other content, and evaluations never change: log this one as"
                " another step, variant or attempt",
                reason="EVALUATION_EXISTS",
                metadata={"evaluation": name, "sha256": found.sha256},
            )
        return found

    async def get(self, name: Name) -> Evaluation:
        """Raises NotFoundError."""
        async with self._db.read() as tx:
            row = await tx.row(select(EVALUATIONS).where(_COLUMNS.name == str(name)))
        if row is None:
            raise NotFoundError(
                f"there is no evaluation {name}: list those of {name.parent}",
                reason="EVALUATION_NOT_FOUND",
                metadata={"evaluation": str(name)},
            )
        return _evaluation(row)

    async def list(self, run: Name, request: PageRequest) -> tuple[list[Evaluation], str]:
        """One page, and the token of the next. Raises InvalidError."""
        page = LISTING.page(request, scope=str(run))
        statement = page.apply(select(EVALUATIONS).where(_COLUMNS.run == str(run)))
        async with self._db.read() as tx:
            rows, next_page_token = page.split(await tx.rows(statement))
        return [_evaluation(row) for row in rows], next_page_token

    async def exist(self, run: Name) -> bool:
        """Whether a run has any."""
        async with self._db.read() as tx:
            return await tx.row(select(_COLUMNS.name).where(_COLUMNS.run == str(run)).limit(1)) is not None

    async def latest(self, runs: Sequence[Name], split: str) -> dict[Name, Evaluation]:
        """Of each run the evaluation of its model at the highest step, by the highest attempt at it."""
        wanted = [str(run) for run in runs]
        statement = (
            select(EVALUATIONS)
            .where(_COLUMNS.run.in_(wanted), _COLUMNS.split == split, _COLUMNS.variant == "")
            .order_by(_COLUMNS.step, _COLUMNS.attempt)
        )
        async with self._db.read() as tx:
            found = [_evaluation(row) for row in await tx.rows(statement)]
        return {each.run: each for each in found}


def _row(evaluation: Evaluation) -> dict[str, Any]:
    """All columns but the name."""
    same = ("split", "variant", "step", "attempt", "dataset", "dataset_digest", "item_count")
    more = ("items_sha256", "sha256", "object_key", "create_time")
    return {
        "run": str(evaluation.run),
        "metrics": list(evaluation.metrics),
        **{name: getattr(evaluation, name) for name in (*same, *more)},
    }


def _evaluation(row: RowMapping) -> Evaluation:
    return Evaluation(
        run=parse_name(row["run"], "runs"),
        split=row["split"],
        variant=row["variant"],
        step=row["step"],
        attempt=row["attempt"],
        dataset=row["dataset"],
        dataset_digest=row["dataset_digest"],
        metrics=tuple(row["metrics"]),
        item_count=row["item_count"],
        items_sha256=row["items_sha256"],
        sha256=row["sha256"],
        object_key=row["object_key"],
        create_time=row["create_time"],
    )
