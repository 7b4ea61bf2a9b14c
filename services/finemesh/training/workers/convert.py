"""Clusters and nodes as clients see them."""

from __future__ import annotations

from finemesh.core.attempts import Cluster, LocalPool, NodeCapacity
from finemesh.training.workers.orders import Orders
from finemesh.v1 import worker_pb2 as pb


def cluster_to_proto(cluster: Cluster, orders: Orders, *, live: bool) -> pb.Cluster:
    capacity = cluster.capacity
    message = pb.Cluster(
        name=f"clusters/{cluster.id}",
        live=live,
        node_count=capacity.nodes,
        total=pb.NodeResources(cpus=capacity.cpus, gpus=capacity.gpus, memory_bytes=capacity.memory_bytes),
        free=pb.NodeResources(
            cpus=capacity.cpus_free, gpus=capacity.gpus_free, memory_bytes=capacity.memory_free_bytes
        ),
        warm_workers=capacity.warm_workers,
        warm_memory_bytes=capacity.warm_memory_bytes,
        gpus_held_back=capacity.gpus_held_back,
    )
    message.last_seen_time.FromDatetime(cluster.last_seen_time)
    if capacity.local_pool is not None:
        message.local_pool.CopyFrom(pool_to_proto(orders.pool or capacity.local_pool))
        message.local_pool.nodes = capacity.local_pool.nodes
        message.local_pool.message = capacity.local_pool.message
    return message


def pool_to_proto(pool: LocalPool) -> pb.LocalPool:
    return pb.LocalPool(
        wanted_nodes=pool.wanted_nodes,
        nodes=pool.nodes,
        node=pb.NodeResources(cpus=pool.cpus, memory_bytes=pool.memory_bytes),
        message=pool.message,
    )


def node_to_proto(cluster_id: str, node: NodeCapacity, orders: Orders, *, live: bool) -> pb.Node:
    drain = orders.drains.get(node.node_id)
    message = pb.Node(
        name=f"clusters/{cluster_id}/nodes/{node.node_id}",
        hostname=node.hostname,
        state=_state(node, orders, live=live),
        total=pb.NodeResources(cpus=node.cpus, gpus=node.gpus, memory_bytes=node.memory_bytes),
        free=pb.NodeResources(cpus=node.cpus_free, gpus=node.gpus_free, memory_bytes=node.memory_free_bytes),
        gpu_model=node.gpu_model,
        gpu_memory_bytes=node.gpu_memory_bytes,
        leaves_work=drain is not None and drain.leaves_work,
        pool_slot=node.pool_slot,
    )
    message.start_time.FromMicroseconds(round(node.start_time * 1e6))
    if drain is not None:
        message.drain_time.FromDatetime(drain.create_time)
    return message


def _state(node: NodeCapacity, orders: Orders, *, live: bool) -> pb.Node.State:
    if not live:
        return pb.Node.STATE_AWAY
    if not orders.drains_node(node):
        return pb.Node.STATE_READY
    # Only what the cluster has acknowledged is sure to get nothing more.
    return pb.Node.STATE_DRAINED if node.draining and node.is_empty else pb.Node.STATE_DRAINING
