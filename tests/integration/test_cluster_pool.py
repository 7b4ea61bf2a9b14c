"""A second node of a real Ray: it comes as ordered, ranks go where they were put, and it goes when free."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.fine_tune_spec import resources_to_proto, spec_to_proto
from finemesh.chassis.objects import upload_directory
from finemesh.core.spec.finetune import Checkpointing, Optimization, Resources, Task
from finemesh.v1 import attempt_pb2, worker_pb2
from finemesh.v1.attempt_service_pb2 import NodeCapacity, NodeOrders

from tests.support.cluster_site import LEASE_SECONDS, Site
from tests.support.conversations import spec, text_rows, tiny_model, write_dataset
from tests.support.ray_head import RayHeadProcess
from tests.support.scripted_mesh import scripted_mesh, until
from tests.support.servers import NatsServer, S3Server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
JOB = "projects/p/trainingJobs/spread"


@pytest.fixture
async def site(
    tmp_path: Path, start_nats: Callable[[], NatsServer], s3_server: S3Server, ray_head: RayHeadProcess
) -> AsyncGenerator[Site]:
    mesh = scripted_mesh(SigningKey.load_or_create(tmp_path / "jwt.key"), LEASE_SECONDS)
    await mesh.start("service")
    await mesh.start("tracking")
    site = Site(tmp_path, mesh, start_nats(), s3_server, ray_head, FINEMESH_LOCAL_POOL="true")
    await site.objects.ensure_bucket()
    write_dataset(tmp_path / "dataset", list(text_rows({"train": 64, "val": 8, "test": 8})))
    tiny_model(tmp_path / "model", "llama")
    await upload_directory(site.objects, tmp_path / "dataset", "material/dataset")
    await site.bus.start()
    await site.start_agent()
    yield site
    mesh.orders = NodeOrders(local_pool=worker_pb2.LocalPool(), draining=[n.node_id for n in nodes(site)])
    await until(lambda: not pool(site), "the end of the pool")
    await site.close()
    await mesh.stop("service")
    await mesh.stop("tracking")


def nodes(site: Site) -> list[NodeCapacity]:
    return list(site.mesh.syncs[-1].capacity.node_capacities)


def pool(site: Site) -> list[str]:
    """The nodes that the agent has started."""
    return [node.node_id for node in nodes(site) if node.pool_slot]


def endless(site: Site) -> attempt_pb2.TrainWork:
    chosen = replace(
        spec(Task.LANGUAGE, resources=Resources(cpus=2, workers=2)),
        base_model=str(site.data_dir.parent / "model"),
        optimization=Optimization(max_steps=1_000_000, micro_batch_size=4, seed=3),
        checkpoint=Checkpointing(every_steps=0),
    )
    return attempt_pb2.TrainWork(
        spec=spec_to_proto(chosen),
        dataset_uri=f"s3://{site.bucket}/material/dataset",
        run="projects/p/runs/spread",
        output_uri=f"s3://{site.bucket}/spread",
    )


async def test_ranks_go_where_they_were_put_and_a_node_that_works_is_not_ended(site: Site) -> None:
    size = worker_pb2.NodeResources(cpus=1, memory_bytes=1_000_000_000)
    site.mesh.orders = NodeOrders(local_pool=worker_pb2.LocalPool(wanted_nodes=1, node=size))
    await until(lambda: len(pool(site)) == 1, "the node that was ordered")
    (further,) = pool(site)
    (first,) = {node.node_id for node in nodes(site)} - {further}

    # The first node alone has room for both, and Ray would put them there.
    held = site.mesh.dispatch(
        JOB,
        train_work=endless(site),
        resources=resources_to_proto(Resources(cpus=2, workers=2)),
        nodes=[further, first],
    )
    await site.send(held)
    await until(lambda: len(held.pids) == 2 or held.completions, "both ranks")
    assert not held.completions, held.completions
    assert held.reports[-1].worker.node_id == further
    raylets = {psutil.Process(pid).ppid() for pid in held.pids}
    assert len(raylets) == 2
    await until(lambda: held.step or held.completions, "a step of both")

    # Told to go, the node stays until its work has ended.
    site.mesh.orders = NodeOrders(local_pool=worker_pb2.LocalPool(node=size), draining=[further])
    await until(lambda: any(n.draining for n in nodes(site)), "the drain")
    assert pool(site) == [further]
    held.cancelled = True
    await until(lambda: held.completions, "the cancellation")
    assert held.outcome == "cancelled"
    await until(lambda: not pool(site), "the end of the node")
    assert not any(psutil.pid_exists(pid) for pid in raylets - {p.pid for p in site.ray.processes})
