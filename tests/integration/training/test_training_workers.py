"""Nodes on the real service, with a cluster by hand: what is shown, who may drain, and what a drain does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import Any

import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.client_channel import channel
from finemesh.core.errors import FinemeshError
from finemesh.v1 import attempt_service_pb2, worker_pb2
from finemesh.v1 import worker_service_pb2 as pb
from finemesh.v1.worker_service_pb2_grpc import WorkerServiceStub

from tests.integration.training.conftest import Type
from tests.support.scripted_cluster import ScriptedCluster, translated
from tests.support.servers import PATIENCE_SECONDS
from tests.support.services import ServiceProcess
from tests.support.training_client import State, TrainingClient

pytestmark = pytest.mark.integration
Node = worker_pb2.Node


class Workers:
    """A caller of WorkerService."""

    def __init__(self, service: ServiceProcess, role: Role = Role.OPERATOR, project: str = "*") -> None:
        token = service.key.mint("tester", role, [project], 600)
        self.channel = channel(service.address, lambda: token)
        self.stub: Any = WorkerServiceStub(self.channel)

    async def node(self, name: str) -> worker_pb2.Node:
        return await self.stub.GetNode(pb.GetNodeRequest(name=name))

    async def until(self, name: str, state: Node.State) -> worker_pb2.Node:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                node = await self.node(name)
                if node.state == state:
                    return node
                await asyncio.sleep(0.05)


@pytest.fixture
async def workers(service: ServiceProcess) -> AsyncGenerator[Workers]:
    """An operator of all projects."""
    made = Workers(service)
    yield made
    await made.channel.close()


@pytest.fixture
async def nodes(cluster: ScriptedCluster) -> list[str]:
    """The names of two nodes with two cores each; attempts say that they work on the first."""
    cluster.nodes = [
        attempt_service_pb2.NodeCapacity(node_id=f"node-{n}", hostname=f"host-{n}", cpus=2, cpus_free=2)
        for n in (1, 2)
    ]
    await cluster.report()
    return [f"clusters/{cluster.id}/nodes/{node.node_id}" for node in cluster.nodes]


async def refusal(call: Awaitable[Any]) -> str:
    with pytest.raises(FinemeshError) as caught, translated():
        await call
    return caught.value.reason


async def test_a_drain_moves_the_training_and_ends_when_nothing_is_left(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, workers: Workers, nodes: list[str]
) -> None:
    job = await client.create(trainable)
    attempt = await cluster.next_attempt()
    cluster.nodes[0].cpus_free = 0
    await attempt.renew(step=7)
    assert [work.resource for work in (await workers.node(nodes[0])).work] == [job.name]
    assert (await workers.node(nodes[0])).work[0].pids == [4242]

    left = await workers.stub.DrainNode(pb.DrainNodeRequest(name=nodes[0], leave_work=True))
    assert (left.state, left.leaves_work) == (Node.STATE_DRAINING, True)
    await asyncio.sleep(1.5)  # longer than the mover waits between its looks
    assert await attempt.renew(step=8) == "CONTINUE"
    await workers.stub.DrainNode(pb.DrainNodeRequest(name=nodes[0]))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await attempt.renew(step=8) != "CONTINUE":
                break
            await asyncio.sleep(0.1)
    assert attempt.directive == "PREEMPT"
    assert list(cluster.orders.draining) == ["node-1"]

    await attempt.stop(8)
    cluster.forget(attempt)
    cluster.nodes[0].supervised.append(job.name)  # whose process takes a while to end
    second = await cluster.next_attempt()
    await asyncio.sleep(1.5)  # longer than the mover waits, and the next attempt is not told to leave too
    assert (await client.get(job.name)).attempt == 2
    del cluster.nodes[0].supervised[:]
    cluster.nodes[0].cpus_free = 2
    await cluster.report()
    await second.renew("STARTING")
    # Nothing holds the node any more, but it is safe only once the cluster has said that nothing will.
    assert (await workers.node(nodes[0])).state == Node.STATE_DRAINING
    cluster.nodes[0].draining = True
    await workers.until(nodes[0], Node.STATE_DRAINED)
    assert (await client.get(job.name)).state in {State.STATE_STARTING, State.STATE_RUNNING}

    await workers.stub.UndrainNode(pb.UndrainNodeRequest(name=nodes[0]))
    cluster.nodes[0].draining = False
    await workers.until(nodes[0], Node.STATE_READY)
    assert list((await cluster.report()).node_orders.draining) == []


async def test_nothing_is_placed_on_a_drained_node(
    client: TrainingClient, cluster: ScriptedCluster, trainable: str, workers: Workers, nodes: list[str]
) -> None:
    await workers.until(nodes[1], Node.STATE_READY)
    for name in nodes:
        await workers.stub.DrainNode(pb.DrainNodeRequest(name=name))
    job = await client.create(trainable)
    queued = await client.until(job.name, "QUEUED")
    await asyncio.sleep(1.0)
    assert cluster.commands.empty()
    await workers.stub.UndrainNode(pb.UndrainNodeRequest(name=nodes[1]))
    assert (await cluster.next_attempt()).command.resource == queued.name


async def test_what_waits_warm_and_what_is_held_back_is_told(
    cluster: ScriptedCluster, workers: Workers, nodes: list[str], type_in: Type
) -> None:
    cluster.warm_workers, cluster.gpus_held_back = 2, 1
    await cluster.report()
    clusters = (await workers.stub.ListClusters(pb.ListClustersRequest())).clusters
    (found,) = [each for each in clusters if each.name == f"clusters/{cluster.id}"]
    assert (found.warm_workers, found.warm_memory_bytes, found.gpus_held_back) == (2, 900_000_000, 1)
    shown = (await asyncio.to_thread(type_in, "workers", "list", "--cluster", cluster.id)).stdout
    assert f"{cluster.id}: warm workers that wait 2, with those that get so in 900.0 MB" in shown
    assert f"{cluster.id}: GPUs held back until they are proven free: 1" in shown


async def test_who_sees_and_who_changes(
    client: TrainingClient,
    cluster: ScriptedCluster,
    trainable: str,
    workers: Workers,
    nodes: list[str],
    service: ServiceProcess,
) -> None:
    await client.create(trainable)
    await (await cluster.next_attempt()).renew()
    await workers.until(nodes[0], Node.STATE_READY)
    stranger = Workers(service, project="another")
    [work] = (await stranger.node(nodes[0])).work
    assert work == worker_pb2.NodeWork()
    drain = pb.DrainNodeRequest(name=nodes[0])
    assert await refusal(stranger.stub.DrainNode(drain)) == "PROJECT_DENIED"
    viewer = Workers(service, Role.VIEWER)
    assert await refusal(viewer.stub.DrainNode(drain)) == "ROLE_DENIED"
    for each in (stranger, viewer):
        await each.channel.close()


async def test_what_is_refused_says_why(cluster: ScriptedCluster, workers: Workers, nodes: list[str]) -> None:
    await workers.until(nodes[0], Node.STATE_READY)
    stub, mine = workers.stub, f"clusters/{cluster.id}"
    assert await refusal(workers.node(f"{mine}/nodes/none")) == "NODE_NOT_FOUND"
    assert await refusal(workers.node("clusters/none/nodes/none")) == "CLUSTER_NOT_FOUND"
    assert await refusal(workers.node("nodes/none")) == "MALFORMED_NAME"
    resize = pb.ResizeLocalPoolRequest(name=mine, nodes=2)
    assert await refusal(stub.ResizeLocalPool(resize)) == "NO_LOCAL_POOL"
    resize.node.gpus = 1
    assert await refusal(stub.ResizeLocalPool(resize)) == "INVALID_POOL"
