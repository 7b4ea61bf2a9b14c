"""`finemesh.v1.WorkerService`, and what clusters are told of their nodes."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from finemesh.chassis.attempts_servicer import AttemptServicer
from finemesh.chassis.auth import Principal, Role, current_principal
from finemesh.chassis.sql import Tx
from finemesh.core.attempts import AttemptRef, Cluster, LocalPool, NodeCapacity
from finemesh.core.clock import Clock
from finemesh.core.errors import (
    FieldViolation,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
)
from finemesh.core.names import check_id
from finemesh.training.domain import TrainingResult
from finemesh.training.gpu_leases import release
from finemesh.training.job import TrainingJob
from finemesh.training.store import SqlStore
from finemesh.training.workers.convert import cluster_to_proto, node_to_proto, pool_to_proto
from finemesh.training.workers.mover import is_on, jobs_in
from finemesh.training.workers.orders import (
    Drain,
    Orders,
    orders_of,
    put_drain,
    put_pool,
    remove_drains,
)
from finemesh.v1 import attempt_service_pb2, worker_pb2
from finemesh.v1 import worker_service_pb2 as pb
from finemesh.v1.worker_service_pb2_grpc import WorkerServiceServicer

MAX_POOL_NODES: Final = 64
_ANY: Final = "-"
_DEFAULT_CPUS: Final = 1.0
_DEFAULT_MEMORY_BYTES: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class _Seen:
    """A cluster as it has reported itself, and what is wanted of it."""

    cluster: Cluster
    orders: Orders
    live: bool


class WorkerServicer(WorkerServiceServicer):
    """Viewers see nodes, and the work of their projects; operators of all projects change something."""

    def __init__(self, store: SqlStore, clock: Clock, live_seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._live_seconds = live_seconds

    async def ListClusters(self, request: pb.ListClustersRequest, context: Any) -> pb.ListClustersResponse:
        current_principal().require_role(Role.VIEWER)
        async with self._store.db.read() as tx:
            seen = await self._seen(tx)
        return pb.ListClustersResponse(
            clusters=[cluster_to_proto(each.cluster, each.orders, live=each.live) for each in seen]
        )

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        principal = current_principal()
        principal.require_role(Role.VIEWER)
        wanted = _cluster_id(request.parent, "parent", or_any=True)
        async with self._store.db.read() as tx:
            seen = await self._seen(tx) if wanted == _ANY else [await self._one(tx, wanted)]
            jobs = {each.cluster.id: await jobs_in(tx, each.cluster.id) for each in seen}
        nodes = [
            _told(each, node, jobs[each.cluster.id], principal)
            for each in seen
            for node in each.cluster.capacity.node_capacities
        ]
        return pb.ListNodesResponse(nodes=nodes)

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> worker_pb2.Node:
        principal = current_principal()
        principal.require_role(Role.VIEWER)
        async with self._store.db.read() as tx:
            return await self._node(tx, request.name, principal)

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Any) -> worker_pb2.Node:
        principal = _operator()
        async with self._store.db.begin() as tx:
            seen, node = await self._found(tx, request.name)
            drain = Drain(node.node_id, request.leave_work, self._clock.now())
            await put_drain(tx, seen.cluster.id, drain)
            return await self._node(tx, request.name, principal)

    async def UndrainNode(self, request: pb.UndrainNodeRequest, context: Any) -> worker_pb2.Node:
        principal = _operator()
        async with self._store.db.begin() as tx:
            seen, node = await self._found(tx, request.name)
            await remove_drains(tx, seen.cluster.id, [node.node_id])
            tx.after_commit(self._store.on_change)
            return await self._node(tx, request.name, principal)

    async def ResizeLocalPool(self, request: pb.ResizeLocalPoolRequest, context: Any) -> worker_pb2.Cluster:
        _operator()
        cluster_id, pool = _cluster_id(request.name, "name"), _pool_of(request)
        async with self._store.db.begin() as tx:
            seen = await self._one(tx, cluster_id)
            if seen.cluster.capacity.local_pool is None:
                raise PreconditionError(
                    f"clusters/{cluster_id} has no local pool: its nodes are started and stopped by who runs "
                    "Ray there. Change workerGroupSpecs[].replicas of its RayCluster (KubeRay), or run "
                    "`ray start --address …` on further machines",
                    reason="NO_LOCAL_POOL",
                    metadata={"cluster": cluster_id},
                )
            await put_pool(tx, cluster_id, pool)
            seen = await self._one(tx, cluster_id)
        return cluster_to_proto(seen.cluster, seen.orders, live=seen.live)

    # ---- reading

    async def _seen(self, tx: Tx) -> list[_Seen]:
        clusters = await self._store.queue.clusters(tx)
        orders = await orders_of(tx, (each.id for each in clusters))
        oldest = self._clock.now() - timedelta(seconds=self._live_seconds)
        return [_Seen(each, orders[each.id], each.last_seen_time >= oldest) for each in clusters]

    async def _one(self, tx: Tx, cluster_id: str) -> _Seen:
        """Raises NotFoundError, reason CLUSTER_NOT_FOUND."""
        for each in await self._seen(tx):
            if each.cluster.id == cluster_id:
                return each
        raise NotFoundError(
            f"no cluster has reported itself as {cluster_id!r}: list the clusters to see which there are",
            reason="CLUSTER_NOT_FOUND",
            metadata={"cluster": cluster_id},
        )

    async def _found(self, tx: Tx, name: str) -> tuple[_Seen, NodeCapacity]:
        """Raises NotFoundError, reason CLUSTER_NOT_FOUND or NODE_NOT_FOUND."""
        parent, _, node_id = name.partition("/nodes/")
        seen = await self._one(tx, _cluster_id(parent, "name"))
        for node in seen.cluster.capacity.node_capacities:
            if node.node_id == node_id:
                return seen, node
        raise NotFoundError(
            f"there is no node {node_id!r} in {parent}: a node gets another id when Ray starts anew there; "
            "list the nodes to see which there are",
            reason="NODE_NOT_FOUND",
            metadata={"node": name},
        )

    async def _node(self, tx: Tx, name: str, principal: Principal) -> worker_pb2.Node:
        seen, node = await self._found(tx, name)
        return _told(seen, node, await jobs_in(tx, seen.cluster.id), principal)


class ClusterServicer(AttemptServicer[TrainingResult]):
    """`finemesh.v1.AttemptService` of Training, which has its say about the nodes as well."""

    def __init__(self, store: SqlStore, *given: Any) -> None:
        super().__init__(store.queue, *given)
        self._store = store

    async def SyncCluster(
        self, request: attempt_service_pb2.SyncClusterRequest, context: Any
    ) -> attempt_service_pb2.SyncClusterResponse:
        response = await super().SyncCluster(request, context)
        await self._take_releases(request)
        async with self._store.db.read() as tx:
            orders = (await orders_of(tx, [request.cluster]))[request.cluster]
        told = response.node_orders
        told.SetInParent()
        told.draining.extend(sorted(orders.drains))
        if orders.pool is not None:
            told.local_pool.CopyFrom(pool_to_proto(orders.pool))
        return response

    async def _take_releases(self, request: attempt_service_pb2.SyncClusterRequest) -> None:
        outbox = self._store.outbox
        for told in request.gpu_releases:
            ref = AttemptRef(told.attempt.resource, told.attempt.attempt, told.attempt.fence)
            async with self._store.db.begin() as tx:
                await tx.lock(ref.resource)
                now = outbox.clock.now()
                await release(tx, outbox, request.cluster, ref, told.gpus, told.evidence, now)


def _told(
    seen: _Seen, node: NodeCapacity, jobs: Sequence[TrainingJob], principal: Principal
) -> worker_pb2.Node:
    """A node with what of its cluster's `jobs`, and of other work, is on it."""
    here = [job for job in jobs if is_on(job, node)]
    named = {str(job.name) for job in here}
    others = [name for name in node.supervised if name not in named]
    message = node_to_proto(seen.cluster.id, node, seen.orders, live=seen.live)
    message.work.extend(_work(here, others, node, principal))
    return message


def _work(
    jobs: Sequence[TrainingJob], others: Sequence[str], node: NodeCapacity, principal: Principal
) -> list[worker_pb2.NodeWork]:
    found: list[worker_pb2.NodeWork] = []
    for job in jobs:
        work = worker_pb2.NodeWork()
        if principal.may_see(job.name.project) and job.worker is not None:
            here = job.worker.node_id == node.node_id
            work.resource, work.attempt, work.message = str(job.name), job.attempt, job.message
            work.pids.extend(job.worker.pids if here else ())
            work.gpu_ids.extend(job.worker.gpu_ids if here else ())
            if job.state_time is not None:
                work.start_time.FromDatetime(job.state_time)
        found.append(work)
    for name in others:
        seen = principal.may_see(name.split("/")[1])
        found.append(worker_pb2.NodeWork(resource=name if seen else ""))
    return found


def _operator() -> Principal:
    """Raises PermissionDeniedError, reason ROLE_DENIED or PROJECT_DENIED."""
    principal = current_principal()
    principal.require_role(Role.OPERATOR)
    if not principal.all_projects:
        raise PermissionDeniedError(
            f"nodes are shared by all projects, and the token of {principal.subject!r} does not cover all: "
            "ask for one that does",
            reason="PROJECT_DENIED",
            metadata={"subject": principal.subject},
        )
    return principal


def _cluster_id(name: str, field: str, *, or_any: bool = False) -> str:
    head, _, cluster_id = name.partition("/")
    if head != "clusters" or not cluster_id:
        problem = f"{name!r} is not a name of this kind: write clusters/{{cluster}}"
        raise InvalidError.of(field, problem, reason="MALFORMED_NAME")
    return cluster_id if or_any and cluster_id == _ANY else check_id(cluster_id, field)


def _pool_of(request: pb.ResizeLocalPoolRequest) -> LocalPool:
    node, violations = request.node, list[FieldViolation]()
    if not 0 <= request.nodes <= MAX_POOL_NODES:
        violations.append(FieldViolation("nodes", f"must lie in [0, {MAX_POOL_NODES}]"))
    if not 0 <= node.cpus <= 10_000 or node.memory_bytes < 0:
        violations.append(FieldViolation("node", "cores and memory must not be negative"))
    if node.gpus:
        violations.append(FieldViolation("node.gpus", "GPUs of this machine stay with the head: leave it 0"))
    if violations:
        listed = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidError(listed, violations=violations, reason="INVALID_POOL")
    return LocalPool(
        request.nodes,
        cpus=node.cpus or _DEFAULT_CPUS,
        memory_bytes=node.memory_bytes or _DEFAULT_MEMORY_BYTES,
    )
