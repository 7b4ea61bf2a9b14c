"""Quotas of projects, at the real service: who may set them, and what they keep from starting."""

from __future__ import annotations

from typing import Any

import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.client_channel import channel
from finemesh.core.errors import InvalidError, PermissionDeniedError
from finemesh.v1 import quota_pb2
from finemesh.v1 import quota_service_pb2 as pb
from finemesh.v1.quota_service_pb2_grpc import QuotaServiceStub

from tests.support.scripted_cluster import ScriptedCluster, translated
from tests.support.servers import PATIENCE_SECONDS
from tests.support.services import ServiceProcess
from tests.support.training_client import TrainingClient

pytestmark = pytest.mark.integration


async def call(service: ServiceProcess, role: Role, projects: list[str], method: str, request: Any) -> Any:
    token = service.key.mint("tester", role, projects, 600)
    async with channel(service.address, lambda: token) as opened:
        with translated():
            return await getattr(QuotaServiceStub(opened), method)(request, timeout=PATIENCE_SECONDS)


async def test_a_quota_lets_a_job_wait_until_it_is_raised(
    service: ServiceProcess, client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    name, mine = f"{client.parent}/quota", [client.project]

    async def set_jobs(limit: int) -> quota_pb2.Quota:
        request = pb.UpdateQuotaRequest(quota=quota_pb2.Quota(name=name, max_jobs=limit, weight=2.0))
        return await call(service, Role.ADMIN, mine, "UpdateQuota", request)

    assert (await set_jobs(1)).max_jobs == 1
    first = await client.create(trainable)
    attempt = await cluster.commands.get()
    assert attempt.command.resource == first.name
    await attempt.renew()
    second = await client.create(trainable)
    why = f"waiting for the quota of {client.parent}: at most 1 jobs at once (max_jobs)"
    waiting = await client.until(second.name, lambda job: job.progress.message == why)
    assert waiting.state == waiting.STATE_QUEUED
    seen = await call(service, Role.VIEWER, mine, "GetQuota", pb.GetQuotaRequest(name=name))
    assert (seen.jobs_at_work, seen.weight, seen.window_hours) == (1, 2.0, 24.0)
    await set_jobs(2)
    assert (await cluster.commands.get()).command.resource == second.name
    listed = await call(service, Role.ADMIN, ["*"], "ListQuotas", pb.ListQuotasRequest())
    assert name in [quota.name for quota in listed.quotas]


async def test_admins_set_quotas_and_nonsense_is_refused(
    service: ServiceProcess, client: TrainingClient
) -> None:
    name, mine = f"{client.parent}/quota", [client.project]
    unset = await call(service, Role.VIEWER, mine, "GetQuota", pb.GetQuotaRequest(name=name))
    assert (unset.weight, unset.HasField("max_gpus"), unset.HasField("update_time")) == (1.0, False, False)
    request = pb.UpdateQuotaRequest(
        quota=quota_pb2.Quota(name=name, max_gpus=-1, weight=-2, window_hours=1e9)
    )
    with pytest.raises(PermissionDeniedError):
        await call(service, Role.OPERATOR, mine, "UpdateQuota", request)
    with pytest.raises(PermissionDeniedError):
        await call(service, Role.ADMIN, mine, "ListQuotas", pb.ListQuotasRequest())
    with pytest.raises(InvalidError) as refused:
        await call(service, Role.ADMIN, mine, "UpdateQuota", request)
    assert refused.value.reason == "INVALID_QUOTA"
    fields = {violation.field for violation in refused.value.violations}
    assert fields == {"quota.max_gpus", "quota.weight", "quota.window_hours"}
