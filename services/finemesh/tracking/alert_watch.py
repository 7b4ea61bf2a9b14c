"""Shows rules the points that have become durable, and states what they fire.

Where a rule stands is kept in memory and stored together with each alert. After a restart it is read back,
and all points behind it are shown again: those come to the same, so that each occurrence is an event once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from finemesh.chassis.logs import get_logger
from finemesh.core.clock import Clock
from finemesh.core.errors import NotFoundError, UnavailableError
from finemesh.core.names import Name, new_id, parse_name
from finemesh.tracking.alert_rows import AlertRows, StateKey
from finemesh.tracking.alerts import Alert, Change, NoHeartbeat, Rule, State, look
from finemesh.tracking.domain import Batch, Curve, resolve
from finemesh.tracking.past import gathered
from finemesh.tracking.ports import PointReader

INTERVAL_SECONDS: Final = 0.25
_HEARTBEAT_SECONDS: Final = 1.0
_MAX_PENDING_POINTS: Final = 1_000_000
_MAX_RUNS: Final = 5_000

_log = get_logger(__name__)


class AlertWatch:
    """Belongs to one event loop; run `run()` beside the server, after `start()`."""

    def __init__(
        self, rows: AlertRows, points: PointReader, clock: Clock, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._rows = rows
        self._points = points
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._rules: dict[str, Rule] = {}
        self._states: dict[str, dict[StateKey, State]] = {}  # of runs whose points were all shown
        self._pending: dict[str, list[Batch]] = {}
        self._pending_points = 0
        self._behind: set[str] = set()
        self._last_points: dict[str, datetime] = {}
        self._woken = asyncio.Event()
        self._looking = asyncio.Lock()

    async def start(self) -> None:
        """Learn the rules; what running runs have logged is looked at first. Raises UnavailableError."""
        self._rules = {str(rule.name): rule for rule in await self._rows.rules()}
        for run, time in (await self._rows.running()).items():
            self._last_points[run] = time
            self._look_again(run)

    def note(self, batches: Sequence[Batch]) -> None:
        """Batches were committed."""
        now = self._clock.now()
        for batch in batches:
            self._last_points[batch.run] = now
            if not any(rule.is_about(_name(batch.run)) for rule in self._rules.values()):
                self._states.pop(batch.run, None)
                continue
            self._woken.set()
            if batch.run not in self._states or self._pending_points > _MAX_PENDING_POINTS:
                self._look_again(batch.run)
            else:
                self._pending.setdefault(batch.run, []).append(batch)
                self._pending_points += len(batch)

    async def add(self, rule: Rule) -> None:
        """A rule was created: show it what there is."""
        self._rules[str(rule.name)] = rule
        for run in await self._rows.running():
            if rule.is_about(_name(run)):
                self._look_again(run)

    async def remove(self, name: Name) -> None:
        """A rule was deleted."""
        async with self._looking:
            self._rules.pop(str(name), None)
            for states in self._states.values():
                for key in [key for key in states if key[0] == str(name)]:
                    del states[key]

    async def run(self) -> None:
        """Look at intervals until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(self._interval_seconds)
            try:
                await self.settle()
            except UnavailableError as error:
                _log.warning("alerts_behind", error=error.message, runs=len(self._behind))

    async def settle(self) -> None:
        """Look at all that was committed before the call. Raises UnavailableError; `run` tries again."""
        async with self._looking:
            self._woken.clear()
            pending, self._pending, self._pending_points = self._pending, {}, 0
            try:
                while self._behind:
                    run = next(iter(self._behind))
                    pending.pop(run, None)
                    await self._catch_up(run)
                    self._behind.discard(run)
                while pending:
                    run, batches = next(iter(pending.items()))
                    curves = {key: resolve(curve) for key, curve in gathered(batches).items()}
                    await self._show(run, curves)
                    del pending[run]
            finally:
                for run in pending:  # an error came between: their points are read again
                    self._look_again(run)
            if any(isinstance(rule.condition, NoHeartbeat) for rule in self._rules.values()):
                await self._check_heartbeats()

    def _look_again(self, run: str) -> None:
        self._states.pop(run, None)
        self._pending_points -= sum(map(len, self._pending.pop(run, ())))
        self._behind.add(run)
        self._woken.set()

    async def _catch_up(self, run: str) -> None:
        """Show all points of a run to the rules about it."""
        if not any(rule.is_about(_name(run)) for rule in self._rules.values()):
            return
        if len(self._states) >= _MAX_RUNS:
            self._states.clear()
        found = await asyncio.to_thread(self._points.read, run)
        self._states[run] = await self._rows.states(run)
        await self._show(run, {key: resolve(curve) for key, curve in found.curves.items()})

    async def _show(self, run: str, curves: Mapping[str, Curve]) -> None:
        """Show points to the rules about their run, and store what that changes."""
        name = _name(run)
        rules = [rule for rule in self._rules.values() if rule.is_about(name)]
        states = dict(self._states.get(run, {}))
        moved: dict[StateKey, State] = {}
        fired: list[Alert] = []
        cleared: list[Alert] = []
        for rule in rules:
            for metric, curve in curves.items():
                if not rule.looks_at(metric):
                    continue
                key = (str(rule.name), metric)
                before = states.get(key, State())
                state, changes = await asyncio.to_thread(look, rule, metric, before, curve)
                if changes:
                    state = await self._changed(rule, run, metric, state, changes, fired, cleared)
                    moved[key] = state
                states[key] = state
        if moved:
            await self._rows.record(run, moved, fired, cleared)
        self._states[run] = states

    async def _changed(
        self,
        rule: Rule,
        run: str,
        metric: str,
        state: State,
        changes: Sequence[Change],
        fired: list[Alert],
        cleared: list[Alert],
    ) -> State:
        """The state with its alert, with what was fired and what is over added to the lists."""
        now = self._clock.now()
        for change in changes:
            if change.fired:
                alert = self._alert(rule, run, metric, change, now)
                fired.append(alert)
                state = replace(state, alert=str(alert.name))
                continue
            known = {str(each.name): each for each in fired}
            alert = known.get(state.alert) or await self._rows.alert(state.alert)
            cleared.append(replace(alert, clear_time=now))
            state = replace(state, alert="")
        return state

    def _alert(self, rule: Rule, run: str, metric: str, change: Change, now: datetime) -> Alert:
        return Alert(
            name=Name(rule.name.project, "alerts", new_id("alert")),
            rule=str(rule.name),
            run=run,
            metric=metric,
            step=change.step,
            value=change.value,
            message=change.message,
            fire_time=now,
        )

    async def _check_heartbeats(self) -> None:
        """Fire for runs that are silent, clear for those that are not, or have ended."""
        now, running = self._clock.now(), await self._rows.running()
        for run in {*running, *self._states}:
            if run in self._behind:
                continue
            name = _name(run)
            states = self._states.get(run)
            for rule in [each for each in self._rules.values() if each.is_about(name)]:
                if not isinstance(rule.condition, NoHeartbeat):
                    continue
                if states is None:  # it has logged nothing yet
                    states = self._states[run] = await self._rows.states(run)
                last = max(self._last_points.get(run, running.get(run, now)), rule.create_time)
                silent = (now - last).total_seconds()
                bad = run in running and silent >= rule.condition.seconds
                await self._heartbeat(rule, run, states, silent, bad=bad)

    async def _heartbeat(
        self, rule: Rule, run: str, states: dict[StateKey, State], silent: float, *, bad: bool
    ) -> None:
        key = (str(rule.name), "")
        state = states.get(key, State())
        if bad == bool(state.alert):
            return
        message = f"no points for {silent:.0f} seconds"
        fired: list[Alert] = []
        cleared: list[Alert] = []
        try:
            change = Change(bad, 0, math.nan, message)
            state = await self._changed(rule, run, "", state, [change], fired, cleared)
        except NotFoundError:
            state = replace(state, alert="")
        await self._rows.record(run, {key: state}, fired, cleared)
        states[key] = state


def _name(run: str) -> Name:
    return parse_name(run, "runs")
