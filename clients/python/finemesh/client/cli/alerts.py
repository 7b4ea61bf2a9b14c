"""`finemesh alerts`: what to be told of, and what was told."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer
from rich.markup import escape

from finemesh.client.cli.context import Commands, options, out
from finemesh.client.cli.output import moment, print_json, print_list, short
from finemesh.client.cli.paging import Filter, Limit, OrderBy, collect
from finemesh.v1 import alert_service_pb2 as pb
from finemesh.v1.alert_pb2 import AlertRule

commands = Commands("alerts", "Be told when a metric goes wrong: rules, and what they have fired.")


@commands("create")
def create(
    metric: Annotated[str, typer.Option(help="The metric to look at, e.g. val/loss.")] = "",
    run: Annotated[str, typer.Option(help="Id or name of the run; all of the project if left out.")] = "",
    above: Annotated[float | None, typer.Option(help="Fire above this value.")] = None,
    below: Annotated[float | None, typer.Option(help="Fire below this value.")] = None,
    stall: Annotated[int, typer.Option(help="Fire after so many steps without a better value.")] = 0,
    least: Annotated[float, typer.Option(help="With --stall: what a better value is better by.")] = 0.0,
    diverge: Annotated[float, typer.Option(help="Fire if worse than the best by this share of it.")] = 0.0,
    points: Annotated[int, typer.Option(help="With --diverge: for so many points in a row.")] = 0,
    non_finite: Annotated[bool, typer.Option("--non-finite", help="Fire at infinities and NaN.")] = False,
    silent: Annotated[float, typer.Option(help="Fire after so many seconds without points.")] = 0.0,
    rule_id: Annotated[str, typer.Option("--id", help="Id of the rule; made up if left out.")] = "",
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
) -> None:
    """Create a rule, of one kind. It looks at running runs from their first point on."""
    connection = options.connection()
    rule = AlertRule(display_name=name, metric=metric, run=connection.name("runs", run) if run else "")
    given = {
        "--above, --below": above is not None or below is not None,
        "--stall": bool(stall),
        "--diverge": bool(diverge),
        "--non-finite": non_finite,
        "--silent": bool(silent),
    }
    if sum(given.values()) != 1:
        raise typer.BadParameter(f"say what to look for by one of: {'; '.join(given)}")
    if above is not None or below is not None:
        rule.threshold.CopyFrom(AlertRule.Threshold(above=above, below=below))
    elif stall:
        rule.stall.CopyFrom(AlertRule.Stall(steps=stall, min_improvement=least))
    elif diverge:
        rule.divergence.CopyFrom(AlertRule.Divergence(margin=diverge, points=points))
    elif non_finite:
        rule.non_finite.SetInParent()
    else:
        rule.no_heartbeat.seconds = silent
    request = pb.CreateAlertRuleRequest(
        parent=connection.parent, alert_rule=rule, alert_rule_id=rule_id, request_id=str(uuid.uuid4())
    )
    found = connection.alerts.CreateAlertRule(request)
    if options.json:
        print_json(found)
        return
    out.print(f"{short(found.name)}: {escape(condition_of(found))}", highlight=False)


@commands("rules")
def rules(filter_by: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List the rules of the project, newest first."""
    connection = options.connection()
    request = pb.ListAlertRulesRequest(parent=connection.parent, filter=filter_by, order_by=order_by)
    print_list(
        collect(connection.alerts.ListAlertRules, request, lambda page: iter(page.alert_rules), limit),
        ("id", "name", "run", "when", "created"),
        lambda rule: (
            short(rule.name),
            escape(rule.display_name),
            short(rule.run) if rule.run else "all",
            escape(condition_of(rule)),
            moment(rule.create_time),
        ),
        "no rules; make one with `finemesh alerts create`",
    )


@commands("delete")
def delete(rule: Annotated[str, typer.Argument(help="Id or full name of the rule.")]) -> None:
    """Delete a rule. What it has fired stays on record."""
    connection = options.connection()
    connection.alerts.DeleteAlertRule(pb.DeleteAlertRuleRequest(name=connection.name("alertRules", rule)))


@commands("list")
def list_alerts(filter_by: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List what rules have fired, newest first; --filter 'open = true' for what lasts.

    As it happens: finemesh events tail
    """
    connection = options.connection()
    request = pb.ListAlertsRequest(parent=connection.parent, filter=filter_by, order_by=order_by)
    print_list(
        collect(connection.alerts.ListAlerts, request, lambda page: iter(page.alerts), limit),
        ("fired", "cleared", "run", "what", "rule"),
        lambda alert: (
            moment(alert.fire_time),
            moment(alert.clear_time) if alert.HasField("clear_time") else "[yellow]lasts[/]",
            short(alert.run),
            escape(alert.message),
            short(alert.rule),
        ),
        "nothing was fired",
    )


def condition_of(rule: AlertRule) -> str:
    """When a rule fires, in words."""
    metric = rule.metric or "any metric"
    match rule.WhichOneof("condition"):
        case "threshold":
            limits = [
                f"{name} {getattr(rule.threshold, name):g}"
                for name in ("above", "below")
                if rule.threshold.HasField(name)
            ]
            return f"{metric} {' or '.join(limits)}"
        case "stall":
            by = f" by more than {rule.stall.min_improvement:g}" if rule.stall.min_improvement else ""
            return f"{metric} not better{by} for {rule.stall.steps} steps"
        case "divergence":
            share, points = rule.divergence.margin, rule.divergence.points
            return f"{metric} worse than its best by {share:.0%}, {points} points in a row"
        case "non_finite":
            return f"{metric} not finite"
        case _:
            return f"no points for {rule.no_heartbeat.seconds:g} seconds"
