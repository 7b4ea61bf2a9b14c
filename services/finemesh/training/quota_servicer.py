"""`finemesh.v1.QuotaService`: who may read and set quotas, and what they are compared with."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from finemesh.chassis.auth import Role, authorised, current_principal
from finemesh.core.clock import Clock
from finemesh.core.errors import FieldViolation, InvalidError, PermissionDeniedError
from finemesh.core.names import check_id
from finemesh.core.requests import PageRequest
from finemesh.training.ports import Store
from finemesh.training.quotas import DEFAULT_WINDOW_HOURS, Quota
from finemesh.v1 import quota_pb2
from finemesh.v1 import quota_service_pb2 as pb
from finemesh.v1.quota_service_pb2_grpc import QuotaServiceServicer

_MAX_WINDOW_HOURS: Final = 24.0 * 31


class QuotaServicer(QuotaServiceServicer):
    """Viewers of a project read its quota; admins set it, and list all. `on_change` is called after each."""

    def __init__(self, store: Store, clock: Clock, on_change: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_change = on_change

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Any) -> quota_pb2.Quota:
        project = _project(request.name, "name")
        authorised(project, Role.VIEWER)
        return await self._told(project)

    async def UpdateQuota(self, request: pb.UpdateQuotaRequest, context: Any) -> quota_pb2.Quota:
        project = _project(request.quota.name, "quota.name")
        authorised(project, Role.ADMIN)
        quota = replace(_quota_of(project, request.quota), update_time=self._clock.now())
        async with self._store.begin() as unit:
            await unit.set_quota(quota)
        self._on_change()
        return await self._told(project)

    async def ListQuotas(self, request: pb.ListQuotasRequest, context: Any) -> pb.ListQuotasResponse:
        principal = current_principal()
        principal.require_role(Role.ADMIN)
        if not principal.all_projects:
            raise PermissionDeniedError(
                f"the token of {principal.subject!r} does not cover all projects: ask for one that does",
                reason="PROJECT_DENIED",
                metadata={"subject": principal.subject},
            )
        async with self._store.read() as view:
            quotas, token = await view.quota_page(PageRequest.of(request))
        return pb.ListQuotasResponse(quotas=[_message_of(each) for each in quotas], next_page_token=token)

    async def _told(self, project: str) -> quota_pb2.Quota:
        """The quota, with what the project has now."""
        now = self._clock.now()
        async with self._store.read() as view:
            quota = (await view.quotas()).get(project, Quota(project))
            claims = await view.past_claims(quota.window_begin(now), project)
        live = [claim for claim in claims if claim.end_time is None]
        message = _message_of(quota)
        message.gpus_held = sum(claim.gang.total.gpus for claim in live)
        message.jobs_at_work = len(live)
        message.gpu_hours_used = quota.hours_used(claims, now)
        return message


def _project(name: str, field: str) -> str:
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "projects" or parts[2] != "quota":
        problem = f"{name!r} is not a name of this kind: write projects/{{project}}/quota"
        raise InvalidError.of(field, problem, reason="MALFORMED_NAME")
    return check_id(parts[1], field)


def _quota_of(project: str, message: quota_pb2.Quota) -> Quota:
    """Raises InvalidError, reason INVALID_QUOTA, naming every wrong field at once."""
    quota = Quota(
        project=project,
        weight=message.weight or 1.0,
        max_gpus=message.max_gpus if message.HasField("max_gpus") else None,
        max_jobs=message.max_jobs if message.HasField("max_jobs") else None,
        max_gpu_hours=message.max_gpu_hours if message.HasField("max_gpu_hours") else None,
        window_hours=message.window_hours or DEFAULT_WINDOW_HOURS,
    )
    violations = [
        FieldViolation(f"quota.{name}", "must be finite and not negative")
        for name in ("max_gpus", "max_jobs", "max_gpu_hours")
        if not 0 <= (getattr(quota, name) or 0) < math.inf
    ]
    if not 0 < quota.weight < math.inf:
        violations.append(FieldViolation("quota.weight", "must be positive; 0 means 1"))
    if not 0 < quota.window_hours <= _MAX_WINDOW_HOURS:
        violations.append(
            FieldViolation("quota.window_hours", f"must lie in (0, {_MAX_WINDOW_HOURS:g}]; 0 means 24")
        )
    if violations:
        listed = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidError(listed, violations=violations, reason="INVALID_QUOTA")
    return quota


def _message_of(quota: Quota) -> quota_pb2.Quota:
    message = quota_pb2.Quota(
        name=f"projects/{quota.project}/quota",
        weight=quota.weight,
        max_gpus=quota.max_gpus,
        max_jobs=quota.max_jobs,
        max_gpu_hours=quota.max_gpu_hours,
        window_hours=quota.window_hours,
    )
    if quota.update_time is not None:
        message.update_time.FromDatetime(quota.update_time)
    return message
