"""The worker actors of an attempt: one, or one for each rank of a training that several share.

Plain actors in one placement group, a bundle each, on one node if one is large enough. Rank 0 is the worker
as far as everybody else is concerned: it alone is asked how the work is going.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

import ray
from google.rpc.status_pb2 import Status as RpcStatus
from ray.exceptions import RayError
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from finemesh.chassis.errors import from_status
from finemesh.cluster.attempts import actor_name, ref_of
from finemesh.cluster.config import Site
from finemesh.cluster.nodes import away_from, only_on
from finemesh.cluster.reaper import Holding
from finemesh.cluster.worker import CONCURRENCY, Ending, Worker
from finemesh.v1 import attempt_pb2

# How long the others may take to tell why they ended, once one has: the first to notice is rarely the cause.
_CAUSE_SECONDS: Final = 2.0
# How long after all have answered they are asked again whether they are there.
_LISTEN_SECONDS: Final = 10.0
_RAY_DIGITS: Final = 10_000  # Ray counts resources to four digits

Bundle = dict[str, float]


def ranks_of(command: attempt_pb2.Command) -> int:
    """How many actors an attempt has."""
    if not command.HasField("train_work"):
        return 1
    return command.resources.workers or max(1, int(command.resources.gpus))


def bundles_of(command: attempt_pb2.Command) -> list[Bundle]:
    """What each actor holds: equal shares of what the attempt does."""
    wanted, ranks = command.resources, ranks_of(command)
    bundle = {"CPU": math.floor((wanted.cpus or 1.0) / ranks * _RAY_DIGITS) / _RAY_DIGITS}
    if wanted.gpus:
        bundle["GPU"] = wanted.gpus / ranks
    if wanted.memory_bytes:
        bundle["memory"] = float(wanted.memory_bytes // ranks)
    return [bundle] * ranks


def reserve(command: attempt_pb2.Command, near: str = "") -> Any:
    """The placement group, by the attempt's name: Ray gives the resources when it has them, those of the
    nodes that the command names; if it names none those of the node `near` if that has them.
    """
    bundles, avoided, name = bundles_of(command), command.avoided_nodes, actor_name(ref_of(command))
    if command.nodes:
        places: Any = [only_on(node_id) for node_id in command.nodes]
        return placement_group(bundles, strategy="PACK", name=name, bundle_label_selector=places)
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in avoided]
    nodes = [node["Resources"] for node in alive]
    fits = any(
        all(node.get(key, 0) >= bundles[0][key] * len(bundles) for key in bundles[0]) for node in nodes
    )
    away: Any = [away_from(avoided)] * len(bundles) if avoided else None
    if fits or len(bundles) == 1:
        return placement_group(
            bundles,
            strategy="STRICT_PACK",
            name=name,
            _soft_target_node_id=near or None,
            bundle_label_selector=away,
        )
    return placement_group(bundles, strategy="PACK", name=name, bundle_label_selector=away)


class Crew:
    """The actors, started into a placement group that is ready."""

    def __init__(self, site: Site, command: attempt_pb2.Command, group: Any) -> None:
        content = command.SerializeToString()
        self.actors: list[Any] = [
            ray.remote(Worker)
            .options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                memory=bundle.get("memory"),
                max_restarts=0,
                max_concurrency=CONCURRENCY,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=rank, placement_group_capture_child_tasks=True
                ),
            )
            .remote(site, content, rank)
            for rank, bundle in enumerate(bundles_of(command))
        ]
        self.leader = self.actors[0]

    async def holdings(self) -> list[Holding]:
        """The process of each with what it was given, rank 0's first. Raises RayError."""
        return list(await asyncio.gather(*(actor.holding.remote() for actor in self.actors)))

    async def run(self) -> Ending:
        """Let all work. How rank 0 ends, or what ended any of them. Raises RayError: one has died."""
        if len(self.actors) == 1:
            return await self.leader.run.remote("")
        meeting = await self.leader.meet.remote()
        running = [asyncio.ensure_future(actor.run.remote(meeting)) for actor in self.actors]
        while True:
            await asyncio.wait(
                [each for each in running if not each.done()], return_when=asyncio.FIRST_COMPLETED
            )
            if any(each.done() and _has_failed(each) for each in running):
                _, pending = await asyncio.wait(running, timeout=_CAUSE_SECONDS)
                for each in pending:
                    each.cancel()
                return min((each for each in running if each.done()), key=_symptom).result()
            if running[0].done():
                return running[0].result()

    async def first_silent(self, seconds: float) -> int:
        """Ask all whether they are there, again and again: the rank of the first that has not answered for so
        long. Each has a thread for that, which waits for nothing but Python's lock. One that has died is
        heard of in other ways.
        """
        while True:
            asked = [asyncio.ensure_future(actor.is_there.remote()) for actor in self.actors]
            _, silent = await asyncio.wait(asked, timeout=seconds)
            if silent:
                return min(rank for rank, answer in enumerate(asked) if answer in silent)
            await asyncio.gather(*asked, return_exceptions=True)
            await asyncio.sleep(min(seconds, _LISTEN_SECONDS))

    def kill(self) -> None:
        for actor in self.actors:
            ray.kill(actor, no_restart=True)


def _has_failed(run: asyncio.Future[Ending]) -> bool:
    return run.cancelled() or run.exception() is not None or bool(run.result().error)


def _symptom(run: asyncio.Future[Ending]) -> int:
    """0 for a cause: a death, or an error of its own; 1 for the loss of others; 2 for no fault."""
    if run.cancelled() or isinstance(run.exception(), RayError):
        return 0
    if not run.result().error:
        return 2
    return int(from_status(RpcStatus.FromString(run.result().error)).reason == "RANK_LOST")
