"""A small service around an attempt queue: its resources are rows with a state and a log of what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from finemesh.chassis.attempts import AttemptQueue, AttemptSettings
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database, Tx
from finemesh.chassis.tables import ChassisTables, chassis_tables
from finemesh.core.attempts import Attempt, Completion, Directive, RestartPolicy, WorkReport
from finemesh.core.clock import Clock
from finemesh.v1 import attempt_pb2
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, insert, select

METADATA: Final = MetaData()
CHASSIS: Final[ChassisTables] = chassis_tables(METADATA)
# What the service notes in the transaction of each callback: proof that the two commit together.
EFFECTS: Final = Table(
    "effects",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("resource", String(200), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("effect", String(200), nullable=False),
)


async def create_tables(db: Database) -> None:
    async with db.begin() as tx:
        await tx.connection.run_sync(METADATA.create_all)


@dataclass
class ScriptedOwner:
    """Implements `AttemptOwner`. Restarts what is lost within `policy`; raises `fails_with` after a write."""

    db: Database
    clock: Clock
    settings: AttemptSettings = field(default_factory=AttemptSettings)
    policy: RestartPolicy = field(default_factory=lambda: RestartPolicy(2, first_delay_seconds=10))
    fails_with: Exception | None = None

    def __post_init__(self) -> None:
        self.outbox = Outbox(CHASSIS, self.clock)
        self.queue: AttemptQueue[str] = AttemptQueue(self.db, self.outbox, self.settings)
        self.queue.bind(self)

    async def command(self, tx: Tx, attempt: Attempt) -> bytes:
        await self._note(tx, attempt, "command")
        return attempt_pb2.Command(
            resource=attempt.resource,
            attempt=attempt.number,
            fence=attempt.ref.fence,
            cluster=attempt.cluster,
        ).SerializeToString()

    async def on_reports(self, tx: Tx, reports: Sequence[tuple[Attempt, WorkReport]]) -> None:
        for attempt, report in reports:
            await self._note(tx, attempt, f"{report.phase} {report.fraction}")

    async def on_completed(self, tx: Tx, attempt: Attempt, completion: Completion[str]) -> None:
        await self._note(tx, attempt, f"{completion.outcome} {completion.result or ''}".strip())

    async def on_lost(self, tx: Tx, attempt: Attempt) -> None:
        await self._note(tx, attempt, "never started" if attempt.never_started else "lost")
        restarts = max(0, await self.queue.started_count(tx, attempt.resource) - 1)
        delay_seconds = self.policy.delay_seconds(restarts)
        if delay_seconds is None:
            await self._note(tx, attempt, "given up")
        else:
            await self.queue.dispatch(tx, attempt.resource, attempt.cluster, delay_seconds=delay_seconds)

    async def _note(self, tx: Tx, attempt: Attempt, effect: str) -> None:
        values = {"resource": attempt.resource, "attempt": attempt.number, "effect": effect}
        await tx.execute(insert(EFFECTS).values(values))
        if self.fails_with is not None:
            raise self.fails_with

    async def effects(self, resource: str) -> list[str]:
        """`<attempt> <effect>` of everything that was committed, in order."""
        query = select(EFFECTS).where(EFFECTS.c.resource == resource).order_by(EFFECTS.c.id)
        async with self.db.read() as tx:
            return [f"{row['attempt']} {row['effect']}" for row in await tx.rows(query)]

    async def attempts(self, resource: str) -> list[tuple[int, int, str, str | None]]:
        """(attempt, fence, state, outcome) of every row, oldest first."""
        table = CHASSIS.attempts
        query = select(table).where(table.c.resource == resource).order_by(table.c.attempt)
        async with self.db.read() as tx:
            return [(r["attempt"], r["fence"], r["state"], r["outcome"]) for r in await tx.rows(query)]

    async def commands(self, resource: str) -> list[attempt_pb2.Command]:
        """The commands in the outbox, oldest first."""
        table = CHASSIS.outbox
        query = select(table).where(table.c.resource == resource).order_by(table.c.sequence)
        async with self.db.read() as tx:
            return [attempt_pb2.Command.FromString(row["payload"]) for row in await tx.rows(query)]

    async def dispatch(self, resource: str, cluster: str = "local", delay_seconds: float = 0.0) -> Attempt:
        async with self.db.begin() as tx:
            return await self.queue.dispatch(tx, resource, cluster, delay_seconds=delay_seconds)

    async def stop(self, resource: str, directive: Directive = Directive.CANCEL) -> Attempt | None:
        async with self.db.begin() as tx:
            return await self.queue.request_stop(tx, resource, directive)
