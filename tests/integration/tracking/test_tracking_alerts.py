"""Alerts of a real service: each occurrence is an event once, whatever is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.bus import NatsEventBus
from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.events import Delivery, event_subject, parse_event
from finemesh.core.errors import FinemeshError
from finemesh.events.v1 import alert_events_pb2
from finemesh.v1 import alert_service_pb2 as pb
from finemesh.v1.alert_pb2 import Alert, AlertRule
from finemesh.v1.alert_service_pb2_grpc import AlertServiceStub
from finemesh.v1.metric_pb2 import MetricBatch
from grpc.aio import AioRpcError

from tests.support.servers import PATIENCE_SECONDS
from tests.support.services import ServiceProcess
from tests.support.tracking import Client, batch

pytestmark = pytest.mark.integration


class Events:
    """What alerts were stated, in order, with how often each event id came."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Alert]] = []
        self.changed = asyncio.Condition()

    async def take(self, delivery: Delivery) -> None:
        event = parse_event(delivery)
        payload: Any = alert_events_pb2.AlertFired.FromString(
            event.payload
        )  # of the same form as AlertCleared
        async with self.changed:
            self.told.append((event.fact, payload.alert))
            self.changed.notify_all()

    async def until(self, wanted: list[tuple[str, str, int]]) -> None:
        """Wait until the facts (fact, run id, step) about these runs are exactly those."""
        runs = {run for _, run, _ in wanted}

        def facts() -> list[tuple[str, str, int]]:
            ids = [(fact, alert.run.rpartition("/")[2], alert.step) for fact, alert in self.told]
            return [each for each in ids if each[1] in runs]

        async with asyncio.timeout(PATIENCE_SECONDS), self.changed:
            await self.changed.wait_for(lambda: len(facts()) >= len(wanted))
        assert facts() == wanted


@pytest.fixture
async def events(bus: NatsEventBus) -> AsyncGenerator[Events]:
    events = Events()
    reading = asyncio.create_task(
        bus.consume("test-alerts", event_subject("alert", "*", "*", "*"), events.take)
    )
    yield events
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


class Alerts:
    """A caller of the service."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._stub: Any = AlertServiceStub(client.channel)

    async def call(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self._stub, method)(request, timeout=PATIENCE_SECONDS)
        except AioRpcError as error:
            raise from_rpc_error(error) from None

    async def rule(self, rule_id: str, **fields: Any) -> AlertRule:
        rule = AlertRule(**fields)
        request = pb.CreateAlertRuleRequest(parent="projects/p", alert_rule=rule, alert_rule_id=rule_id)
        return await self.call("CreateAlertRule", request)

    async def alerts(self, where: str = "") -> list[Alert]:
        request = pb.ListAlertsRequest(parent="projects/p", filter=where)
        return list((await self.call("ListAlerts", request)).alerts)


def points(run: str, sequence: int, first_step: int, *values: float) -> MetricBatch:
    made = batch(run, sequence, range(first_step, first_step + len(values)), key="val/loss")
    made.values[:] = values
    return made


async def test_each_occurrence_is_an_event_once_over_a_kill(
    own: ServiceProcess, clients: Callable[..., Client], events: Events
) -> None:
    own.start()
    caller = Alerts(clients(of=own))
    run = (await caller.client.create("watched")).name
    await caller.client.log(points(run, 1, 0, 1.0, 5.0))  # before there is a rule
    await caller.rule("high", metric="val/loss", run=run, threshold=AlertRule.Threshold(above=4))
    await events.until([("fired", "watched", 1)])
    await caller.client.log(points(run, 2, 2, 6.0, 1.0))
    await events.until([("fired", "watched", 1), ("cleared", "watched", 1)])
    await caller.client.log(points(run, 3, 4, 2.0, 7.0))
    own.kill()  # maybe before it has looked, maybe after
    own.start()
    caller = Alerts(clients(of=own))
    await caller.client.log(points(run, 3, 4, 2.0, 7.0))  # sent again by who had no answer
    expected = [("fired", "watched", 1), ("cleared", "watched", 1), ("fired", "watched", 5)]
    await events.until(expected)
    await caller.client.log(points(run, 4, 6, 8.0, 0.5))
    await events.until([*expected, ("cleared", "watched", 5)])
    ids = [alert.name for _, alert in events.told if alert.run == run]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    found = await caller.alerts(f'run = "{run}"')
    assert [(alert.step, alert.HasField("clear_time")) for alert in found] == [(5, True), (1, True)]
    assert found[0].message == "val/loss is 7 at step 5, above 4"


async def test_a_rule_of_a_project_is_about_all_its_runs_until_it_is_deleted(
    service: ServiceProcess, clients: Callable[..., Client], events: Events
) -> None:
    caller = Alerts(clients())
    rule = await caller.rule("bad-numbers", non_finite=AlertRule.NonFinite())
    one, other = [(await caller.client.create(name)).name for name in ("nan-one", "nan-other")]
    await caller.client.log(points(one, 1, 0, 1.0, float("nan")))
    await caller.client.log(points(other, 1, 0, 1.0, 2.0))
    await events.until([("fired", "nan-one", 1)])
    await caller.client.log(points(other, 2, 2, float("inf")))
    await events.until([("fired", "nan-one", 1), ("fired", "nan-other", 2)])
    assert len(await caller.alerts("open = true")) == 2
    await caller.call("DeleteAlertRule", pb.DeleteAlertRuleRequest(name=rule.name))
    assert await caller.alerts("open = true") == []
    listed = await caller.call("ListAlertRules", pb.ListAlertRulesRequest(parent="projects/p"))
    assert rule.name not in [each.name for each in listed.alert_rules]
    with pytest.raises(FinemeshError) as gone:
        await caller.call("DeleteAlertRule", pb.DeleteAlertRuleRequest(name=rule.name))
    assert gone.value.reason == "ALERT_RULE_NOT_FOUND"


async def test_a_silent_run_is_told_of_until_it_speaks(
    service: ServiceProcess, clients: Callable[..., Client], events: Events
) -> None:
    caller = Alerts(clients())
    run = (await caller.client.create("silent")).name
    await caller.rule("alive", run=run, no_heartbeat=AlertRule.NoHeartbeat(seconds=1))
    await events.until([("fired", "silent", 0)])
    await caller.client.log(points(run, 1, 0, 1.0))
    async with asyncio.timeout(PATIENCE_SECONDS), events.changed:
        await events.changed.wait_for(
            lambda: ("cleared", run) in [(fact, alert.run) for fact, alert in events.told]
        )


async def test_who_may_make_rules_and_about_what(
    service: ServiceProcess, clients: Callable[..., Client]
) -> None:
    viewer, caller = Alerts(clients(Role.VIEWER)), Alerts(clients())
    with pytest.raises(FinemeshError) as denied:
        await viewer.rule("mine", non_finite=AlertRule.NonFinite())
    assert denied.value.reason == "ROLE_DENIED"
    with pytest.raises(FinemeshError) as lacking:
        await caller.rule("none", metric="val/loss")
    assert lacking.value.reason == "INVALID_ALERT_RULE"
    with pytest.raises(FinemeshError) as missing:
        await caller.rule("lost", run="projects/p/runs/none", non_finite=AlertRule.NonFinite())
    assert missing.value.reason == "RUN_NOT_FOUND"
    await caller.rule("once", metric="a", threshold=AlertRule.Threshold(above=1))
    with pytest.raises(FinemeshError) as taken:
        await caller.rule("once", metric="a", threshold=AlertRule.Threshold(above=1))
    assert taken.value.reason == "ALERT_RULE_EXISTS"
