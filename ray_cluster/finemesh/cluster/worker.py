"""The worker actor: does the work of one attempt in its own process, and answers questions meanwhile.

It is a threaded actor: `run` holds one thread for as long as the work takes, the short calls use the others.
What it knows it keeps in a `Job`, which the modules in `workers` fill.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ray

from finemesh.chassis.errors import new_error_id, to_status, unexpected
from finemesh.chassis.logs import configure_logging, get_logger
from finemesh.client.machine import Sampler
from finemesh.cluster.attempts import ref_of, resource_key, scratch_name
from finemesh.cluster.config import Site
from finemesh.cluster.devices import given, order_by_bus, visible_here
from finemesh.cluster.disk import disk_full
from finemesh.cluster.joblog import log_path, redirect
from finemesh.cluster.meeting import address_of, listen
from finemesh.cluster.reaper import Holding
from finemesh.core.attempts import Phase
from finemesh.core.errors import FinemeshError
from finemesh.finetune.usage import peak_resident_bytes
from finemesh.v1 import attempt_pb2, training_job_pb2

# run, and beside it status, samples, stop, and whether it is there, at the same time.
CONCURRENCY: Final = 5

_log = get_logger("finemesh.worker")


class Stopped(Exception):  # noqa: N818  not an error: the work was told to stop, and did
    """The work stopped as it was told to, after `step` optimiser steps."""

    def __init__(self, step: int = 0) -> None:
        super().__init__("stopped")
        self.step = step


@dataclass(frozen=True, slots=True)
class Status:
    """What the worker is doing. Messages are serialised; empty if there is none."""

    phase: Phase = Phase.STARTING
    fraction: float = 0.0
    message: str = ""
    step: int = 0
    total_steps: int = 0
    certificate: bytes = b""
    peak_memory_bytes: int = 0
    uploads: int = 0  # checkpoints that wait to be committed

    @property
    def in_steps(self) -> bool:
        """Whether it trains, with steps before it."""
        return self.phase is Phase.RUNNING and self.step < self.total_steps


@dataclass(frozen=True, slots=True)
class Ending:
    """How the work ended: exactly one of a result, an error (both serialised), or a stop."""

    result: bytes = b""
    error: bytes = b""
    stopped_at_step: int = -1


@dataclass(slots=True)
class Job:
    """What one attempt's work shares with the supervisor. Fields are replaced whole: readers need no lock.

    Attributes:
        rank: which of the actors that train together this one is, from 0.
        meeting: where they meet, as host:port; empty for one that works alone.
        listener: the socket there, rank 0's.
    """

    command: attempt_pb2.Command
    site: Site
    scratch: Path
    rank: int = 0
    meeting: str = ""
    listener: socket.socket | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    phase: Phase = Phase.STARTING
    fraction: float = 0.0
    message: str = ""
    step: int = 0
    total_steps: int = 0
    certificate: training_job_pb2.ResumeCertificate | None = None
    # Checkpoints that are uploaded and wait for the supervisor to commit them.
    uploaded: deque[training_job_pb2.Checkpoint] = field(default_factory=deque[training_job_pb2.Checkpoint])
    expired_uris: deque[str] = field(default_factory=deque[str])
    # What the run is made of, serialised; empty until it is known.
    lineage: bytes = b""
    # Logs values at the step where the work is; None while nothing can be logged.
    record: Callable[[dict[str, float]], None] | None = None
    sampler: Sampler | None = None

    def progress(self, fraction: float, message: str) -> None:
        """Note how far the work is. Raises Stopped when it is to stop."""
        self.fraction, self.message = max(self.fraction, min(1.0, fraction)), message
        if self.stop.is_set():
            raise Stopped(self.step)

    def begin(self, stage: str) -> None:
        """Note in the log as well what is done next. Raises Stopped when it is to stop."""
        _log.info("stage", resource=self.command.resource, attempt=self.command.attempt, stage=stage)
        self.progress(self.fraction, stage)


class Worker:
    """The actor. Everything that crosses to it and back is bytes, strings and small dataclasses."""

    def __init__(self, site: Site, command: bytes, rank: int = 0) -> None:
        configure_logging("worker", site.log_level)
        order_by_bus()
        parsed = attempt_pb2.Command.FromString(command)
        scratch = site.scratch_dir / scratch_name(ref_of(parsed))
        self._job = Job(parsed, site, scratch / f"rank-{rank}" if rank else scratch, rank)

    def holding(self) -> Holding:
        """This process, and the GPUs that it was given."""
        ids, visible = self._gpus()
        share = min(1.0, self._job.command.resources.gpus / max(1, len(ids)))
        return Holding.of_this_process(ray.get_runtime_context().get_node_id(), given(ids, visible, share))

    def _gpus(self) -> tuple[list[str], str | None]:
        """As Ray counts them, and as CUDA is told of them."""
        return [str(each) for each in ray.get_gpu_ids()], visible_here()

    def status(self, token: str) -> Status:
        """What it is doing. It calls services with `token` from now on: the one before is soon over."""
        job = self._job
        job.command.token = token
        certificate = job.certificate.SerializeToString() if job.certificate else b""
        done = (job.phase, job.fraction, job.message, job.step, job.total_steps)
        return Status(*done, certificate, peak_resident_bytes(), len(job.uploaded))

    def is_there(self) -> bool:
        """True, which a process that hangs does not say."""
        return True

    def stop(self) -> None:
        """Ask the work to stop as soon as it can do so in order."""
        self._job.stop.set()

    def uploaded(self) -> list[bytes]:
        """Checkpoints to commit, oldest first. They are offered again until `committed` names them."""
        return [checkpoint.SerializeToString() for checkpoint in self._job.uploaded]

    def committed(self, step: int, expired_uris: list[str]) -> None:
        """The checkpoint of `step` counts, and those at `expired_uris` may be deleted."""
        if self._job.uploaded and self._job.uploaded[0].step == step:
            self._job.uploaded.popleft()
        self._job.expired_uris.extend(expired_uris)

    def lineage(self) -> bytes:
        """What the run is made of, a serialised `Lineage`; empty until it is known."""
        return self._job.lineage

    def sample(self) -> dict[str, float]:
        """What this process and its machine use now, as metrics."""
        job = self._job
        if job.sampler is None:
            job.sampler = Sampler(job.rank, str(job.site.data_dir))
        return job.sampler.sample()

    def log_system(self, others: list[dict[str, float]]) -> bool:
        """Log what this rank uses, and what the others said that they do. Whether anything can be logged."""
        record, own = self._job.record, self.sample()
        if record:
            record({name: value for part in (own, *others) for name, value in part.items()})
        return record is not None

    def meet(self) -> str:
        """Open the place where the ranks meet, and say where it is."""
        self._job.listener = listen()
        return address_of(self._job.listener)

    def run(self, meeting: str) -> Ending:
        """Do the work, with those who meet at `meeting` if it is not empty. Never raises: whatever happens is
        in the ending.
        """
        job = self._job
        job.meeting = meeting
        if job.command.HasField("train_work"):
            key = resource_key(job.command.resource)
            redirect(log_path(job.site.log_dir, key, job.command.attempt), job.site.log_level)
        job.scratch.mkdir(parents=True, exist_ok=True)
        try:
            return Ending(result=_work(job).SerializeToString())
        except Stopped as stopped:
            return Ending(stopped_at_step=stopped.step)
        except FinemeshError as error:
            _log.warning("work_failed", resource=job.command.resource, reason=error.reason, error=str(error))
            return Ending(error=to_status(error).SerializeToString())
        except Exception as error:
            if full := disk_full(error, job.scratch):
                _log.warning("disk_full", resource=job.command.resource, error=str(error))
                return Ending(error=to_status(full).SerializeToString())
            error_id = new_error_id()
            _log.exception("work_broke", resource=job.command.resource, error_id=error_id)
            return Ending(error=to_status(unexpected(error_id)).SerializeToString())
        finally:
            shutil.rmtree(job.scratch, ignore_errors=True)


def _work(job: Job) -> attempt_pb2.AttemptResult:
    """Dispatch on the kind of work. Each module is imported only where it is needed: training loads torch."""
    kind: Any = job.command.WhichOneof("work")
    if kind == "train_work":
        from finemesh.cluster.workers.train import train

        return train(job)
    if kind == "export_work":
        from finemesh.cluster.workers.export import export

        return export(job)
    if kind == "preflight_work":
        from finemesh.cluster.workers.preflight import preflight

        return preflight(job)
    from finemesh.cluster.workers import dataset

    return dataset.WORK[kind](job)
