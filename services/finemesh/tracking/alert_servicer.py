"""`finemesh.v1.AlertService`: messages to rules and back; alerts as events."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

from typing import Any, Final

from google.protobuf.empty_pb2 import Empty

from finemesh.chassis.auth import Principal, Role, current_principal
from finemesh.chassis.events import Event
from finemesh.chassis.requests import request_key
from finemesh.core.clock import Clock
from finemesh.core.errors import InvalidError
from finemesh.core.names import Name, check_id, new_id, parse_name, parse_project
from finemesh.core.requests import PageRequest
from finemesh.events.v1 import alert_events_pb2
from finemesh.tracking import convert
from finemesh.tracking.alert_rows import AlertRows
from finemesh.tracking.alert_watch import AlertWatch
from finemesh.tracking.alerts import (
    DEFAULT_POINTS,
    Alert,
    Condition,
    Divergence,
    NoHeartbeat,
    NonFinite,
    Rule,
    Stall,
    Threshold,
)
from finemesh.tracking.ports import RunStore
from finemesh.v1 import alert_pb2
from finemesh.v1 import alert_service_pb2 as pb
from finemesh.v1.alert_service_pb2_grpc import AlertServiceServicer

_EVENTS: Final = {"fired": alert_events_pb2.AlertFired, "cleared": alert_events_pb2.AlertCleared}


class AlertServicer(AlertServiceServicer):
    """Operators make rules, viewers see them and what they have fired."""

    def __init__(self, rows: AlertRows, runs: RunStore, watch: AlertWatch, clock: Clock) -> None:
        self._rows = rows
        self._runs = runs
        self._watch = watch
        self._clock = clock

    async def CreateAlertRule(self, request: pb.CreateAlertRuleRequest, context: Any) -> alert_pb2.AlertRule:
        project = parse_project(request.parent)
        principal = _allowed(project, Role.OPERATOR)
        rule_id = (
            check_id(request.alert_rule_id, "alert_rule_id") if request.alert_rule_id else new_id("rule")
        )
        message = request.alert_rule
        rule = Rule(
            name=Name(project, "alertRules", rule_id),
            condition=_condition_of(message),
            display_name=message.display_name,
            run=message.run,
            metric=message.metric,
            create_time=self._clock.now(),
        )
        rule.check()
        if message.run:
            run = parse_name(message.run, "runs", "alert_rule.run")
            if run.parent != request.parent:
                raise InvalidError.of("alert_rule.run", f"{run} is not a run of {request.parent}")
            await self._runs.get(principal, [run])
        rule = await self._rows.add(rule, request_key(project, "CreateAlertRule", request))
        await self._watch.add(rule)
        return _rule_to_proto(rule)

    async def ListAlertRules(
        self, request: pb.ListAlertRulesRequest, context: Any
    ) -> pb.ListAlertRulesResponse:
        project = parse_project(request.parent)
        _allowed(project, Role.VIEWER)
        rules, token = await self._rows.rule_page(project, PageRequest.of(request))
        return pb.ListAlertRulesResponse(
            alert_rules=[_rule_to_proto(each) for each in rules], next_page_token=token
        )

    async def DeleteAlertRule(self, request: pb.DeleteAlertRuleRequest, context: Any) -> Empty:
        name = parse_name(request.name, "alertRules")
        _allowed(name.project, Role.OPERATOR)
        await self._rows.remove(name)
        await self._watch.remove(name)
        return Empty()

    async def ListAlerts(self, request: pb.ListAlertsRequest, context: Any) -> pb.ListAlertsResponse:
        project = parse_project(request.parent)
        _allowed(project, Role.VIEWER)
        alerts, token = await self._rows.alert_page(project, PageRequest.of(request))
        return pb.ListAlertsResponse(alerts=[_alert_to_proto(each) for each in alerts], next_page_token=token)


def alert_event(fact: str, alert: Alert) -> Event:
    """An alert was `fired` or `cleared`."""
    payload = _EVENTS[fact](alert=_alert_to_proto(alert))
    time = alert.clear_time or alert.fire_time
    return Event.of("alert", fact, str(alert.name), payload, source=convert.SOURCE, time=time)


def _allowed(project: str, role: Role) -> Principal:
    principal = current_principal()
    principal.require_role(role)
    principal.require_project(project)
    return principal


def _condition_of(message: alert_pb2.AlertRule) -> Condition:
    """Raises InvalidError, reason INVALID_ALERT_RULE: there is none."""
    match message.WhichOneof("condition"):
        case "threshold":
            found = message.threshold
            return Threshold(
                found.above if found.HasField("above") else None,
                found.below if found.HasField("below") else None,
            )
        case "stall":
            goal = convert.goal_from_proto(message.stall.goal)
            return Stall(message.stall.steps, message.stall.min_improvement, goal)
        case "divergence":
            goal = convert.goal_from_proto(message.divergence.goal)
            points = message.divergence.points or DEFAULT_POINTS
            return Divergence(message.divergence.margin, points, goal)
        case "non_finite":
            return NonFinite()
        case "no_heartbeat":
            return NoHeartbeat(message.no_heartbeat.seconds)
        case _:
            raise InvalidError.of(
                "alert_rule.condition",
                "say when to fire: threshold, stall, divergence, non_finite or no_heartbeat",
                reason="INVALID_ALERT_RULE",
            )


def _rule_to_proto(rule: Rule) -> alert_pb2.AlertRule:
    message = alert_pb2.AlertRule(
        name=str(rule.name), display_name=rule.display_name, run=rule.run, metric=rule.metric
    )
    message.create_time.FromDatetime(rule.create_time)
    match rule.condition:
        case Threshold(above, below):
            message.threshold.CopyFrom(alert_pb2.AlertRule.Threshold(above=above, below=below))
        case Stall(steps, least, goal):
            stall = alert_pb2.AlertRule.Stall(steps=steps, min_improvement=least)
            stall.goal = convert.goal_to_proto(goal)
            message.stall.CopyFrom(stall)
        case Divergence(margin, points, goal):
            divergence = alert_pb2.AlertRule.Divergence(margin=margin, points=points)
            divergence.goal = convert.goal_to_proto(goal)
            message.divergence.CopyFrom(divergence)
        case NonFinite():
            message.non_finite.SetInParent()
        case NoHeartbeat(seconds):
            message.no_heartbeat.seconds = seconds
    return message


def _alert_to_proto(alert: Alert) -> alert_pb2.Alert:
    message = alert_pb2.Alert(
        name=str(alert.name),
        rule=alert.rule,
        run=alert.run,
        metric=alert.metric,
        step=alert.step,
        value=alert.value,
        message=alert.message,
    )
    message.fire_time.FromDatetime(alert.fire_time)
    if alert.clear_time is not None:
        message.clear_time.FromDatetime(alert.clear_time)
    return message
