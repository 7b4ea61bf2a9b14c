"""What attempts hold, from the moment it is known to the proof that it is free again.

Until the GPUs of an attempt that is over are proven free, no GPU is given to another one; what does not come
free within a try is taken out of the cluster: a keeper takes it from Ray, and operators are told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine
from typing import Any, Final, Protocol

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finemesh.chassis.logs import get_logger
from finemesh.cluster.attempts import service_of, to_proto
from finemesh.cluster.devices import Device
from finemesh.cluster.holdings import Held, HoldingBook
from finemesh.cluster.keeper import Keepers
from finemesh.cluster.ledger import Entry
from finemesh.cluster.reaper import Holding, Release, place, release
from finemesh.core.attempts import AttemptRef
from finemesh.core.errors import UnavailableError
from finemesh.v1 import attempt_service_pb2 as pb
from finemesh.v1.attempt_service_pb2 import ClusterCapacity

_ASK_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 10.0
_NODE_SECONDS: Final = 30.0

_log = get_logger("finemesh.releases")


class Driver(Protocol):
    """What of `RayDriver` is needed. All raise UnavailableError."""

    async def holdings(self, actor: str) -> list[Holding]: ...

    def has_node(self, node_id: str) -> bool: ...

    def end_group(self, ref: AttemptRef) -> None: ...


class KeepsGpus(Protocol):
    """What of `Keepers` is needed."""

    def has(self, node: str, device: Device) -> bool: ...

    def take(self, holding: Holding) -> None: ...

    def let_go(self, holding: Holding) -> None: ...


class Releases:
    """Used from the agent's event loop."""

    def __init__(self, book: HoldingBook, driver: Driver, keepers: KeepsGpus | None = None) -> None:
        self._book = book
        self._driver = driver
        self._keepers: KeepsGpus = keepers or Keepers()
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._not_before: dict[tuple[AttemptRef, int], float] = {}
        self._over: list[Held] = []

    async def idle(self) -> None:
        """Wait until nothing is being asked or looked at."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values())

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._book.close()

    def settling(self, live: Collection[Entry]) -> bool:
        """Whether GPUs of other attempts than the live ones were not looked at yet: none should be given out
        meanwhile.
        """
        return any(held.holding.devices and held.tries == 0 for held in self._unproven(live))

    def _unproven(self, live: Collection[Entry]) -> list[Held]:
        refs = {entry.ref for entry in live}
        return [held for held in self._book.all() if held.ref not in refs and not held.release_time]

    def withhold(self, capacity: ClusterCapacity) -> None:
        """Take out of what a cluster reports what is not proven free."""
        nodes = {node.node_id: node for node in capacity.node_capacities}
        for held in self._over:
            parts: list[Any] = [capacity, *([nodes[held.holding.node]] if held.holding.node in nodes else [])]
            for device in held.holding.devices:
                kept = self._keepers.has(held.holding.node, device)  # then Ray counts it as given away
                for part in parts:
                    part.gpus_free = max(0.0, part.gpus_free - device.share * (not kept))
                    part.gpus = max(0.0, part.gpus - device.share * (held.tries > 0))
                capacity.gpus_held_back += held.tries > 0

    def look(self, entries: Collection[Entry]) -> None:
        """Ask what the live attempts hold, and see after what the others have left. Does not wait."""
        for entry in entries:
            if entry.actor and not self._book.knows(entry.ref):
                self._start(entry.ref, self._ask(entry))
        self._over = self._unproven(entries)
        for held in self._over:
            key = (held.ref, held.holding.pid)
            if time.monotonic() >= self._not_before.get(key, 0.0):
                self._start(key, self._prove(held))

    def knows(self, ref: AttemptRef) -> bool:
        """Whether an attempt is on record as having had a process: it had a lease then."""
        return self._book.knows(ref)

    def places(self) -> set[tuple[AttemptRef, str]]:
        """Which attempts have, or may still have, a process on which node."""
        return {(h.ref, h.holding.node) for h in self._book.all() if not h.release_time}

    def told(self, service: str) -> list[Held]:
        """What is proven and was not told to `service` yet."""
        return [h for h in self._book.all() if h.release_time and service_of(h.ref.resource) == service]

    def forget(self, told: Collection[Held]) -> None:
        """The service has heard of these."""
        for held in told:
            self._book.forget(held)

    def _start(self, key: object, work: Coroutine[Any, Any, None]) -> None:
        if key in self._tasks:
            work.close()
            return
        task = self._tasks[key] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def _ask(self, entry: Entry) -> None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                found = await self._driver.holdings(entry.actor)
        except (UnavailableError, TimeoutError):
            return
        for holding in found:
            self._book.note(entry.ref, holding)

    async def _prove(self, held: Held) -> None:
        holding = held.holding
        try:
            await asyncio.to_thread(self._driver.end_group, held.ref)
            if holding.place == place():
                found = await asyncio.to_thread(release, holding)
            elif not await asyncio.to_thread(self._driver.has_node, holding.node):
                found = Release(True, "its node has left the cluster, with its GPUs")
            else:
                async with asyncio.timeout(_NODE_SECONDS):
                    found = await _on_node(held)
        except (RayError, TimeoutError, UnavailableError) as error:
            found = Release(False, f"its node does not answer: {type(error).__name__}")
        fields = {"resource": held.ref.resource, "attempt": held.ref.attempt, "evidence": found.evidence}
        if found.free:
            _log.info("released", **fields)
            await asyncio.to_thread(self._keepers.let_go, holding)
        else:
            self._not_before[held.ref, holding.pid] = time.monotonic() + _AGAIN_SECONDS
            _log.warning("gpu_held_back" if holding.devices else "not_released", **fields)
            await asyncio.to_thread(self._keepers.take, holding)
        self._book.seen(held, found)


async def _on_node(held: Held) -> Release:
    where = NodeAffinitySchedulingStrategy(held.holding.node, soft=False)
    task: Any = ray.remote(release).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
    return await task.remote(held.holding)


def release_of(told: Collection[Held]) -> list[pb.GpuRelease]:
    """As the services are told; of attempts without GPUs there is nothing to tell."""
    messages: list[pb.GpuRelease] = []
    for held in told:
        gpus = [device.uuid or device.id for device in held.holding.devices]
        if gpus:
            message = pb.GpuRelease(attempt=to_proto(held.ref), gpus=gpus, evidence=held.evidence)
            message.release_time.FromMicroseconds(int(held.release_time * 1e6))
            messages.append(message)
    return messages
