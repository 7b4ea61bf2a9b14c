"""The files of runs in SQL: which there are. Their content is in the object store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    RowMapping,
    String,
    Table,
    delete,
    insert,
    select,
)

from finemesh.chassis.filtering import Field
from finemesh.chassis.paging import Listing
from finemesh.chassis.sql import Database, UtcDateTime
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.tracking.access import not_found
from finemesh.tracking.store import METADATA, RUNS

ARTIFACTS: Final = Table(
    "artifacts",
    METADATA,
    Column("run", ForeignKey(RUNS.c.name, ondelete="CASCADE"), primary_key=True),
    Column("path", String(512), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", String(256), nullable=False),
    Column("step", BigInteger),
    Column("create_time", UtcDateTime, nullable=False),
    Index("ix_artifacts_project_sha256", "project", "sha256"),
)
LISTING: Final = Listing({"path": Field(ARTIFACTS.c.path)}, key="path", default_order="path")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a run. `sha256` is hex; `step` None for what belongs to the whole run."""

    path: str
    sha256: str
    size_bytes: int
    media_type: str
    step: int | None
    create_time: datetime


class ArtifactRows:
    """On the service's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, run: Name, artifact: Artifact) -> str:
        """Store that `run` has this file. Returns the SHA-256 of the content that was under the path before;
        empty if there was none. Raises NotFoundError: there is no such run.
        """
        own = (ARTIFACTS.c.run == str(run), ARTIFACTS.c.path == artifact.path)
        async with self._db.begin() as tx:
            await tx.lock(str(run))
            if await tx.row(select(RUNS.c.name).where(RUNS.c.name == str(run))) is None:
                raise not_found(run)
            before = await tx.row(select(ARTIFACTS.c.sha256).where(*own))
            await tx.execute(delete(ARTIFACTS).where(*own))
            await tx.execute(insert(ARTIFACTS).values(run=str(run), project=run.project, **_row(artifact)))
        return before["sha256"] if before else ""

    async def list(self, run: Name, request: PageRequest) -> tuple[list[Artifact], str]:
        """One page by path, and the token of the next. Raises InvalidError."""
        page = LISTING.page(request, scope=str(run))
        async with self._db.read() as tx:
            query = page.apply(select(ARTIFACTS).where(ARTIFACTS.c.run == str(run)))
            rows, token = page.split(await tx.rows(query))
        return [_artifact(row) for row in rows], token

    async def delete(self, run: Name) -> set[str]:
        """Forget the files of a run. Returns the SHA-256 of each content."""
        async with self._db.begin() as tx:
            rows = await tx.rows(select(ARTIFACTS.c.sha256).where(ARTIFACTS.c.run == str(run)))
            await tx.execute(delete(ARTIFACTS).where(ARTIFACTS.c.run == str(run)))
        return {row["sha256"] for row in rows}

    async def used(self, project: str, contents: Collection[str]) -> set[str]:
        """Which of these contents, by SHA-256, runs of the project have."""
        query = select(ARTIFACTS.c.sha256).where(
            ARTIFACTS.c.project == project, ARTIFACTS.c.sha256.in_(sorted(contents))
        )
        async with self._db.read() as tx:
            rows: Sequence[RowMapping] = await tx.rows(query)
        return {row["sha256"] for row in rows}


def _row(artifact: Artifact) -> dict[str, Any]:
    return {
        "path": artifact.path,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "media_type": artifact.media_type,
        "step": artifact.step,
        "create_time": artifact.create_time,
    }


def _artifact(row: RowMapping) -> Artifact:
    return Artifact(
        path=row["path"],
        sha256=row["sha256"],
        size_bytes=row["size_bytes"],
        media_type=row["media_type"],
        step=row["step"],
        create_time=row["create_time"],
    )
