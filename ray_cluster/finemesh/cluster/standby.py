"""The standby: the actor that waits with a warm worker, and becomes the supervisor of one attempt."""

from __future__ import annotations

from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finemesh.chassis.logs import configure_logging
from finemesh.cluster.config import Site
from finemesh.cluster.reaper import Holding
from finemesh.cluster.supervisor import Supervisor
from finemesh.cluster.warm import Warmth, WarmWorker
from finemesh.cluster.worker import CONCURRENCY


class Standby:
    """Detached, on a node of its own choice; its worker is beside it."""

    def __init__(self, site: Site) -> None:
        configure_logging("supervisor", site.log_level)
        self._site = site
        self._supervisor: Supervisor | None = None
        self._process: psutil.Process | None = None
        self._node_id: str = ray.get_runtime_context().get_node_id()
        self._worker: Any = (
            ray.remote(WarmWorker)
            .options(
                num_cpus=0,
                max_restarts=0,
                max_concurrency=CONCURRENCY,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._node_id, soft=False),
            )
            .remote(site)
        )

    async def prepare(self) -> None:
        """Have the worker import everything; again changes nothing. Raises RayError: it has died."""
        self._process = psutil.Process(await self._worker.prepare.remote())

    async def memory_bytes(self) -> int:
        """Memory of both processes, as PSS. Raises psutil.NoSuchProcess: the worker has died."""
        processes = [psutil.Process(), *([self._process] if self._process else [])]
        return sum(process.memory_full_info().pss for process in processes)

    async def take(self, command: bytes) -> bool:
        """Become the supervisor of this attempt, which begins with `run`. False if it has an attempt already,
        or no worker yet.
        """
        if self._supervisor is not None or self._process is None:
            return False
        warmth = Warmth(self._worker, self._process, self._node_id)
        self._supervisor = Supervisor(self._site, command, warmth)
        return True

    async def holdings(self) -> list[Holding]:
        """As the supervisor's."""
        return await self._supervisor.holdings() if self._supervisor else []

    async def run(self) -> None:
        """Supervise the attempt, and end with it."""
        if self._supervisor is not None:
            await self._supervisor.run()
