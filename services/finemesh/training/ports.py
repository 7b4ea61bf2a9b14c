"""What the use cases need of the world outside: a store, the datasets, the files of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from finemesh.core.attempts import Attempt, AttemptRef, Cluster, Directive
from finemesh.core.errors import ErrorRecord
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.training.checkpoints import Checkpoint, Retention
from finemesh.training.claims import Claim
from finemesh.training.domain import Step, TrainingJob
from finemesh.training.history import Entry
from finemesh.training.quotas import Quota
from finemesh.training.waiting import Demand


class QueueView(Protocol):
    """One consistent look at what waits, at what is held, and at the clusters: all that a pass reads."""

    async def demands(self, since: datetime | None) -> tuple[list[Demand], list[str]]:
        """The jobs that wait, and the names of those that do not: of all that changed at `since` or later.
        Without `since` all that wait.
        """
        ...

    async def busy_count(self) -> int:
        """How many jobs wait or are at work."""
        ...

    async def clusters(self) -> list[Cluster]: ...

    async def claims(self, since: Mapping[str, datetime]) -> list[Claim]:
        """What the attempts hold that are live, or ended after their cluster's time in `since`."""
        ...

    async def past_claims(self, since: datetime, project: str | None = None) -> list[Claim]:
        """What was held at `since` or later, by one project or by all."""
        ...

    async def saved_times(self, names: Sequence[Name]) -> dict[str, datetime]:
        """When the latest checkpoint of each job was committed."""
        ...

    async def quotas(self) -> dict[str, Quota]:
        """Those that were set, by project."""
        ...


class View(QueueView, Protocol):
    """One consistent look at what the service keeps. Every query is bound to the project of its name."""

    async def job(self, name: Name) -> TrainingJob:
        """Raises NotFoundError, reason TRAINING_JOB_NOT_FOUND."""
        ...

    async def jobs(self, project: str, query: PageRequest) -> tuple[list[TrainingJob], str]:
        """One page, and the token of the next. Raises InvalidError naming what is wrong with the query."""
        ...

    async def checkpoints(self, name: Name) -> list[Checkpoint]:
        """Those that are kept, oldest first."""
        ...

    async def checkpoint_page(self, name: Name, query: PageRequest) -> tuple[list[Checkpoint], str]:
        """Those that are kept, latest first."""
        ...

    async def history_page(self, name: Name, query: PageRequest) -> tuple[list[Entry], str]:
        """Entries of the history, oldest first."""
        ...

    async def expired_by(self, name: Name, step: int) -> list[str]:
        """URIs of the checkpoints that the commit of `step` let go."""
        ...

    async def unvalidated(self, now: datetime, limit: int) -> list[TrainingJob]:
        """Jobs whose checks are due."""
        ...

    async def lasting_since(self, oldest: datetime) -> list[Name]:
        """Jobs that may have lasted too long: in VALIDATING or STARTING since `oldest` or before, and those
        in RUNNING that have a limit.
        """
        ...

    async def latest_attempt(self, name: Name) -> Attempt | None:
        """The newest attempt at a job, live or ended."""
        ...

    async def quota_page(self, query: PageRequest) -> tuple[list[Quota], str]:
        """One page of those that were set, and the token of the next."""
        ...


class Unit(View, Protocol):
    """One transaction: jobs, checkpoints, attempts, events and commands change together or not at all."""

    async def tell(self, news: Mapping[str, str], now: datetime) -> None:
        """Let jobs, by name, say why they wait; those that do not wait any more stay as they are."""
        ...

    async def claim(self, key: RequestKey | None, name: Name) -> Name | None:
        """Note that `key` creates `name`; the name that an earlier request with this key created, if one did.

        Raises AlreadyExistsError, reason REQUEST_ID_REUSED.
        """
        ...

    async def add(self, job: TrainingJob) -> None:
        """Raises AlreadyExistsError, reason TRAINING_JOB_EXISTS."""
        ...

    async def locked(self, name: Name) -> TrainingJob:
        """The job, which nobody else changes until this transaction ends. Raises NotFoundError."""
        ...

    async def all_locked(self, names: Sequence[Name]) -> list[TrainingJob]:
        """Those of the jobs that there are; nobody else changes them until this transaction ends."""
        ...

    async def save(self, step: Step) -> TrainingJob:
        """Store the job, its facts and its history's new entries. Returns it with its new revision."""
        ...

    async def save_all(self, steps: Sequence[Step]) -> list[TrainingJob]:
        """The same of several jobs."""
        ...

    async def remove(self, name: Name) -> None:
        """Delete the job and its checkpoints' rows."""
        ...

    async def retain(self, name: Name, retention: Retention, commit: int) -> None:
        """Store what a commit at step `commit` keeps and lets go."""
        ...

    async def dispatch(self, job: TrainingJob, cluster: str, nodes: Sequence[str]) -> Attempt:
        """Start the next attempt, a worker on each of `nodes`. Raises PreconditionError, ATTEMPT_LIVE."""
        ...

    async def request_stop(
        self, name: Name, directive: Directive, error: ErrorRecord | None = None
    ) -> Attempt | None:
        """Tell the live attempt to stop, `error` being the cause; None when nobody works on the job."""
        ...

    async def set_quota(self, quota: Quota) -> None:
        """Store it in place of what was there."""
        ...

    async def held(self, ref: AttemptRef) -> Attempt:
        """The attempt, if it holds its lease under this fence. Raises FencedError."""
        ...


class Store(Protocol):
    """Where the service keeps its jobs."""

    def read(self) -> AbstractAsyncContextManager[View]: ...

    def begin(self) -> AbstractAsyncContextManager[Unit]:
        """A transaction; commits at the end of the block, rolls back on an error."""
        ...

    async def submit(self, job: TrainingJob, key: RequestKey | None) -> Name | None:
        """Add a job, unless an earlier request with this key has made one: then return its name.

        Raises AlreadyExistsError: TRAINING_JOB_EXISTS or REQUEST_ID_REUSED.
        """
        ...


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What matters of a dataset before it is trained on.

    Attributes:
        state: as DataPrep has it, e.g. `SUCCEEDED`.
        canonical: whether it is in the form that training reads.
        split_rows: rows per split.
        inputs, quarantined: rows that entered the stage that made it, and those of them that were set aside.
        makes_conversations: whether that stage has conversations.
        object_classes, row_classes: how many classes its objects have, and its whole rows.
        parent: the dataset it was made of; empty for an import.
    """

    name: str
    state: str
    canonical: bool
    split_rows: Mapping[str, int]
    inputs: int
    quarantined: int
    makes_conversations: bool
    parent: str
    object_classes: int = 0
    row_classes: int = 0


class Datasets(Protocol):
    """DataPrep, as Training sees it."""

    async def describe(self, name: str) -> DatasetFacts:
        """Raises NotFoundError; UnavailableError when DataPrep is away."""
        ...


class Files(Protocol):
    """The files of jobs on the object store."""

    async def delete(self, uri: str) -> None:
        """Delete everything under a prefix `s3://bucket/prefix`. Raises UnavailableError."""
        ...
