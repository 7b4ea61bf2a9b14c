"""The service's store on SQL: exports, and with them events, commands and attempts in one transaction."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping, delete, or_, select, update

from finemesh.chassis.attempts import AttemptQueue
from finemesh.chassis.filtering import Field, Kind
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.paging import Listing
from finemesh.chassis.requests import Requests
from finemesh.chassis.sql import Database, Tx
from finemesh.chassis.telemetry import TraceContext, current_trace, span, trace_headers
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import Attempt
from finemesh.core.errors import AlreadyExistsError, NotFoundError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.core.spec.export import ExportFormat
from finemesh.core.states import ExportState
from finemesh.export.domain import Export, ExportResult, PackageFile, Step
from finemesh.export.events import event_of
from finemesh.export.retention import UNLIMITED, Ended, Retention, expired
from finemesh.export.rows import (
    ended_of,
    export_of,
    export_values,
    files_values,
    retention_of,
    retention_values,
)
from finemesh.export.tables import CHASSIS, EXPORTS, GARBAGE, RETENTIONS

_LISTING: Final = Listing(
    {
        "name": Field(EXPORTS.c.name),
        "state": Field(EXPORTS.c.state, Kind.ENUM, tuple(ExportState)),
        "format": Field(EXPORTS.c.format, Kind.ENUM, tuple(ExportFormat)),
        "training_job": Field(EXPORTS.c.training_job),
        "step": Field(EXPORTS.c.step, Kind.NUMBER),
        "group": Field(EXPORTS.c.group_id),
        "pinned": Field(EXPORTS.c.pinned, Kind.BOOL),
        "labels": Field(EXPORTS.c.labels, Kind.LABELS),
        "display_name": Field(EXPORTS.c.display_name),
        "create_time": Field(EXPORTS.c.create_time, Kind.TIME),
        "end_time": Field(EXPORTS.c.end_time, Kind.TIME),
        "expire_time": Field(EXPORTS.c.expire_time, Kind.TIME),
        "update_time": Field(EXPORTS.c.update_time, Kind.TIME),
    }
)


# What `count` counts, without a lock.
_COUNTED: Final = ("download_count", "link_count", "last_download_time")
# States in which an export makes, or has made, a package that others can be given.
_MAKES: Final = (ExportState.QUEUED, ExportState.RUNNING, ExportState.VERIFYING, ExportState.SUCCEEDED)


class SqlStore:
    """Implements `ports.Store`. Work goes to `default_cluster` while no cluster is live."""

    def __init__(
        self,
        db: Database,
        outbox: Outbox,
        queue: AttemptQueue[ExportResult],
        notifier: Notifier,
        *,
        default_cluster: str,
        live_seconds: float,
    ) -> None:
        self.db = db
        self.outbox = outbox
        self.queue = queue
        self.notifier = notifier
        self.default_cluster = default_cluster
        self.live_seconds = live_seconds
        self.requests = Requests(CHASSIS, outbox.clock)

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncGenerator[SqlUnit]:
        async with self.db.read() as tx:
            yield SqlUnit(self, tx)

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncGenerator[SqlUnit]:
        async with self.db.begin() as tx:
            yield SqlUnit(self, tx)


class SqlUnit:
    """Implements `ports.Unit` on an open transaction."""

    def __init__(self, store: SqlStore, tx: Tx) -> None:
        self._store = store
        self._tx = tx

    async def export(self, name: Name) -> Export:
        row = await self._tx.row(select(EXPORTS).where(*_is(name)))
        if row is None:
            raise NotFoundError(
                f"there is no {name}: list the exports of its project to see which there are",
                reason="EXPORT_NOT_FOUND",
                metadata={"export": str(name)},
            )
        return export_of(row)

    async def exports(self, project: str, query: PageRequest) -> tuple[list[Export], str]:
        page = _LISTING.page(query, scope=project)
        rows = await self._tx.rows(page.apply(select(EXPORTS).where(EXPORTS.c.project == project)))
        kept, token = page.split(rows)
        return [export_of(row) for row in kept], token

    async def is_known(self, key: RequestKey) -> bool:
        requests = CHASSIS.requests
        query = select(requests.c.resource).where(
            requests.c.project == key.project,
            requests.c.method == key.method,
            requests.c.request_id == key.request_id,
        )
        return await self._tx.row(query) is not None

    async def group(self, project: str, group: str) -> list[Export]:
        mine = select(EXPORTS).where(EXPORTS.c.project == project, EXPORTS.c.group_id == group)
        rows = await self._tx.rows(mine.order_by(EXPORTS.c.create_time, EXPORTS.c.id))
        return [export_of(row) for row in rows]

    async def maker(self, export: Export) -> Export | None:
        found = await self._tx.rows(
            select(EXPORTS)
            .where(
                EXPORTS.c.project == export.name.project,
                EXPORTS.c.content_key == export.content_key,
                EXPORTS.c.id != export.name.id,
                EXPORTS.c.waits_for == "",
                EXPORTS.c.state.in_(_MAKES),
            )
            .order_by(EXPORTS.c.create_time)
        )
        makers = [export_of(row) for row in found]
        done = [maker for maker in makers if maker.state is ExportState.SUCCEEDED]
        return next(iter(done or makers), None)

    async def waiting(self) -> list[Name]:
        query = select(EXPORTS.c.project, EXPORTS.c.id).where(
            EXPORTS.c.state == ExportState.QUEUED, EXPORTS.c.waits_for != ""
        )
        return [_name_of(row) for row in await self._tx.rows(query.order_by(EXPORTS.c.create_time))]

    async def retention(self, project: str) -> Retention:
        row = await self._tx.row(select(RETENTIONS).where(RETENTIONS.c.project == project))
        return UNLIMITED if row is None else retention_of(row)

    async def expired(self, now: datetime) -> list[Name]:
        settings = {row["project"]: retention_of(row) for row in await self._tx.rows(select(RETENTIONS))}
        concerned = or_(EXPORTS.c.expire_time <= now, EXPORTS.c.project.in_(settings))
        columns = ("project", "id", "training_job", "format", "state", "pinned", "end_time", "expire_time")
        rows = await self._tx.rows(
            select(*(EXPORTS.c[name] for name in columns)).where(EXPORTS.c.end_time.is_not(None), concerned)
        )
        ended: defaultdict[str, list[Ended]] = defaultdict(list)
        for row in rows:
            ended[row["project"]].append(ended_of(row))
        return [
            Name(project, "exports", each)
            for project, exports in ended.items()
            for each in expired(exports, settings.get(project, UNLIMITED), now)
        ]

    async def garbage(self, now: datetime) -> list[str]:
        rows = await self._tx.rows(select(GARBAGE.c.uri).where(GARBAGE.c.due_time <= now).distinct())
        return [row["uri"] for row in rows]

    async def claim(self, key: RequestKey | None, name: Name) -> Name | None:
        if key is None:
            return None
        earlier = await self._store.requests.claim(self._tx, key, str(name))
        return None if earlier is None else Name(name.project, name.collection, earlier.split("/")[3])

    async def add(self, export: Export) -> None:
        traceparent = trace_headers().get("traceparent", "")
        if not await self._tx.insert_new(EXPORTS, **export_values(export), traceparent=traceparent):
            raise AlreadyExistsError(
                f"there is a {export.name} already: choose another export_id, or leave it empty",
                reason="EXPORT_EXISTS",
                metadata={"export": str(export.name)},
            )

    async def locked(self, name: Name) -> Export:
        await self._tx.lock(str(name))
        return await self.export(name)

    async def same_content(self, export: Export) -> None:
        await self._tx.lock(f"{export.name.parent}/packages/{export.content_key}")

    async def save(self, step: Step) -> Export:
        export = replace(step.export, revision=step.export.revision + 1)
        values = {key: value for key, value in export_values(export).items() if key not in _COUNTED}
        await self._tx.execute(update(EXPORTS).where(*_is(export.name)).values(values))
        if step.facts:
            with await self._trace(export.name):
                for fact in step.facts:
                    await self._store.outbox.append(self._tx, event_of(export, fact))
        self._announce(export.name)
        return export

    async def remove(self, export: Export) -> bool:
        await self._tx.execute(delete(EXPORTS).where(*_is(export.name)))
        self._announce(export.name)
        others = select(EXPORTS.c.id).where(EXPORTS.c.output_uri == export.output_uri)
        return await self._tx.row(others.limit(1)) is None

    async def discard(self, uri: str, when: datetime) -> None:
        await self._tx.insert_new(GARBAGE, uri=uri, due_time=when)

    async def discarded(self, uri: str, now: datetime) -> None:
        await self._tx.execute(delete(GARBAGE).where(GARBAGE.c.uri == uri, GARBAGE.c.due_time <= now))

    async def count(self, name: Name, *, archive: bool, now: datetime) -> None:
        counter = EXPORTS.c.download_count if archive else EXPORTS.c.link_count
        values = {counter: counter + 1, EXPORTS.c.last_download_time: now}
        await self._tx.execute(update(EXPORTS).where(*_is(name)).values(values))

    async def keep_files(self, export: Export, files: Sequence[PackageFile]) -> None:
        same = EXPORTS.c.output_uri == export.output_uri
        await self._tx.execute(update(EXPORTS).where(same).values(files=files_values(files)))

    async def set_retention(self, project: str, retention: Retention) -> None:
        await self._tx.execute(delete(RETENTIONS).where(RETENTIONS.c.project == project))
        await self._tx.insert_new(RETENTIONS, project=project, **retention_values(retention))

    async def dispatch(self, name: Name, *, delay_seconds: float = 0.0) -> Attempt:
        cluster = await self._live_cluster()
        with await self._trace(name):
            return await self._store.queue.dispatch(self._tx, str(name), cluster, delay_seconds=delay_seconds)

    async def request_cancel(self, name: Name) -> Attempt | None:
        return await self._store.queue.request_stop(self._tx, str(name))

    async def _live_cluster(self) -> str:
        """The cluster that reported itself last; the default one while none is live: nothing is refused."""
        oldest = self._store.outbox.clock.now() - timedelta(seconds=self._store.live_seconds)
        for cluster in await self._store.queue.clusters(self._tx):
            if cluster.last_seen_time >= oldest and cluster.capacity.nodes:
                return cluster.id
        return self._store.default_cluster

    async def _trace(self, name: Name) -> contextlib.AbstractContextManager[object]:
        """The current trace, or else that of the request which created the export."""
        if current_trace() is not None:
            return contextlib.nullcontext()
        traceparent = await self._tx.scalar(select(EXPORTS.c.traceparent).where(*_is(name)))
        return span(TraceContext.parse(traceparent or ""))

    def _announce(self, name: Name) -> None:
        self._tx.after_commit(lambda: self._store.notifier.notify(str(name)))


def _name_of(row: RowMapping) -> Name:
    return Name(row["project"], "exports", row["id"])


def _is(name: Name) -> tuple[Any, Any]:
    return EXPORTS.c.project == name.project, EXPORTS.c.id == name.id
