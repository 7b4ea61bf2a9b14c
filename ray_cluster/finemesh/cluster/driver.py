"""What the agent asks of Ray through its library: blocking calls, made in threads."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray.exceptions import RayError

from finemesh.cluster.attempts import ACTOR_NAMESPACE, actor_name
from finemesh.cluster.config import Site
from finemesh.cluster.deaths import stillbirth
from finemesh.cluster.nodes import Nodes, away_from, node_of_actor
from finemesh.cluster.reaper import Holding
from finemesh.cluster.supervisor import Supervisor
from finemesh.core.attempts import AttemptRef
from finemesh.core.errors import UnavailableError
from finemesh.v1 import attempt_pb2
from finemesh.v1.attempt_service_pb2 import ClusterCapacity


class RayDriver:
    """The one driver of a cluster. Every method raises UnavailableError, reason RAY_UNAVAILABLE."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._nodes = Nodes()
        self._runs: dict[str, Any] = {}  # of the supervisors that this process has started

    def connect(self) -> None:
        """Become a driver; again changes nothing."""
        if ray.is_initialized():
            return
        try:
            ray.init(
                address=self._address,
                namespace=ACTOR_NAMESPACE,
                log_to_driver=False,
                logging_level=logging.WARNING,
                configure_logging=False,
            )
        except (RayError, ConnectionError, OSError, RuntimeError) as error:
            raise unavailable(self._address, error) from error

    def disconnect(self) -> None:
        if ray.is_initialized():
            ray.shutdown()

    def capacity(self) -> ClusterCapacity:
        """What there is, and what of it Ray has not given away."""
        try:
            total: dict[str, Any] = ray.cluster_resources()
            free: dict[str, Any] = ray.available_resources()
            nodes = self._nodes.capacities()
        except (RayError, ConnectionError, RuntimeError) as error:
            raise unavailable(self._address, error) from error
        return ClusterCapacity(
            cpus=total.get("CPU", 0.0),
            cpus_free=free.get("CPU", 0.0),
            gpus=total.get("GPU", 0.0),
            gpus_free=free.get("GPU", 0.0),
            memory_bytes=int(total.get("memory", 0)),
            memory_free_bytes=int(free.get("memory", 0)),
            nodes=len(nodes),
            node_capacities=nodes,
        )

    def launch(self, site: Site, ref: AttemptRef, command: attempt_pb2.Command) -> None:
        """Start the supervisor of an attempt. It lives on without this driver."""
        try:
            supervisor: Any = (
                ray.remote(Supervisor)
                .options(
                    name=actor_name(ref),
                    namespace=ACTOR_NAMESPACE,
                    lifetime="detached",
                    num_cpus=0,
                    max_restarts=0,
                    label_selector=away_from(command.avoided_nodes),
                )
                .remote(site, command.SerializeToString())
            )
            self._runs[actor_name(ref)] = supervisor.run.remote()
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise unavailable(self._address, error) from error

    def stillbirth(self, actor: str) -> str:
        """What kept the supervisor of this name from beginning; empty if nothing did, or nobody can tell: it
        has not ended, or another process started it.
        """
        run = self._runs.get(actor)
        try:
            if run is None or not ray.wait([run], timeout=0)[0]:
                return ""
            ray.get(run)
        except RayError as error:
            if found := stillbirth(error):
                return found
        except (ConnectionError, RuntimeError) as error:
            raise unavailable(self._address, error) from error
        self._runs.pop(actor, None)
        return ""

    def is_alive(self, actor: str) -> bool:
        """Whether the actor of this name is there, a starting one included."""
        try:
            return self._find(actor) is not None
        except (RayError, ConnectionError, RuntimeError) as error:
            raise unavailable(self._address, error) from error

    def node_of(self, actor: str) -> str:
        """The node on which the actor of this name runs; empty if there is none, or not yet."""
        try:
            found = self._find(actor)
            return node_of_actor(found) if found is not None else ""
        except (RayError, ConnectionError, RuntimeError) as error:
            raise unavailable(self._address, error) from error

    async def holdings(self, actor: str) -> list[Holding]:
        """The processes of an attempt, from its supervisor; none while it cannot tell."""
        try:
            found = await asyncio.to_thread(self._find, actor)
            return await found.holdings.remote() if found is not None else []
        except (RayError, ConnectionError, RuntimeError) as error:
            raise unavailable(self._address, error) from error

    def end_group(self, ref: AttemptRef) -> None:
        """Give back what an attempt that is over has reserved: its placement group, if it is still there."""
        try:
            group = ray.util.get_placement_group(actor_name(ref))
            ray.util.remove_placement_group(group)
        except ValueError:  # there is none of this name
            return
        except (RayError, ConnectionError, RuntimeError) as error:
            raise unavailable(self._address, error) from error

    def has_node(self, node_id: str) -> bool:
        """Whether a node is part of the cluster."""
        try:
            return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())
        except (RayError, ConnectionError, RuntimeError) as error:
            raise unavailable(self._address, error) from error

    def kill(self, actor: str) -> None:
        """End the supervisor of this name, and its worker with it."""
        self._runs.pop(actor, None)
        try:
            supervisor = self._find(actor)
            if supervisor is not None:
                ray.kill(supervisor, no_restart=True)
        except (RayError, ConnectionError, RuntimeError) as error:
            raise unavailable(self._address, error) from error

    def _find(self, actor: str) -> Any:
        try:
            return ray.get_actor(actor, namespace=ACTOR_NAMESPACE)
        except ValueError:  # no actor of this name lives
            return None


def unavailable(address: str, error: Exception) -> UnavailableError:
    """That Ray at this address does not answer."""
    return UnavailableError(
        f"Ray at {address} does not answer ({type(error).__name__}: {str(error)[:200]})",
        reason="RAY_UNAVAILABLE",
    )
