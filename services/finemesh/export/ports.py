"""What the use cases need of the world outside: a store, the jobs, the datasets, the packages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from finemesh.core.attempts import Attempt
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.export.domain import Export, PackageFile, SourceCheckpoint, Step
from finemesh.export.retention import Retention


class View(Protocol):
    """One consistent look at what the service keeps. Every query is bound to the project of its name."""

    async def export(self, name: Name) -> Export:
        """Raises NotFoundError, reason EXPORT_NOT_FOUND."""
        ...

    async def exports(self, project: str, query: PageRequest) -> tuple[list[Export], str]:
        """One page, and the token of the next. Raises InvalidError naming what is wrong with the query."""
        ...

    async def is_known(self, key: RequestKey) -> bool:
        """Whether a request with this key was carried out before."""
        ...

    async def group(self, project: str, group: str) -> list[Export]:
        """The exports that one request made, in the order in which it made them."""
        ...

    async def maker(self, export: Export) -> Export | None:
        """Another export of the project that has made, or else is making, what `export` asks for."""
        ...

    async def waiting(self) -> list[Name]:
        """The exports that wait for one which is making the same package, the oldest first."""
        ...

    async def retention(self, project: str) -> Retention:
        """For how long the exports of a project are kept."""
        ...

    async def expired(self, now: datetime) -> list[Name]:
        """The exports that have had their time, by their own `expire_time` or their project's retention."""
        ...

    async def garbage(self, now: datetime) -> list[str]:
        """URIs below which everything is to be deleted now."""
        ...


class Unit(View, Protocol):
    """One transaction: exports, attempts, events and commands change together or not at all."""

    async def claim(self, key: RequestKey | None, name: Name) -> Name | None:
        """Note that `key` creates `name`; the name that an earlier request with this key created, if one did.

        Raises AlreadyExistsError, reason REQUEST_ID_REUSED.
        """
        ...

    async def add(self, export: Export) -> None:
        """Raises AlreadyExistsError, reason EXPORT_EXISTS."""
        ...

    async def locked(self, name: Name) -> Export:
        """The export, which nobody else changes until this transaction ends. Raises NotFoundError."""
        ...

    async def save(self, step: Step) -> Export:
        """Store the export and publish the facts. Returns it with its new revision."""
        ...

    async def same_content(self, export: Export) -> None:
        """Wait for whoever decides about the same package, and keep others waiting to the end of this unit.

        Take the lock of the export first, here as everywhere.
        """
        ...

    async def remove(self, export: Export) -> bool:
        """Remove an export. Returns whether nobody else has its package, so that it can be deleted."""
        ...

    async def discard(self, uri: str, when: datetime) -> None:
        """Note that everything below `uri` is to be deleted at that time."""
        ...

    async def discarded(self, uri: str, now: datetime) -> None:
        """Note that this was done."""
        ...

    async def count(self, name: Name, *, archive: bool, now: datetime) -> None:
        """Count a download: of an archive, or of the URLs of all files."""
        ...

    async def keep_files(self, export: Export, files: Sequence[PackageFile]) -> None:
        """Note the checksums of a package that was made before they were asked for."""
        ...

    async def set_retention(self, project: str, retention: Retention) -> None: ...

    async def dispatch(self, name: Name, *, delay_seconds: float = 0.0) -> Attempt:
        """Start the next attempt on a live cluster, now or later. Raises PreconditionError (ATTEMPT_LIVE)."""
        ...

    async def request_cancel(self, name: Name) -> Attempt | None:
        """Tell the live attempt to stop; None when nobody works on the export."""
        ...


class Store(Protocol):
    """Where the service keeps its exports."""

    def read(self) -> AbstractAsyncContextManager[View]: ...

    def begin(self) -> AbstractAsyncContextManager[Unit]:
        """A transaction; commits at the end of the block, rolls back on an error."""
        ...


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What matters of a training job for an export. `checkpoints` are those kept, latest first."""

    name: str
    state: str
    spec: FineTuneSpec
    run: str
    checkpoints: tuple[SourceCheckpoint, ...]


class Jobs(Protocol):
    """Training, as Export sees it."""

    async def describe(self, name: str) -> JobFacts:
        """Raises NotFoundError; UnavailableError when Training is away."""
        ...


class Datasets(Protocol):
    """DataPrep, as Export sees it."""

    async def digest(self, name: str) -> str:
        """Digest of a dataset's content. Raises NotFoundError; UnavailableError when DataPrep is away."""
        ...


class Packages(Protocol):
    """The packages on the object store, by `s3://` URI."""

    async def files(self, uri: str) -> Sequence[PackageFile]:
        """The files of a complete package, by path, read for their CRC-32.

        Raises NotFoundError, UnavailableError.
        """
        ...

    def read(self, uri: str, path: str, start: int, length: int) -> AsyncIterator[bytes]:
        """A part of one file, in chunks."""
        ...

    def url(self, uri: str, path: str, seconds: int) -> str:
        """A URL to fetch one file by, for that long."""
        ...

    async def delete(self, uri: str) -> None:
        """Delete whatever is below `uri`. Raises UnavailableError."""
        ...
