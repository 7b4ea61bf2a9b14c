"""A transaction over the store, the queue, the requests and the outbox: the port `Unit` in SQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from finemesh.chassis.attempts import AttemptQueue
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.requests import Requests
from finemesh.chassis.sql import Database, Tx
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import Attempt
from finemesh.core.names import Name, parse_name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.dataprep.domain import Dataset, Preflight, Report, Result, Step, Upload, Work
from finemesh.dataprep.events import event_of
from finemesh.dataprep.store import CHASSIS, Store

CLUSTER_LIVE_SECONDS = 60.0


class SqlStore:
    """Implements `ports.Store`."""

    def __init__(
        self,
        db: Database,
        outbox: Outbox,
        queue: AttemptQueue[Result],
        notifier: Notifier,
        *,
        default_cluster: str,
    ) -> None:
        self.rows = Store()
        self.requests = Requests(CHASSIS, outbox.clock)
        self.outbox = outbox
        self.queue = queue
        self.notifier = notifier
        self.default_cluster = default_cluster
        self._db = db

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[SqlUnit]:
        async with self._db.read() as tx:
            yield SqlUnit(self, tx)

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[SqlUnit]:
        async with self._db.begin() as tx:
            yield SqlUnit(self, tx)


class SqlUnit:
    """Implements `ports.Unit`."""

    def __init__(self, store: SqlStore, tx: Tx) -> None:
        self._store = store
        self._rows = store.rows
        self._tx = tx

    async def claim(self, key: RequestKey | None, name: Name) -> Name | None:
        earlier = await self._store.requests.claim(self._tx, key, str(name))
        if earlier is None:
            return None
        return parse_name(earlier, name.kind)

    async def add_upload(self, upload: Upload) -> None:
        await self._rows.insert_upload(self._tx, upload)

    async def upload(self, name: Name) -> Upload:
        return await self._rows.upload(self._tx, name)

    async def add(self, item: Work) -> None:
        await self._tx.lock(str(item.name))
        match item:
            case Dataset():
                await self._rows.insert_dataset(self._tx, item)
            case Report():
                await self._rows.insert_report(self._tx, item)
            case Preflight():
                await self._rows.insert_preflight(self._tx, item)

    async def dataset(self, name: Name) -> Dataset:
        return await self._rows.dataset(self._tx, name)

    async def report(self, name: Name) -> Report:
        return await self._rows.report(self._tx, name)

    async def preflight(self, name: Name) -> Preflight:
        return await self._rows.preflight(self._tx, name)

    async def datasets(self, project: str, query: PageRequest) -> tuple[list[Dataset], str]:
        return await self._rows.datasets(self._tx, project, query)

    async def reports(self, dataset: Name, query: PageRequest) -> tuple[list[Report], str]:
        return await self._rows.reports(self._tx, dataset, query)

    async def preflights(self, dataset: Name, query: PageRequest) -> tuple[list[Preflight], str]:
        return await self._rows.preflights(self._tx, dataset, query)

    async def has_live_reports(self, dataset: Name) -> bool:
        return await self._rows.live_reports(self._tx, dataset) > 0

    async def item(self, name: Name) -> Work:
        return await self._rows.item(self._tx, name)

    async def locked(self, name: Name) -> Work:
        await self._tx.lock(str(name))
        return await self._rows.item(self._tx, name)

    async def save(self, step: Step) -> Work:
        item = step.item
        await self._rows.save(self._tx, item)
        saved = replace(item, life=replace(item.life, revision=item.life.revision + 1))
        for fact in step.facts:
            await self._store.outbox.append(self._tx, event_of(saved, fact))
        self._tx.after_commit(lambda: self._store.notifier.notify(str(item.name)))
        return saved

    async def remove(self, dataset: Name) -> None:
        await self._tx.lock(str(dataset))
        await self._rows.delete_dataset(self._tx, dataset)
        self._tx.after_commit(lambda: self._store.notifier.notify(str(dataset)))

    async def dispatch(self, name: Name, *, delay_seconds: float = 0.0) -> Attempt:
        cluster = await self._live_cluster()
        return await self._store.queue.dispatch(self._tx, str(name), cluster, delay_seconds=delay_seconds)

    async def _live_cluster(self) -> str:
        """The cluster that reported itself last; the default one while none has: nothing is refused."""
        oldest = self._store.outbox.clock.now() - timedelta(seconds=CLUSTER_LIVE_SECONDS)
        for cluster in await self._store.queue.clusters(self._tx):
            if cluster.last_seen_time >= oldest and cluster.capacity.nodes:
                return cluster.id
        return self._store.default_cluster

    async def request_cancel(self, name: Name) -> Attempt | None:
        return await self._store.queue.request_stop(self._tx, str(name))

    async def started_count(self, name: Name) -> int:
        return await self._store.queue.started_count(self._tx, str(name))
