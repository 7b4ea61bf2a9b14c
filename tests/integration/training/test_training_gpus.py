"""GPUs as facts: leased with the first report that names them, released with the proof of the cluster."""

from __future__ import annotations

import pytest
from finemesh.events.v1 import gpu_events_pb2
from finemesh.v1 import attempt_service_pb2

from tests.support.scripted_cluster import ScriptedCluster
from tests.support.services import ServiceProcess
from tests.support.training_client import TrainingClient, following

pytestmark = pytest.mark.integration


async def test_gpus_are_leased_and_released_once_each(
    service: ServiceProcess, client: TrainingClient, cluster: ScriptedCluster, trainable: str
) -> None:
    job = await client.create(trainable)
    attempt = await cluster.next_attempt()
    async with following(service.nats.url, "gpu", client.project) as facts:
        await attempt.renew("STARTING")  # which GPUs it has is not known yet
        for _ in range(2):
            await attempt.renew(gpus={"0": "GPU-a", "1": "GPU-b"})
        assert (await client.get(job.name)).worker.gpu_uuids == ["GPU-a", "GPU-b"]
        await attempt.finish_training(0)
        for _ in range(2):  # the first answer may have been lost
            await cluster.report(
                releases=[
                    attempt_service_pb2.GpuRelease(
                        attempt=attempt.ref, gpus=["GPU-a", "GPU-b"], evidence="gone"
                    ),
                    attempt_service_pb2.GpuRelease(attempt=attempt.ref, gpus=["GPU-other"], evidence="gone"),
                ]
            )
        leased, released = await facts.until("released")
    assert (leased.fact, leased.resource) == ("leased", job.name)
    lease = gpu_events_pb2.GpuLeased.FromString(leased.payload)
    assert (lease.training_job, lease.attempt, lease.cluster) == (job.name, 1, cluster.id)
    assert lease.gpus == ["GPU-a", "GPU-b"]
    release = gpu_events_pb2.GpuReleased.FromString(released.payload)
    assert (release.training_job, release.attempt, release.node_id) == (job.name, 1, "node-1")
    assert (release.gpus, release.evidence) == (["GPU-a", "GPU-b"], "gone")
