"""Reading and writing the rows of attempts and clusters. No rules: those are in `attempts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, Select, and_, bindparam, func, insert, or_, select, update

from finemesh.chassis.sql import Tx
from finemesh.chassis.tables import ChassisTables
from finemesh.core.attempts import (
    Attempt,
    AttemptRef,
    AttemptState,
    Cluster,
    ClusterCapacity,
    Directive,
    LocalPool,
    NodeCapacity,
    Outcome,
)
from finemesh.core.errors import ErrorRecord

OVERDUE_BATCH: Final = 100


class AttemptRows:
    """The tables `attempts` and `clusters` of one service."""

    def __init__(self, tables: ChassisTables) -> None:
        self._table = table = tables.attempts
        self._clusters = tables.clusters
        # Made once: putting them together takes longer than carrying them out.
        own = and_(*(table.c[name] == bindparam(f"of_{name}") for name in ("resource", "attempt", "fence")))
        self._found = select(table).where(own)
        self._among = select(table).where(table.c.resource.in_(bindparam("resources", expanding=True)))
        mine = select(table).where(table.c.resource == bindparam("resource"))
        self._latest = mine.order_by(table.c.attempt.desc()).limit(1)
        self._changed = update(table).where(own)
        sent = table.c.state.in_([AttemptState.DISPATCHED, AttemptState.RUNNING])
        told = table.c.resource, table.c.attempt, table.c.fence, table.c.state, table.c.lease_expire_time
        self._sent = select(*told).where(table.c.cluster == bindparam("cluster"), sent)
        self._seen = update(self._clusters).where(self._clusters.c.id == bindparam("of_id"))
        self._reports: list[Cluster] = []

    async def insert(self, tx: Tx, attempt: Attempt) -> None:
        row = _row_of(attempt) | {"directive_time": attempt.create_time}
        await tx.execute(insert(self._table), row)

    async def change(
        self, tx: Tx, attempt: Attempt, *, directive_time: datetime | None = None, **fields: Any
    ) -> Attempt:
        """The attempt with other `fields`, written to its row as well."""
        changed = replace(attempt, **fields)
        row = _row_of(changed)
        values = {name: row[name] for name in fields}
        if directive_time is not None:
            values["directive_time"] = directive_time
        await tx.execute(self._changed, values | _key(attempt.ref))
        return changed

    async def change_all(self, tx: Tx, changed: Sequence[Attempt], *fields: str) -> None:
        """Write these fields of attempts that have changed."""
        rows: list[Mapping[str, Any]] = []
        for each in changed:
            row = _row_of(each)
            rows.append({name: row[name] for name in fields} | _key(each.ref))
        await tx.execute(self._changed, rows)

    async def find(self, tx: Tx, ref: AttemptRef) -> Attempt | None:
        """The attempt with this number and this fence."""
        row = await tx.row(self._found, _key(ref))
        return None if row is None else _attempt_of(row)

    async def find_all(self, tx: Tx, refs: Sequence[AttemptRef]) -> dict[AttemptRef, Attempt]:
        """Those of the attempts that there are."""
        rows = await tx.rows(self._among, {"resources": [ref.resource for ref in refs]})
        found = {attempt.ref: attempt for attempt in map(_attempt_of, rows)}
        return {ref: found[ref] for ref in refs if ref in found}

    async def latest(self, tx: Tx, resource: str) -> Attempt | None:
        """The newest attempt at a resource, live or ended."""
        row = await tx.row(self._latest, {"resource": resource})
        return None if row is None else _attempt_of(row)

    async def directive_time(self, tx: Tx, ref: AttemptRef) -> datetime:
        """When the attempt's directive last changed."""
        row = await tx.row(self._found, _key(ref))
        assert row is not None, "an attempt that was told something is there"
        return row["directive_time"]

    async def started_count(self, tx: Tx, resource: str) -> int:
        table = self._table
        begun = or_(table.c.start_time.is_not(None), table.c.outcome == Outcome.FAILED)
        counted = and_(table.c.resource == resource, begun)
        return int(await tx.scalar(select(func.count()).where(counted)))

    async def sent_to(self, tx: Tx, cluster: str, due: datetime) -> dict[AttemptRef, bool]:
        """Live attempts whose command has been sent to a cluster; and whether it was not taken up and lasts
        until `due` at most.
        """
        result = await tx.execute(self._sent, {"cluster": cluster})
        rows: list[Any] = list(result)  # in thousands: mappings would take twice as long
        return {
            AttemptRef(resource, attempt, fence): state == AttemptState.DISPATCHED and expires <= due
            for resource, attempt, fence, state, expires in rows
        }

    async def overdue(self, tx: Tx, now: datetime) -> list[Attempt]:
        """Live attempts whose lease (while WAITING: whose delay) is over, the longest first."""
        table = self._table
        query = select(table).where(table.c.state != AttemptState.ENDED, table.c.lease_expire_time <= now)
        return await self._all(tx, query.order_by(table.c.lease_expire_time).limit(OVERDUE_BATCH))

    async def note_cluster(self, tx: Tx, cluster: Cluster) -> None:
        seen = {"capacity": asdict(cluster.capacity), "last_seen_time": cluster.last_seen_time}
        known = await tx.execute(self._seen, {**seen, "of_id": cluster.id})
        if not known.rowcount and not await tx.insert_new(self._clusters, id=cluster.id, **seen):
            await tx.execute(self._seen, {**seen, "of_id": cluster.id})  # another one was quicker
        tx.after_commit(lambda: self._remember(cluster))

    def _remember(self, cluster: Cluster) -> None:
        self._reports = [cluster, *(each for each in self._reports if each.id != cluster.id)]

    async def clusters(self, tx: Tx) -> list[Cluster]:
        """Every cluster that ever reported itself, the latest report first. A report is read once: many look
        at each, and one of a hundred nodes takes milliseconds.
        """
        table = self._clusters
        known = {cluster.id: cluster for cluster in self._reports}
        times = await tx.rows(select(table.c.id, table.c.last_seen_time))
        news = [
            r["id"]
            for r in times
            if r["id"] not in known or known[r["id"]].last_seen_time != r["last_seen_time"]
        ]
        for row in await tx.rows(select(table).where(table.c.id.in_(news))) if news else ():
            known[row["id"]] = Cluster(row["id"], _capacity_of(row["capacity"]), row["last_seen_time"])
        found = [known[row["id"]] for row in times]
        self._reports = sorted(found, key=lambda each: each.last_seen_time, reverse=True)
        return list(self._reports)

    async def _all(self, tx: Tx, query: Select[Any]) -> list[Attempt]:
        return [_attempt_of(row) for row in await tx.rows(query)]


def _key(ref: AttemptRef) -> dict[str, Any]:
    return {"of_resource": ref.resource, "of_attempt": ref.attempt, "of_fence": ref.fence}


def _capacity_of(content: dict[str, Any]) -> ClusterCapacity:
    told = content.get("node_capacities", ())
    nodes = tuple(NodeCapacity(**each | {"supervised": tuple(each["supervised"])}) for each in told)
    pool = LocalPool(**content["local_pool"]) if content.get("local_pool") else None
    return replace(ClusterCapacity(**content), node_capacities=nodes, local_pool=pool)


def _row_of(attempt: Attempt) -> dict[str, Any]:
    return {
        "resource": attempt.ref.resource,
        "attempt": attempt.ref.attempt,
        "fence": attempt.ref.fence,
        "cluster": attempt.cluster,
        "state": attempt.state,
        "directive": attempt.directive,
        "command": attempt.command,
        "lease_expire_time": attempt.lease_expire_time,
        "create_time": attempt.create_time,
        "start_time": attempt.start_time,
        "end_time": attempt.end_time,
        "outcome": attempt.outcome,
        "error": asdict(attempt.error) if attempt.error else None,
    }


def _attempt_of(row: RowMapping) -> Attempt:
    return Attempt(
        ref=AttemptRef(row["resource"], row["attempt"], row["fence"]),
        cluster=row["cluster"],
        state=AttemptState(row["state"]),
        directive=Directive(row["directive"]),
        command=row["command"],
        lease_expire_time=row["lease_expire_time"],
        create_time=row["create_time"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        error=ErrorRecord(**row["error"]) if row["error"] else None,
    )
