"""Rules, what they have seen and what they have fired, in SQL. An alert and its event are one transaction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    RowMapping,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from finemesh.chassis.events import Event
from finemesh.chassis.filtering import Field, Kind
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.paging import Listing
from finemesh.chassis.requests import Requests
from finemesh.chassis.sql import Database, Tx, UtcDateTime
from finemesh.core.errors import AlreadyExistsError, NotFoundError
from finemesh.core.names import Name, parse_name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.tracking.alerts import Alert, Rule, State, condition_from_json, condition_to_json
from finemesh.tracking.domain import RunState
from finemesh.tracking.store import CHASSIS, METADATA, RUNS

RULES: Final = Table(
    "alert_rules",
    METADATA,
    Column("name", String(256), primary_key=True),
    Column("project", String(63), nullable=False, index=True),
    Column("display_name", String, nullable=False),
    Column("run", String(256), nullable=False),
    Column("metric", String(256), nullable=False),
    Column("condition", JSON, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
)
STATES: Final = Table(
    "alert_states",
    METADATA,
    Column("rule", ForeignKey(RULES.c.name, ondelete="CASCADE"), primary_key=True),
    Column("run", ForeignKey(RUNS.c.name, ondelete="CASCADE"), primary_key=True),
    Column("metric", String(256), primary_key=True),
    Column("state", JSON, nullable=False),
    Column("alert", String(256), nullable=False),
)
ALERTS: Final = Table(
    "alerts",
    METADATA,
    Column("name", String(256), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("rule", String(256), nullable=False),
    Column("run", ForeignKey(RUNS.c.name, ondelete="CASCADE"), nullable=False),
    Column("metric", String(256), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("value", Float),  # NULL is NaN, which SQLite cannot store
    Column("message", String, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("fire_time", UtcDateTime, nullable=False),
    Column("clear_time", UtcDateTime),
    Index("ix_alerts_project_fire_time", "project", "fire_time"),
)
_RULE_LISTING: Final = Listing(
    {
        "name": Field(RULES.c.name),
        **{name: Field(RULES.c[name]) for name in ("run", "metric", "display_name")},
        "create_time": Field(RULES.c.create_time, Kind.TIME),
    }
)
_ALERT_LISTING: Final = Listing(
    {
        "name": Field(ALERTS.c.name),
        **{name: Field(ALERTS.c[name]) for name in ("rule", "run", "metric")},
        "open": Field(ALERTS.c.open, Kind.BOOL),
        "fire_time": Field(ALERTS.c.fire_time, Kind.TIME),
    },
    default_order="fire_time desc",
)

StateKey = tuple[str, str]  # rule, metric
EventOf = Callable[[str, Alert], Event]
"""A fact, `fired` or `cleared`, and its alert, to the event that states it."""


class AlertRows:
    """What the watch and the servicer need of the service's database."""

    def __init__(self, db: Database, outbox: Outbox, event_of: EventOf) -> None:
        self._db = db
        self._outbox = outbox
        self._event_of = event_of
        self._requests = Requests(CHASSIS, outbox.clock)

    async def add(self, rule: Rule, key: RequestKey | None) -> Rule:
        """Store a new rule, or return the one of the same request. Raises AlreadyExistsError."""
        async with self._db.begin() as tx:
            existing = await self._requests.claim(tx, key, str(rule.name))
            if existing is not None:
                row = await tx.row(select(RULES).where(RULES.c.name == existing))
                if row is None:
                    raise _no_rule(existing)
                return _rule(row)
            if not await tx.insert_new(RULES, name=str(rule.name), **_rule_row(rule)):
                raise AlreadyExistsError(
                    f"{rule.name} exists: choose another id, or none",
                    reason="ALERT_RULE_EXISTS",
                    metadata={"alert_rule": str(rule.name)},
                )
        return rule

    async def remove(self, name: Name) -> None:
        """Forget a rule and what it has seen; what it has fired is over with it. Raises NotFoundError."""
        async with self._db.begin() as tx:
            lasting = select(ALERTS).where(ALERTS.c.rule == str(name), ALERTS.c.open)
            for row in await tx.rows(lasting):
                await self._clear(tx, replace(_alert(row), clear_time=self._outbox.clock.now()))
            gone = await tx.execute(delete(RULES).where(RULES.c.name == str(name)))
            if not gone.rowcount:
                raise _no_rule(str(name))

    async def rules(self) -> list[Rule]:
        """All of them."""
        async with self._db.read() as tx:
            return [_rule(row) for row in await tx.rows(select(RULES))]

    async def rule_page(self, project: str, request: PageRequest) -> tuple[list[Rule], str]:
        """One page of a project's rules, and the token of the next. Raises InvalidError."""
        page = _RULE_LISTING.page(request, scope=project)
        statement = page.apply(select(RULES).where(RULES.c.project == project))
        async with self._db.read() as tx:
            rows, token = page.split(await tx.rows(statement))
        return [_rule(row) for row in rows], token

    async def alert_page(self, project: str, request: PageRequest) -> tuple[list[Alert], str]:
        """One page of what was fired in a project, and the token of the next. Raises InvalidError."""
        page = _ALERT_LISTING.page(request, scope=project)
        statement = page.apply(select(ALERTS).where(ALERTS.c.project == project))
        async with self._db.read() as tx:
            rows, token = page.split(await tx.rows(statement))
        return [_alert(row) for row in rows], token

    async def running(self) -> dict[str, datetime]:
        """The runs that have not ended, with when anything about them last changed."""
        query = select(RUNS.c.name, RUNS.c.update_time).where(RUNS.c.state == str(RunState.RUNNING))
        async with self._db.read() as tx:
            return {row["name"]: row["update_time"] for row in await tx.rows(query)}

    async def states(self, run: str) -> dict[StateKey, State]:
        """What rules have seen of a run, as of the last time that one fired or was over."""
        async with self._db.read() as tx:
            rows = await tx.rows(select(STATES).where(STATES.c.run == run))
        return {(row["rule"], row["metric"]): State(**row["state"], alert=row["alert"]) for row in rows}

    async def record(
        self, run: str, states: dict[StateKey, State], fired: Sequence[Alert], cleared: Sequence[Alert]
    ) -> None:
        """Store what rules have seen of a run, and state what became of it as events; all or nothing.

        A run or a rule that was deleted meanwhile is passed over.
        """
        async with self._db.begin() as tx:
            if await tx.row(select(RUNS.c.name).where(RUNS.c.name == run)) is None:
                return
            there = {row["name"] for row in await tx.rows(select(RULES.c.name))}
            for (rule, metric), state in states.items():
                if rule in there:
                    await self._write_state(tx, run, rule, metric, state)
            for alert in fired:
                if alert.rule in there:
                    await tx.execute(insert(ALERTS).values(**_alert_row(alert)))
                    await self._outbox.append(tx, self._event_of("fired", alert))
            for alert in cleared:
                if alert.rule in there:
                    await self._clear(tx, alert)

    async def alert(self, name: str) -> Alert:
        """Raises NotFoundError."""
        async with self._db.read() as tx:
            row = await tx.row(select(ALERTS).where(ALERTS.c.name == name))
        if row is None:
            raise NotFoundError(
                f"there is no alert {name}: list those of the project", reason="ALERT_NOT_FOUND"
            )
        return _alert(row)

    async def _clear(self, tx: Tx, alert: Alert) -> None:
        done = update(ALERTS).where(ALERTS.c.name == str(alert.name), ALERTS.c.open)
        if (await tx.execute(done.values(open=False, clear_time=alert.clear_time))).rowcount:
            await self._outbox.append(tx, self._event_of("cleared", alert))

    async def _write_state(self, tx: Tx, run: str, rule: str, metric: str, state: State) -> None:
        stored = asdict(state)
        values = {"alert": stored.pop("alert"), "state": stored}
        if not await tx.insert_new(STATES, rule=rule, run=run, metric=metric, **values):
            key = (STATES.c.rule == rule, STATES.c.run == run, STATES.c.metric == metric)
            await tx.execute(update(STATES).where(*key).values(**values))


def _no_rule(name: str) -> NotFoundError:
    return NotFoundError(
        f"there is no alert rule {name}: list those of the project",
        reason="ALERT_RULE_NOT_FOUND",
        metadata={"alert_rule": name},
    )


def _rule_row(rule: Rule) -> dict[str, Any]:
    """All columns but the name."""
    return {
        "project": rule.name.project,
        "display_name": rule.display_name,
        "run": rule.run,
        "metric": rule.metric,
        "condition": condition_to_json(rule.condition),
        "create_time": rule.create_time,
    }


def _rule(row: RowMapping) -> Rule:
    return Rule(
        name=parse_name(row["name"], "alertRules"),
        condition=condition_from_json(row["condition"]),
        display_name=row["display_name"],
        run=row["run"],
        metric=row["metric"],
        create_time=row["create_time"],
    )


def _alert_row(alert: Alert) -> dict[str, Any]:
    return {
        "name": str(alert.name),
        "project": alert.name.project,
        "rule": alert.rule,
        "run": alert.run,
        "metric": alert.metric,
        "step": alert.step,
        "value": None if math.isnan(alert.value) else alert.value,
        "message": alert.message,
        "open": alert.clear_time is None,
        "fire_time": alert.fire_time,
        "clear_time": alert.clear_time,
    }


def _alert(row: RowMapping) -> Alert:
    return Alert(
        name=parse_name(row["name"], "alerts"),
        rule=row["rule"],
        run=row["run"],
        metric=row["metric"],
        step=row["step"],
        value=math.nan if row["value"] is None else row["value"],
        message=row["message"],
        fire_time=row["fire_time"],
        clear_time=row["clear_time"],
    )
