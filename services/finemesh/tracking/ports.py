"""What the use cases need from the outside: SQL for runs, DuckDB for points."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from finemesh.chassis.auth import Principal
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.tracking.compare import Comparison
from finemesh.tracking.domain import Batch, JobFact, Run, RunPoints
from finemesh.tracking.point_reads import Snapshot

Change = Callable[[Run | None], Run | None]
"""A run as it is, None if there is none, to the run as it should be, None to leave it."""


class RunStore(Protocol):
    """Runs and their summaries. With a `principal`, runs outside its projects do not exist."""

    async def create(self, principal: Principal, run: Run, key: RequestKey | None) -> Run:
        """Store a new run, or return the one that an earlier request with the same key made.

        Raises AlreadyExistsError: RUN_EXISTS, or REQUEST_ID_REUSED for a different request.
        """
        ...

    async def get(self, principal: Principal, names: Sequence[Name]) -> list[Run]:
        """Runs in the order of `names`. Raises NotFoundError for the first that is not there."""
        ...

    async def find(self, name: Name) -> Run | None:
        """A run for the service's own decisions, whoever asks."""
        ...

    async def summarized(self) -> Mapping[str, Mapping[int, int]]:
        """Per run and attempt, the last batch that the summaries include."""
        ...

    async def is_deleted(self, name: Name) -> bool:
        """Whether a run of this name was deleted, and not created again."""
        ...

    async def list(self, principal: Principal, project: str, query: PageRequest) -> tuple[list[Run], str]:
        """One page, and the token of the next. Raises InvalidError for a bad filter, order or token."""
        ...

    async def update(self, name: Name, change: Change) -> Run | None:
        """Change a run in one transaction; a new best of its deciding metric becomes an event with it.

        Returns the run as it then is. What `change` raises rolls back and is raised.
        """
        ...

    async def update_all(self, changes: Mapping[Name, Change]) -> None:
        """The same for many runs, in one transaction."""
        ...

    async def apply_once(self, fact: JobFact, change: Change) -> Run | None:
        """The same for an event: an event that was applied before changes nothing."""
        ...

    async def delete(self, name: Name) -> None:
        """Forget a run and its summaries; that it was deleted is remembered."""
        ...

    async def publish_comparison(self, runs: Sequence[Name], comparison: Comparison) -> None:
        """State as an event that runs were compared."""
        ...


class RunFiles(Protocol):
    async def delete(self, run: Name) -> None:
        """Forget the files of a run. Raises UnavailableError."""
        ...


class PointReader(Protocol):
    """Blocking reads: call them in a thread."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """All points at one instant, for one thread. Raises UnavailableError."""
        ...

    def read(self, run: str, keys: Iterable[str] | None = None) -> RunPoints:
        """Points of a run with the marks of the same instant. Raises UnavailableError."""
        ...

    def marks(self) -> dict[str, dict[int, int]]:
        """Per run and attempt, the last durable batch."""
        ...


class PointWriter(Protocol):
    async def submit(self, batch: Batch) -> asyncio.Future[int]:
        """Queue a batch once there is room; the future gives the attempt's durable sequence number."""
        ...

    async def delete(self, run: str) -> None:
        """Remove the points of a run."""
        ...
