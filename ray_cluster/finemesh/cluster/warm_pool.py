"""The pool of warm workers, as the agent keeps it: so many units on each node, each given away once.

Which units there are, Ray says; which of them are given away, the ledger. An agent that starts again thus
finds its pool as it was. A unit is given to an attempt in the ledger first, so that none gets two.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finemesh.chassis.logs import get_logger
from finemesh.cluster.attempts import ACTOR_NAMESPACE
from finemesh.cluster.config import Site
from finemesh.cluster.driver import unavailable
from finemesh.cluster.standby import Standby
from finemesh.v1 import attempt_pb2

_PREFIX: Final = "warm-"
_RETRY_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 5.0
_PREPARE_SECONDS: Final = 180.0
_CLAIM_SECONDS: Final = 3.0

_log = get_logger("finemesh.pool")


@dataclass(slots=True)
class _Unit:
    actor: Any
    ready: bool = False
    memory_bytes: int = 0
    looking: bool = False


class WarmPool:
    """Used from one event loop, by the driver of a cluster. There are no units on the nodes `avoided`."""

    def __init__(self, site: Site, address: str, per_node: int, refill_seconds: float) -> None:
        self._site = site
        self._address = address
        self._per_node = per_node
        self._refill_seconds = refill_seconds
        self._units: dict[str, _Unit] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.avoided: frozenset[str] = frozenset()
        self._found = False
        self._looked = self._refill_from = 0.0

    @property
    def ready(self) -> int:
        """Units that can be given work."""
        return sum(unit.ready for unit in self._units.values())

    @property
    def memory_bytes(self) -> int:
        """Memory of all units that are not given away, as proportional set size."""
        return sum(unit.memory_bytes for unit in self._units.values())

    async def close(self) -> None:
        """Stop looking after the units. They stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def tend(self, given: Collection[str]) -> None:
        """Find what there is, make what is missing, look at the rest. `given` are the units given away.

        Raises UnavailableError, reason RAY_UNAVAILABLE.
        """
        now = time.monotonic()
        try:
            if not self._found:
                await asyncio.to_thread(self._find, given)
                self._found = True
            if now >= self._refill_from:
                await asyncio.to_thread(self._fill)
        except (RayError, ConnectionError, RuntimeError) as error:
            raise unavailable(self._address, error) from error
        if now >= self._looked + _LOOK_SECONDS:
            self._looked = now
            for name, unit in self._units.items():
                if not unit.looking:
                    unit.looking = True
                    task = asyncio.create_task(self._look(name, unit))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    def choose(self, command: attempt_pb2.Command) -> str:
        """A unit that may do this work, from now on no longer in the pool; empty if there is none."""
        if not command.HasField("train_work") or max(command.resources.workers, command.resources.gpus) > 1:
            return ""
        for name, unit in self._units.items():
            node_id = _node_of(name)
            wanted = node_id in command.nodes if command.nodes else node_id not in command.avoided_nodes
            if unit.ready and wanted:
                del self._units[name]
                _log.info("warm_worker_given", unit=name, resource=command.resource)
                self._refill_from = time.monotonic() + self._refill_seconds
                return name
        return ""

    async def give(self, name: str, command: attempt_pb2.Command) -> bool:
        """Let a unit begin. False if it is certain that it does not and will not: it has been ended."""
        try:
            actor: Any = await asyncio.to_thread(_actor, name)
            async with asyncio.timeout(_CLAIM_SECONDS):
                taken: bool = await actor.take.remote(command.SerializeToString())
            if taken:  # `run` alone lets it begin: what is taken too late, and ended below, does nothing
                actor.run.remote()
                return True
        except (RayError, ValueError, TimeoutError) as error:
            _tell_lost(name, error)
        await asyncio.to_thread(end_actor, name)
        return False

    # ---- the units

    def _find(self, given: Collection[str]) -> None:
        for name in ray.util.list_named_actors():
            if name.startswith(_PREFIX) and name not in given:
                with contextlib.suppress(ValueError):  # ended meanwhile
                    self._units[name] = _Unit(_actor(name))

    def _fill(self) -> None:
        for node in ray.nodes():
            here = [name for name in self._units if _node_of(name) == node["NodeID"]]
            wanted = self._per_node if node["Alive"] and node["NodeID"] not in self.avoided else 0
            for _ in range(wanted - len(here)):
                name = f"{_PREFIX}{node['NodeID']}-{secrets.token_hex(4)}"
                self._units[name] = _Unit(_make(name, self._site))
            for name in here[wanted:]:
                self._end(name)

    async def _look(self, name: str, unit: _Unit) -> None:
        """Prepare it if that was not done, and ask how it is. One that does not answer is replaced."""
        try:
            if not unit.ready:
                async with asyncio.timeout(_PREPARE_SECONDS):
                    await unit.actor.prepare.remote()
            async with asyncio.timeout(_LOOK_SECONDS):
                unit.memory_bytes = await unit.actor.memory_bytes.remote()
            if not unit.ready:
                _log.info("warm_worker_ready", unit=name, memory_mb=unit.memory_bytes // 1_000_000)
            unit.ready = True
        except (RayError, TimeoutError) as error:
            if name in self._units:
                _tell_lost(name, error)
                self._refill_from = time.monotonic() + _RETRY_SECONDS
                await asyncio.to_thread(self._end, name)
        finally:
            unit.looking = False

    def _end(self, name: str) -> None:
        self._units.pop(name, None)
        end_actor(name)


def _tell_lost(name: str, error: Exception) -> None:
    _log.warning("warm_worker_lost", unit=name, error=f"{type(error).__name__}: {str(error)[:300]}")


def _actor(name: str) -> Any:
    return ray.get_actor(name, namespace=ACTOR_NAMESPACE)


def end_actor(name: str) -> None:
    """End a named actor and what it owns; none of that name is no error."""
    with contextlib.suppress(ValueError):
        ray.kill(_actor(name), no_restart=True)


def _make(name: str, site: Site) -> Any:
    options: dict[str, Any] = {
        "name": name,
        "namespace": ACTOR_NAMESPACE,
        "lifetime": "detached",
        "num_cpus": 0,
        "max_restarts": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(_node_of(name), soft=False),
    }
    return ray.remote(Standby).options(**options).remote(site)


def _node_of(name: str) -> str:
    return name.split("-")[1]
