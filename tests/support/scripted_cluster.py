"""A cluster whose work the test does by hand: the real protocol over JetStream and gRPC, without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import grpc.aio
from finemesh.chassis.auth import Role, SigningKey
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.client_channel import channel
from finemesh.chassis.errors import from_rpc_error, to_status
from finemesh.chassis.events import Delivery, command_subject
from finemesh.core.errors import FinemeshError, UnavailableError
from finemesh.v1 import attempt_pb2, attempt_service_pb2, training_job_pb2, training_service_pb2
from finemesh.v1.attempt_service_pb2_grpc import AttemptServiceStub
from finemesh.v1.training_service_pb2_grpc import TrainingServiceStub

from tests.support.servers import PATIENCE_SECONDS

Phase = attempt_service_pb2.RenewLeaseRequest.Phase
SYNC_SECONDS = 0.2


@dataclass
class ScriptedAttempt:
    """One attempt in the hands of the test. Every call uses the token that the service gave last."""

    command: attempt_pb2.Command
    channel: grpc.aio.Channel
    token: str = ""
    renewals: int = 0
    directive: str = ""
    losses: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self.token = self.command.token
        self._attempts = AttemptServiceStub(self.channel)
        self._training = TrainingServiceStub(self.channel)

    @property
    def ref(self) -> attempt_service_pb2.AttemptRef:
        command = self.command
        return attempt_service_pb2.AttemptRef(
            resource=command.resource, attempt=command.attempt, fence=command.fence
        )

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)

    async def renew(
        self,
        phase: str = "RUNNING",
        *,
        step: int = 0,
        total_steps: int = 0,
        fraction: float = 0.0,
        certificate: training_job_pb2.ResumeCertificate | None = None,
        following: str = "UNSPECIFIED",
        gpus: Mapping[str, str] | None = None,
    ) -> str:
        """Renew the lease; `gpus` are UUIDs by Ray's ids. Returns the directive, such as CONTINUE.

        Raises the service's refusal.
        """
        request = attempt_service_pb2.RenewLeaseRequest(
            attempt=self.ref,
            phase=f"PHASE_{phase}",
            step=step,
            total_steps=total_steps,
            worker=training_job_pb2.WorkerStatus(
                node_id="node-1", pids=[4242], gpu_ids=gpus or (), gpu_uuids=(gpus or {}).values()
            ),
            resume_certificate=certificate,
            following=f"DIRECTIVE_{following}",
        )
        request.progress.fraction = fraction
        with translated():
            response = await self._attempts.RenewLease(request, metadata=self._metadata)
        self.token = response.token
        self.renewals += 1
        name = attempt_service_pb2.RenewLeaseResponse.Directive.Name(response.directive)
        self.directive = name.removeprefix("DIRECTIVE_")
        return self.directive

    @contextlib.asynccontextmanager
    async def kept_alive(self, interval_seconds: float = 0.3) -> AsyncGenerator[Self]:
        """Renew in the background while the block runs."""

        async def renew() -> None:
            while True:
                await self.renew()
                await asyncio.sleep(interval_seconds)

        task = asyncio.create_task(renew())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def commit(self, step: int, loss: float | None = None, *, uri: str = "") -> list[str]:
        """Commit a checkpoint of a training job. Returns the URIs that expired."""
        checkpoint = self.checkpoint(step, loss)
        checkpoint.uri = uri or checkpoint.uri
        request = training_service_pb2.CommitCheckpointRequest(
            name=self.command.resource,
            attempt=self.command.attempt,
            fence=self.command.fence,
            checkpoint=checkpoint,
        )
        with translated():
            response = await self._training.CommitCheckpoint(request, metadata=self._metadata)
        return list(response.expired_uris)

    def checkpoint(self, step: int, loss: float | None = None) -> training_job_pb2.Checkpoint:
        """What `commit` would commit: the best one, if no loss that was told of before is lower."""
        best = loss is not None and loss <= min([loss, *self.losses])
        self.losses += [] if loss is None else [loss]
        return training_job_pb2.Checkpoint(
            best=best,
            step=step,
            uri=f"{self.command.train_work.output_uri}/checkpoints/step-{step:08}-a{self.command.attempt}",
            manifest_sha256=hashlib.sha256(f"{step} {loss}".encode()).hexdigest(),
            size_bytes=1000 + step,
            metrics={"val/loss": loss} if loss is not None else {},
            sample_hash=hashlib.sha256(str(step).encode()).hexdigest(),
        )

    async def complete(self, result: attempt_pb2.AttemptResult) -> None:
        await self._complete(attempt_service_pb2.CompleteAttemptRequest(attempt=self.ref, result=result))

    async def finish_training(self, step: int) -> None:
        result = attempt_pb2.TrainingResult(
            step=step, row_usage={"trained": 90, "held_out": 10}, peak_memory_bytes=1 << 30
        )
        await self.complete(attempt_pb2.AttemptResult(training=result))

    async def fail(self, code: int, message: str) -> None:
        request = attempt_service_pb2.CompleteAttemptRequest(attempt=self.ref)
        request.error.code = code
        request.error.message = message
        await self._complete(request)

    async def fail_by(self, error: FinemeshError) -> None:
        request = attempt_service_pb2.CompleteAttemptRequest(attempt=self.ref, error=to_status(error))
        await self._complete(request)

    async def stop(self, step: int = 0) -> None:
        """Say that it stopped as it was told to."""
        outcome = attempt_service_pb2.CancelledOutcome(step=step)
        await self._complete(attempt_service_pb2.CompleteAttemptRequest(attempt=self.ref, cancelled=outcome))

    async def _complete(self, request: attempt_service_pb2.CompleteAttemptRequest) -> None:
        with translated():
            await self._attempts.CompleteAttempt(request, metadata=self._metadata)


@contextlib.contextmanager
def translated():
    """Refusals of a call as the errors they are."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


@dataclass
class ScriptedCluster:
    """An agent without Ray. Open it with `running`; commands arrive in `commands`, in order, each once."""

    id: str
    nats_url: str
    address: str
    key: SigningKey
    cpus: float = 4.0
    gpus: float = 0.0
    memory_bytes: int = 0
    warm_workers: int = 0
    gpus_held_back: int = 0
    commands: asyncio.Queue[ScriptedAttempt] = field(default_factory=asyncio.Queue[ScriptedAttempt])
    inventory: dict[tuple[str, int], ScriptedAttempt] = field(
        default_factory=dict[tuple[str, int], ScriptedAttempt]
    )
    stale: list[attempt_service_pb2.AttemptRef] = field(default_factory=list[attempt_service_pb2.AttemptRef])
    nodes: list[attempt_service_pb2.NodeCapacity] = field(
        default_factory=list[attempt_service_pb2.NodeCapacity]
    )
    orders: attempt_service_pb2.NodeOrders = field(default_factory=attempt_service_pb2.NodeOrders)
    _taken: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Self]:
        """Take commands and report, until the block ends; then report that no node is left."""
        bus = NatsEventBus(BusConfig((self.nats_url,), f"agent-{self.id}"))
        service_token = self.key.token_source(f"agent-{self.id}", Role.SERVICE)
        self._service_channel = channel(self.address, service_token)
        self._attempt_channel = channel(self.address, None)
        await bus.start()
        taking = asyncio.create_task(bus.consume(f"agent-{self.id}", command_subject(self.id), self._take))
        ended = asyncio.Event()
        reporting = asyncio.create_task(self._report_until(ended))
        try:
            yield self
        finally:
            taking.cancel()
            ended.set()  # a report that is cut short may be taken after the last one: a cluster lives on
            await asyncio.gather(taking, reporting, return_exceptions=True)
            with contextlib.suppress(UnavailableError):
                await self.report(nodes=0)
            await bus.close()
            await self._service_channel.close()
            await self._attempt_channel.close()

    async def next_attempt(self, timeout_seconds: float = PATIENCE_SECONDS) -> ScriptedAttempt:
        async with asyncio.timeout(timeout_seconds):
            return await self.commands.get()

    async def report(
        self, nodes: int = 1, releases: Sequence[attempt_service_pb2.GpuRelease] = ()
    ) -> attempt_service_pb2.SyncClusterResponse:
        """Call SyncCluster once; one after another, as an agent does, so that the latest is the last."""
        async with self._turn:
            busy = sum(each.command.resources.cpus for each in self.inventory.values())
            request = attempt_service_pb2.SyncClusterRequest(
                cluster=self.id,
                capacity=attempt_service_pb2.ClusterCapacity(
                    cpus=self.cpus,
                    cpus_free=self.cpus - busy,
                    gpus=self.gpus,
                    gpus_free=self.gpus - sum(e.command.resources.gpus for e in self.inventory.values()),
                    memory_bytes=self.memory_bytes,
                    warm_workers=self.warm_workers,
                    warm_memory_bytes=self.warm_workers * 450_000_000,
                    gpus_held_back=self.gpus_held_back,
                    nodes=nodes,
                    node_capacities=self.nodes if nodes else (),
                ),
                attempts=[each.ref for each in self.inventory.values()],
                gpu_releases=releases,
            )
            with translated():
                response = await AttemptServiceStub(self._service_channel).SyncCluster(request)
            self.orders = response.node_orders
            for ref in response.stale:
                self.stale.append(ref)
                self.inventory.pop((ref.resource, ref.attempt), None)
            for command in response.commands:
                self._record(command)
            return response

    def forget(self, attempt: ScriptedAttempt) -> None:
        """The attempt's actors are gone, and its resources are free."""
        self.inventory.pop((attempt.command.resource, attempt.command.attempt), None)

    async def _take(self, delivery: Delivery) -> None:
        self._record(attempt_pb2.Command.FromString(delivery.payload))

    def _record(self, command: attempt_pb2.Command) -> None:
        key = (command.resource, command.attempt)
        if key in self._taken:  # the broker brings it, and an answer to a report: one of them after its end
            return
        self._taken.add(key)
        attempt = ScriptedAttempt(command, self._attempt_channel)
        self.inventory[key] = attempt
        self.commands.put_nowait(attempt)

    async def _report_until(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            with contextlib.suppress(UnavailableError):
                await self.report()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_SECONDS):
                    await ended.wait()
