"""What each node of Ray's has: the resources as Ray counts them, and the kind of its GPUs as its driver says.

The kind is asked for once per node, by a task that holds nothing; until it has answered it is not known.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Collection
from typing import Any, Final, cast

import ray
from google.protobuf.timestamp_pb2 import Timestamp
from ray._private import worker
from ray._private.state import available_resources_per_node, state
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finemesh.v1.attempt_service_pb2 import NodeCapacity

_QUERY: Final = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_QUERY_SECONDS: Final = 20.0
_MIB: Final = 1 << 20

SLOT_LABEL: Final = "finemesh.io/pool-slot"
_NODE_LABEL: Final = "ray.io/node-id"  # which every node has

# Model of a GPU and its memory in bytes.
GpuKind = tuple[str, int]


class Nodes:
    """The live nodes of the cluster that this process is a driver of. Raises what Ray's library does."""

    def __init__(self) -> None:
        self._asked: dict[str, Any] = {}
        self._kinds: dict[str, GpuKind] = {}

    def capacities(self) -> list[NodeCapacity]:
        """What each has, and what of it Ray has not given away, by host name."""
        free: dict[str, dict[str, float]] = available_resources_per_node()
        started = _start_times()
        alive: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
        self._forget({node["NodeID"] for node in alive})
        capacities = [self._capacity(node, free, started) for node in alive]
        return sorted(capacities, key=lambda each: (each.hostname, each.node_id))

    def _capacity(
        self, node: dict[str, Any], free: dict[str, dict[str, float]], started: dict[str, Timestamp]
    ) -> NodeCapacity:
        node_id, total = node["NodeID"], node["Resources"]
        left = free.get(node_id, {})
        gpus = total.get("GPU", 0.0)
        model, memory = self._kind(node_id) if gpus else ("", 0)
        return NodeCapacity(
            node_id=node_id,
            hostname=node["NodeManagerHostname"],
            cpus=total.get("CPU", 0.0),
            cpus_free=left.get("CPU", 0.0),
            gpus=gpus,
            gpus_free=left.get("GPU", 0.0),
            memory_bytes=int(total.get("memory", 0)),
            memory_free_bytes=int(left.get("memory", 0)),
            gpu_model=model,
            gpu_memory_bytes=memory,
            start_time=started.get(node_id),
            pool_slot=int(node["Labels"].get(SLOT_LABEL, 0)),
        )

    def _kind(self, node_id: str) -> GpuKind:
        if node_id not in self._kinds:
            if node_id not in self._asked:
                place = NodeAffinitySchedulingStrategy(node_id, soft=False)
                ask = ray.remote(gpu_kind).options(num_cpus=0, scheduling_strategy=place, max_retries=0)
                self._asked[node_id] = ask.remote()
            elif ray.wait([self._asked[node_id]], timeout=0)[0]:
                with contextlib.suppress(RayError):  # nobody could tell: it stays unknown
                    self._kinds[node_id] = ray.get(self._asked[node_id])
        return self._kinds.get(node_id, ("", 0))

    def _forget(self, alive: set[str]) -> None:
        for known in (self._asked, self._kinds):
            for node_id in known.keys() - alive:
                del known[node_id]


def away_from(node_ids: Collection[str]) -> dict[str, str]:
    """The label selector that leaves these nodes out."""
    return {_NODE_LABEL: f"!in({','.join(sorted(node_ids))})"} if node_ids else {}


def only_on(node_id: str) -> dict[str, str]:
    """The label selector of one node."""
    return {_NODE_LABEL: node_id}


def node_of_actor(actor: Any) -> str:
    """The id of the node on which an actor runs; empty while that is not known."""
    found: dict[str, Any] = state.actor_table(actor._actor_id.hex())  # noqa: SLF001
    return found.get("Address", {}).get("NodeID", "")


def gpu_kind() -> GpuKind:
    """The model of this machine's first GPU and its memory; ("", 0) where nothing tells."""
    try:
        listed = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True)
        model, _, mebibytes = listed.stdout.splitlines()[0].rpartition(", ")
        return model, int(mebibytes) * _MIB
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return "", 0


def _start_times() -> dict[str, Timestamp]:
    client = cast("Any", worker).global_worker.gcs_client
    found: dict[str, Timestamp] = {}
    for node_id, info in client.get_all_node_info().items():
        found[node_id.hex()] = Timestamp()
        found[node_id.hex()].FromMilliseconds(info.start_time_ms)
    return found
