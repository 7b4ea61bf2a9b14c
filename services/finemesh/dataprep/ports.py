"""What the use cases need of the world outside: a database, its rows, the queue of attempts, the files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from finemesh.core.attempts import Attempt
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.dataprep.domain import Dataset, Preflight, Report, Step, Upload, Work


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file of a dataset. `path` is relative to it; `sha256` is hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


class Unit(Protocol):
    """One transaction: datasets, reports, attempts, events and commands change together or not at all."""

    async def claim(self, key: Any, name: Name) -> Name | None:
        """Note that request `key` creates `name`; the name that an earlier request with this key created.

        Raises AlreadyExistsError, reason REQUEST_ID_REUSED.
        """
        ...

    async def add_upload(self, upload: Upload) -> None: ...

    async def upload(self, name: Name) -> Upload:
        """Raises NotFoundError, reason UPLOAD_NOT_FOUND."""
        ...

    async def add(self, item: Work) -> None:
        """Raises AlreadyExistsError, reason DATASET_EXISTS."""
        ...

    async def dataset(self, name: Name) -> Dataset:
        """Raises NotFoundError, reason DATASET_NOT_FOUND."""
        ...

    async def report(self, name: Name) -> Report:
        """Raises NotFoundError, reason VALIDATION_REPORT_NOT_FOUND."""
        ...

    async def preflight(self, name: Name) -> Preflight:
        """Raises NotFoundError, reason PREFLIGHT_REPORT_NOT_FOUND."""
        ...

    async def datasets(self, project: str, query: PageRequest) -> tuple[list[Dataset], str]:
        """A page of a project's datasets, and the token of the next."""
        ...

    async def reports(self, dataset: Name, query: PageRequest) -> tuple[list[Report], str]:
        """A page of a dataset's reports, and the token of the next."""
        ...

    async def preflights(self, dataset: Name, query: PageRequest) -> tuple[list[Preflight], str]:
        """A page of a dataset's preflight reports, and the token of the next."""
        ...

    async def has_live_reports(self, dataset: Name) -> bool: ...

    async def locked(self, name: Name) -> Work:
        """The item, which nobody else changes until this transaction ends. Raises NotFoundError."""
        ...

    async def save(self, step: Step) -> Work:
        """Store the item and publish the facts. Returns it with its new revision."""
        ...

    async def remove(self, dataset: Name) -> None:
        """Delete a dataset with its reports."""
        ...

    async def dispatch(self, name: Name, *, delay_seconds: float = 0.0) -> Attempt:
        """Start the next attempt on a live cluster."""
        ...

    async def request_cancel(self, name: Name) -> Attempt | None:
        """Tell the live attempt to stop; None when nobody works on it."""
        ...

    async def started_count(self, name: Name) -> int:
        """How many attempts were ever taken up."""
        ...


class Store(Protocol):
    """Where the service keeps what it knows."""

    def read(self) -> AbstractAsyncContextManager[Unit]: ...

    def begin(self) -> AbstractAsyncContextManager[Unit]:
        """A transaction; commits at the end of the block, rolls back on an error."""
        ...


class Files(Protocol):
    """The files of datasets and uploads on the object store. Every method raises UnavailableError."""

    async def size(self, key: str) -> int | None:
        """Size of an object in bytes; None if it is not there."""
        ...

    async def files(self, dataset: Name) -> Sequence[FileFacts]:
        """The files of a complete dataset, by path."""
        ...

    async def ledger(self, dataset: Name, query: PageRequest) -> tuple[list[dict[str, Any]], str]:
        """A page of the ledger in the order of the input, and the token of the next."""
        ...

    async def delete(self, name: Name) -> None:
        """Delete everything that belongs to a resource."""
        ...
