"""Warm workers: what a training imports takes longer than all else before its first step, and is done ahead.

A unit is a detached actor, the standby, with a worker of its own that has imported everything and holds
neither a GPU nor a lease. Given a command, the standby becomes the supervisor of that attempt, once; the
worker does its work, and both end with it. Since the worker is the standby's from the beginning, whatever
ends a supervisor ends it too, as with a cold one.

The attempt's resources are held by its placement group, which is asked for on the unit's node. Which GPUs
are in it is told by an actor that sits there for as long as the work takes; the worker sees them from then
on, for it has not touched CUDA before. Where Ray gives the room on another node, the work starts cold.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import os
from dataclasses import dataclass
from typing import Any, Final

import psutil
import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from finemesh.chassis.logs import configure_logging, get_logger
from finemesh.cluster.config import Site
from finemesh.cluster.crew import Crew, bundles_of
from finemesh.cluster.devices import VISIBLE, visible_here
from finemesh.cluster.worker import Worker
from finemesh.v1 import attempt_pb2

_NOT_INITIALISED: Final = 3  # CUDA_ERROR_NOT_INITIALIZED, of cuda.h
_END_SECONDS: Final = 10.0
# How long a worker that has waited may take to begin. One that does not has hung: a cold one is started.
_TAKE_SECONDS: Final = 60.0
# What the loop and the libraries under it import, some of it only when it is used for the first time.
MODULES: Final = (
    "finemesh.cluster.workers.train",
    "finemesh.finetune.preflight",
    "finemesh.finetune.quantiser",
    "peft",
    "pyarrow.parquet",
    "safetensors.torch",
    "torch._dynamo",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.auto.tokenization_auto",
)

_log = get_logger("finemesh.warm")


class WarmWorker(Worker):
    """A worker that gets its job later than its process."""

    def __init__(self, site: Site) -> None:
        configure_logging("worker", site.log_level)
        self._site = site
        self._given: list[str] = []

    def prepare(self) -> int:
        """Import what a training needs. Returns the process id."""
        # torch asks the driver's management library whether there are GPUs, in place of starting CUDA.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        for module in MODULES:
            importlib.import_module(module)
        return os.getpid()

    def take(self, command: bytes, gpus: list[str], visible: str | None) -> bool:
        """Be the worker of this command, with these GPUs. False if CUDA has started without them."""
        if gpus:
            if not cuda_untouched():
                return False
            os.environ[VISIBLE] = visible or ",".join(gpus)
        self._given = gpus
        super().__init__(self._site, command)
        return True

    def _gpus(self) -> tuple[list[str], str | None]:
        return self._given, visible_here()


class Seat:
    """Sits in an attempt's placement group for its warm worker, and knows what Ray has given it."""

    def gpus(self) -> tuple[list[str], str | None]:
        """The GPUs' ids, and the variable by which CUDA is told of them."""
        return [str(each) for each in ray.get_gpu_ids()], visible_here()


class WarmCrew(Crew):
    """A crew of one: a warm worker, which lives on the supervisor's node."""

    def __init__(self, worker: Any, process: psutil.Process, seat: Any) -> None:
        self.actors = [worker]
        self.leader = worker
        self._process = process
        self._seat = seat

    def kill(self) -> None:
        """End the worker, and return when it is gone: its placement group is given back after that."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.kill()
        super().kill()
        with contextlib.suppress(psutil.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        if self._seat is not None:
            ray.kill(self._seat, no_restart=True)


@dataclass(frozen=True, slots=True)
class Warmth:
    """The worker of a unit, before it has a job."""

    worker: Any
    process: psutil.Process
    node_id: str

    async def join(self, site: Site, command: attempt_pb2.Command, group: Any) -> Crew:
        """The crew of an attempt whose placement group is ready: this worker, or cold ones if it cannot."""
        bundles = bundles_of(command)
        table: dict[str, Any] = await asyncio.to_thread(placement_group_table, group)
        here = set(table["bundles_to_node_id"].values()) == {self.node_id}
        seat = _seat(group, bundles[0]) if here else None
        crew = WarmCrew(self.worker, self.process, seat)
        if here and len(bundles) == 1 and await self._takes(command, seat):
            return crew
        _log.info("started_cold", resource=command.resource, here=here, ranks=len(bundles))
        await asyncio.to_thread(crew.kill)
        return Crew(site, command, group)

    async def _takes(self, command: attempt_pb2.Command, seat: Any) -> bool:
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                gpus, visible = await seat.gpus.remote() if seat is not None else ([], None)
                return await self.worker.take.remote(command.SerializeToString(), gpus, visible)
        except (RayError, TimeoutError) as error:
            _log.warning("warm_worker_lost", resource=command.resource, error=repr(error)[:300])
            return False


def _seat(group: Any, bundle: dict[str, float]) -> Any:
    """The actor that names the GPUs of a bundle; None for one without."""
    if not bundle.get("GPU"):
        return None
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    options = {"num_cpus": 0, "num_gpus": bundle["GPU"], "max_restarts": 0, "scheduling_strategy": place}
    return ray.remote(Seat).options(**options).remote()


def cuda_untouched() -> bool:
    """Whether CUDA has not started in this process, so that it still heeds which devices it may see."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) == _NOT_INITIALISED
