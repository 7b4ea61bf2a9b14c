"""`finemesh quota`: what projects may have of the clusters."""

from __future__ import annotations

from typing import Annotated

import typer

from finemesh.client.cli.context import Commands, options
from finemesh.client.cli.output import moment, print_facts, print_json, print_list
from finemesh.client.cli.paging import Limit, collect
from finemesh.v1 import quota_pb2
from finemesh.v1 import quota_service_pb2 as pb

commands = Commands("quota", "See and set what projects may have of the clusters.")

Quota = quota_pb2.Quota
_LIMITS = ("max_gpus", "max_jobs", "max_gpu_hours")
_NONE = "none"


@commands("show")
def show() -> None:
    """Show the quota of the project, and what the project has now."""
    _print(_quota())


@commands("set")
def set_quota(
    weight: Annotated[float | None, typer.Option(help="Share among projects that all want more.")] = None,
    max_gpus: Annotated[str, typer.Option(help="GPUs at once, or none for no limit.")] = "",
    max_jobs: Annotated[str, typer.Option(help="Jobs at work at once, or none.")] = "",
    max_gpu_hours: Annotated[str, typer.Option(help="GPU-hours per window, or none.")] = "",
    window_hours: Annotated[float | None, typer.Option(help="Length of that window, in hours.")] = None,
) -> None:
    """Change the quota of the project; what is not given stays as it is. For admins."""
    quota = _quota()
    for name, number in (("weight", weight), ("window_hours", window_hours)):
        if number == 0:  # which would mean the default on the wire
            raise typer.BadParameter("it has to be more than 0", param_hint=_option(name))
        if number is not None:
            setattr(quota, name, number)
    for name, given in zip(_LIMITS, (max_gpus, max_jobs, max_gpu_hours), strict=True):
        if given == _NONE:
            quota.ClearField(name)
        elif given:
            setattr(quota, name, _number(name, given))
    _print(options.connection().quotas.UpdateQuota(pb.UpdateQuotaRequest(quota=quota)))


@commands("list")
def list_quotas(limit: Limit = 100) -> None:
    """List the quotas that were set. For admins of all projects."""
    connection = options.connection()
    print_list(
        collect(connection.quotas.ListQuotas, pb.ListQuotasRequest(), lambda page: iter(page.quotas), limit),
        ("project", "weight", "GPUs", "jobs", "GPU-hours", "in hours", "set"),
        lambda quota: (
            quota.name.split("/")[1],
            f"{quota.weight:g}",
            *(_limit(quota, name) for name in _LIMITS),
            f"{quota.window_hours:g}",
            moment(quota.update_time),
        ),
        "no quotas",
    )


def _quota() -> Quota:
    connection = options.connection()
    return connection.quotas.GetQuota(pb.GetQuotaRequest(name=f"{connection.parent}/quota"))


def _number(name: str, given: str) -> float | int:
    try:
        return int(given) if name == "max_jobs" else float(given)
    except ValueError:
        raise typer.BadParameter(
            f"{given!r} is not a number: write one, or {_NONE}", param_hint=_option(name)
        ) from None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _limit(quota: Quota, name: str) -> str:
    return f"{getattr(quota, name):g}" if quota.HasField(name) else _NONE


def _of(quota: Quota, now: str, name: str) -> str:
    return f"{now} of {_limit(quota, name)}" if quota.HasField(name) else f"{now}, no limit"


def _print(quota: Quota) -> None:
    if options.json:
        print_json(quota)
        return
    hours = _of(quota, f"{quota.gpu_hours_used:.1f}", "max_gpu_hours")
    print_facts(
        (
            ("quota", quota.name),
            ("weight", f"{quota.weight:g}"),
            ("GPUs", _of(quota, f"{quota.gpus_held:g}", "max_gpus")),
            ("jobs at work", _of(quota, str(quota.jobs_at_work), "max_jobs")),
            ("GPU-hours", f"{hours}, in the last {quota.window_hours:g} hours"),
        )
    )
