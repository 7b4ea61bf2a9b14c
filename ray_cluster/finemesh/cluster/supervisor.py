"""The supervisor: a detached actor, one per attempt, that holds the lease and answers for the worker.

It reserves the attempt's resources in a placement group, starts the worker in it (all of them, for a training
that several share), renews the lease, brings checkpoints to their commit and points to Tracking, and says how
the attempt ended. When the lease is lost it kills the worker before the lease is over: from then on another
attempt may begin, and this one can neither log nor commit. When the supervisor itself dies, Ray ends its
worker and frees its resources with it. It loads nothing heavy.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, Final

import grpc.aio
from ray.actor import exit_actor
from ray.exceptions import RayError
from ray.util.placement_group import remove_placement_group

from finemesh.chassis.client_channel import channel
from finemesh.chassis.errors import from_rpc_error, to_status
from finemesh.chassis.logs import configure_logging, get_logger
from finemesh.cluster.attempts import ref_of, resource_key, service_of, to_proto
from finemesh.cluster.config import Site
from finemesh.cluster.crew import Crew, reserve
from finemesh.cluster.deaths import death, kernel_kills, silence
from finemesh.cluster.evaluations import ship_evaluations
from finemesh.cluster.joblog import LogShipper, Redactor, log_path, logs_of
from finemesh.cluster.lease import Lease
from finemesh.cluster.reaper import Holding
from finemesh.cluster.shipper import Shipper
from finemesh.cluster.spool import spool_path, spools_of
from finemesh.cluster.telemetry import lineage_request, sample
from finemesh.cluster.warm import Warmth
from finemesh.cluster.worker import Ending, Status
from finemesh.core.attempts import Phase
from finemesh.core.errors import FencedError, FinemeshError
from finemesh.v1 import attempt_pb2, progress_pb2, training_job_pb2, training_service_pb2
from finemesh.v1 import attempt_service_pb2 as pb
from finemesh.v1.attempt_service_pb2_grpc import AttemptServiceStub
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub
from finemesh.v1.training_service_pb2_grpc import TrainingServiceStub

_POLL_SECONDS: Final = 0.3
# The same of one that trains: each look takes time from its steps.
_CALM_SECONDS: Final = 1.0
_PLACEMENT_POLL_SECONDS: Final = 1.0
# How long the nodes that the service has chosen are waited for, before Ray chooses.
_NODES_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.5
# How long a finished attempt waits for Tracking before it leaves the rest of its points to the agent.
_DRAIN_SECONDS: Final = 60.0
# The same of its log, which nothing is computed from.
_LOG_SECONDS: Final = 5.0
# How long one that is over waits for the agent to put down which GPUs it had.
_RECORD_SECONDS: Final = 5.0
# Which part of the time to stop the worker has; the rest is for telling how it ended.
_STOP_SHARE: Final = 0.75

_PHASES: Final = {
    Phase.STARTING: pb.RenewLeaseRequest.PHASE_STARTING,
    Phase.RUNNING: pb.RenewLeaseRequest.PHASE_RUNNING,
    Phase.VERIFYING: pb.RenewLeaseRequest.PHASE_VERIFYING,
}

_log = get_logger("finemesh.supervisor")


class Supervisor:
    """The actor. `run` is called once, by the agent, and ends the actor when it is done."""

    def __init__(self, site: Site, command: bytes, warmth: Warmth | None = None) -> None:
        configure_logging("supervisor", site.log_level)
        self._site = site
        self._command_bytes = command
        self._command = attempt_pb2.Command.FromString(command)
        self._ref = ref_of(self._command)
        self._lease = Lease(self._command, site.lease_seconds)
        self._status = Status()
        self._warmth = warmth
        self._group: Any = None
        self._crew: Crew | None = None
        self._holdings: list[Holding] = []
        self._on_record = asyncio.Event()
        self._writing = True
        self._lineage = b""
        self._lineage_settled = asyncio.Event()
        self._is_stopping = False

    async def run(self) -> None:
        """Carry the attempt to its end, whatever it is."""
        service = self._channel(service_of(self._ref.resource))
        tracking = self._channel("tracking")
        try:
            await self._run(service, tracking)
        finally:
            await service.close()
            await tracking.close()
            if any(holding.devices for holding in self._holdings):  # a short attempt is on record as well
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RECORD_SECONDS):
                        await self._on_record.wait()
            exit_actor()

    @property
    def _is_training(self) -> bool:
        return self._command.HasField("train_work")

    async def holdings(self) -> list[Holding]:
        """The processes of the attempt and what they were given, as soon as it is known: for the agent's
        record.
        """
        if self._holdings:
            self._on_record.set()
        return self._holdings

    async def _run(self, service: grpc.aio.Channel, tracking: grpc.aio.Channel) -> None:
        holding = asyncio.create_task(self._lease.hold(service, self._describe))
        shipping = asyncio.ensure_future(
            asyncio.gather(
                self._ship(tracking), self._ship_evaluations(tracking), self._ship_lineage(tracking)
            )
        )
        logging = asyncio.create_task(self._ship_log(service))
        try:
            if not await self._unless_lost(holding, self._lease.held.wait()):
                return
            self._reserve()
            ending = await self._unless_lost(holding, self._work(service))
            self._writing = False
            self._lineage_settled.set()
            if ending is not None:
                for sending, seconds in ((shipping, _DRAIN_SECONDS), (logging, _LOG_SECONDS)):
                    await asyncio.wait(
                        [sending, holding], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
                    )
                await self._unless_lost(holding, self._complete(service, ending))
        finally:
            if holding.done() and self._lease.lost_because:
                _log.warning("lease_lost", resource=self._ref.resource, because=self._lease.lost_because)
            self._kill_worker()
            if self._group is not None:
                remove_placement_group(self._group)
            for task in (holding, shipping, logging):
                task.cancel()
            await asyncio.gather(holding, shipping, logging, return_exceptions=True)

    def _channel(self, service: str) -> grpc.aio.Channel:
        return channel(self._site.addresses[service], self._lease.current_token, self._site.client_tls)

    async def _unless_lost(self, holding: asyncio.Task[None], doing: Coroutine[Any, Any, Any]) -> Any:
        """What `doing` returns; None when the lease is lost before."""
        task = asyncio.create_task(doing)
        await asyncio.wait({task, holding}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            self._kill_worker()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return None
        return task.result()

    # ---- the worker

    def _reserve(self) -> None:
        self._group = reserve(self._command, self._warmth.node_id if self._warmth else "")

    async def _placed(self) -> bool:
        """Wait for the resources. False when told to stop before. Nodes that have not had them for long, for
        another's work or because they have gone, are not insisted on.
        """
        patience = time.monotonic() + _NODES_SECONDS
        while not await asyncio.to_thread(self._group.wait, _PLACEMENT_POLL_SECONDS):
            if self._lease.told_to_stop.is_set():
                return False
            if self._command.nodes and time.monotonic() >= patience:
                _log.warning("nodes_busy", resource=self._ref.resource, nodes=list(self._command.nodes))
                remove_placement_group(self._group)
                del self._command.nodes[:]
                self._reserve()
        return True

    async def _work(self, service: grpc.aio.Channel) -> Ending:
        """Start the worker and stay with it to its end. A worker that dies is an error that may be tried
        again.
        """
        kills_before = kernel_kills()
        try:
            self._status = Status(message="waiting for resources")
            if not await self._placed():
                return Ending(stopped_at_step=0)
            self._status = Status(message="starting a worker")
            if self._warmth:
                self._crew = await self._warmth.join(self._site, self._command, self._group)
            else:
                self._crew = Crew(self._site, self._command, self._group)
            return await self._attend(service, self._crew)
        except RayError as error:
            self._kill_worker()  # it may live, if Ray has but lost its connection
            peak = self._status.peak_memory_bytes
            lost = death(error, self._ref.attempt, peak, kernel_kills() - kills_before)
            _log.warning("worker_lost", resource=self._ref.resource, error=str(error)[:500])
            return Ending(error=to_status(lost).SerializeToString())
        except FinemeshError as error:
            return Ending(error=to_status(error).SerializeToString())

    async def _attend(self, service: grpc.aio.Channel, crew: Crew) -> Ending:
        """Stay with a crew until it ends, or one of it does not answer any more."""
        self._holdings = await crew.holdings()
        self._lease.renew_now()
        watching = asyncio.create_task(self._watch(service, crew))
        listening = asyncio.create_task(crew.first_silent(self._site.worker_timeout_seconds))
        beside = [listening, asyncio.create_task(self._stop_when_told(crew.leader))]
        if self._is_training:
            beside.append(asyncio.create_task(sample(crew.actors)))
        try:
            await asyncio.wait({watching, listening}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                return watching.result()
            self._kill_worker()
            raise self._silence(listening.result())
        finally:
            for task in (watching, *beside):
                task.cancel()
            await asyncio.gather(watching, *beside, return_exceptions=True)

    async def _watch(self, service: grpc.aio.Channel, crew: Crew) -> Ending:
        worker = crew.leader
        await self._look(worker)
        running = asyncio.ensure_future(crew.run())
        try:
            while not running.done():
                calm = self._status.in_steps and not self._lease.told_to_stop.is_set()
                await asyncio.wait({running}, timeout=_CALM_SECONDS if calm else _POLL_SECONDS)
                if not running.done():
                    await self._look(worker)
                    if self._status.uploads:
                        await self._commit(service, worker)
        finally:
            running.cancel()
        with contextlib.suppress(RayError):
            await self._look_at_lineage(worker)
        return running.result()

    def _silence(self, rank: int) -> FinemeshError:
        seconds, last = self._site.worker_timeout_seconds, self._status
        _log.warning("worker_silent", resource=self._ref.resource, rank=rank, seconds=seconds)
        said = f"step {last.step} of {last.total_steps}" if last.total_steps else last.message or "its start"
        return silence(self._holdings[rank], self._ref.attempt, seconds, said)

    async def _look(self, worker: Any) -> None:
        before = self._status
        self._status = await worker.status.remote(self._lease.current_token())
        if self._status.phase is Phase.RUNNING:
            await self._look_at_lineage(worker)
        if (before.phase, bool(before.certificate)) != (self._status.phase, bool(self._status.certificate)):
            self._lease.renew_now()

    async def _look_at_lineage(self, worker: Any) -> None:
        if self._is_training and not self._lineage:
            self._lineage = await worker.lineage.remote()
        if self._lineage:
            self._lineage_settled.set()

    async def _stop_when_told(self, worker: Any) -> None:
        """Ask, acknowledge, and kill when asking did not help in time."""
        await self._lease.told_to_stop.wait()
        seconds = _STOP_SHARE * (self._lease.stop_by - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await worker.stop.remote()
                self._is_stopping = True
                self._lease.renew_now()
                await asyncio.Event().wait()
        _log.warning("worker_did_not_stop", resource=self._ref.resource, seconds=round(seconds, 1))
        self._kill_worker()

    def _kill_worker(self) -> None:
        if self._crew is not None:
            self._crew.kill()
            self._crew = None

    # ---- what is said to the services

    def _describe(self) -> pb.RenewLeaseRequest:
        status = self._status
        request = pb.RenewLeaseRequest(
            attempt=to_proto(self._ref),
            phase=_PHASES[status.phase],
            progress=progress_pb2.Progress(fraction=status.fraction, message=status.message),
            worker=training_job_pb2.WorkerStatus(cluster=self._site.cluster),
            step=status.step,
            total_steps=status.total_steps,
            peak_memory_bytes=status.peak_memory_bytes,
            following=self._lease.directive if self._is_stopping else None,
        )
        for holding in self._holdings:
            request.worker.node_id = request.worker.node_id or holding.node
            request.worker.pids.append(holding.pid)
            request.worker.gpu_ids.extend(device.id for device in holding.devices)
            request.worker.gpu_uuids.extend(device.uuid for device in holding.devices if device.uuid)
        if status.certificate:
            request.resume_certificate.ParseFromString(status.certificate)
        return request

    async def _commit(self, service: grpc.aio.Channel, worker: Any) -> None:
        """Commit what the worker has uploaded. Raises FinemeshError when the service refuses it for good."""
        stub = TrainingServiceStub(service)
        for content in await worker.uploaded.remote():
            checkpoint = training_job_pb2.Checkpoint.FromString(content)
            request = training_service_pb2.CommitCheckpointRequest(
                name=self._ref.resource,
                attempt=self._ref.attempt,
                fence=self._ref.fence,
                checkpoint=checkpoint,
            )
            answer = await self._insist(stub.CommitCheckpoint, request)
            await worker.committed.remote(checkpoint.step, list(answer.expired_uris))

    async def _complete(self, service: grpc.aio.Channel, ending: Ending) -> None:
        request = pb.CompleteAttemptRequest(attempt=to_proto(self._ref))
        if ending.result:
            request.result.ParseFromString(ending.result)
            if request.result.HasField("training"):
                request.result.training.peak_memory_bytes = self._status.peak_memory_bytes
        elif ending.error:
            request.error.ParseFromString(ending.error)
        else:
            request.cancelled.step = ending.stopped_at_step
        try:
            await self._insist(AttemptServiceStub(service).CompleteAttempt, request)
        except FencedError as error:
            _log.warning("completion_fenced", resource=self._ref.resource, error=str(error))

    async def _insist(self, call: Any, request: Any) -> Any:
        """Call until the service answers; the lease sets the limit. Raises what a refusal says."""
        while True:
            try:
                return await call(request)
            except grpc.aio.AioRpcError as error:
                cause = from_rpc_error(error)
                away = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                if error.code() not in away:
                    raise cause from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def _ship(self, tracking: grpc.aio.Channel) -> None:
        """Bring this attempt's points to Tracking, after what earlier ones have left on this disk."""
        if not self._is_training:
            return
        job = resource_key(self._ref.resource)
        own = spool_path(self._site.spool_dir, job, self._ref.attempt)
        with contextlib.suppress(FinemeshError):
            for left in spools_of(self._site.spool_dir, job):
                if left < own:
                    await Shipper(tracking, left).ship(lambda: True)
            await Shipper(tracking, own).ship(lambda: not self._writing)

    async def _ship_lineage(self, tracking: grpc.aio.Channel) -> None:
        """Tell Tracking what the run is made of, once that is known."""
        await self._lineage_settled.wait()
        if not self._lineage:
            return
        request = lineage_request(self._command.train_work.run, self._lineage)
        try:
            await self._insist(TrackingServiceStub(tracking).UpdateRun, request)
        except FinemeshError as error:
            _log.warning("lineage_refused", resource=self._ref.resource, error=str(error))

    async def _ship_evaluations(self, tracking: grpc.aio.Channel) -> None:
        """Bring what was evaluated to Tracking, by this attempt and by earlier ones on this disk."""
        if self._command.HasField("train_work"):
            folder = self._site.spool_dir / resource_key(self._ref.resource)
            with contextlib.suppress(FinemeshError):
                await ship_evaluations(tracking, folder, lambda: not self._writing)

    async def _ship_log(self, training: grpc.aio.Channel) -> None:
        """Bring what the attempt's processes write to Training, after what earlier ones have left here."""
        if not self._is_training:
            return
        resource, folder = self._ref.resource, self._site.log_dir
        own = log_path(folder, resource_key(resource), self._ref.attempt)
        redact = Redactor(self._site.s3.access_key, self._site.s3.secret_key.reveal())
        with contextlib.suppress(FinemeshError):
            for left in logs_of(folder, resource_key(resource)):
                if left < own:
                    await LogShipper(training, resource, left, redact).ship(lambda: True)
            await LogShipper(training, resource, own, redact).ship(lambda: not self._writing)
