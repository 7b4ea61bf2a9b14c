"""The services as a cluster sees them, in memory: they keep the rules of leases, fences and sequences, and
write down whatever happens. Each listens on a port of its own and can be away for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from finemesh.chassis.attempts_servicer import authorise_attempt, mint_attempt_token
from finemesh.chassis.auth import Role, SigningKey, TokenVerifier, current_principal
from finemesh.chassis.grpc_server import GrpcServer, ServerConfig
from finemesh.core.attempts import AttemptRef
from finemesh.core.errors import FencedError, InvalidError, PreconditionError
from finemesh.v1 import attempt_pb2, training_job_pb2
from finemesh.v1 import attempt_service_pb2 as pb
from finemesh.v1 import tracking_service_pb2 as tracking_pb
from finemesh.v1 import training_service_pb2 as training_pb
from finemesh.v1.attempt_service_pb2_grpc import AttemptServiceServicer, add_AttemptServiceServicer_to_server
from finemesh.v1.metric_pb2 import MetricBatch
from finemesh.v1.tracking_service_pb2_grpc import (
    TrackingServiceServicer,
    add_TrackingServiceServicer_to_server,
)
from finemesh.v1.training_log_pb2 import AppendTrainingJobLogRequest, AppendTrainingJobLogResponse
from finemesh.v1.training_service_pb2_grpc import (
    TrainingServiceServicer,
    add_TrainingServiceServicer_to_server,
)

from tests.support.servers import PATIENCE_SECONDS

CLUSTER = "c"
STOP_SECONDS = 30.0


@dataclass
class HeldAttempt:
    """One attempt, as its service knows it. Times are monotonic seconds."""

    ref: AttemptRef
    command: attempt_pb2.Command
    lease_end: float
    reports: list[pb.RenewLeaseRequest] = field(default_factory=list[pb.RenewLeaseRequest])
    checkpoints: list[training_job_pb2.Checkpoint] = field(default_factory=list[training_job_pb2.Checkpoint])
    completions: list[pb.CompleteAttemptRequest] = field(default_factory=list[pb.CompleteAttemptRequest])
    cancelled: bool = False
    token: str = ""

    @property
    def pids(self) -> set[int]:
        """Every process that ever worked on it."""
        return {pid for report in self.reports for pid in report.worker.pids}

    @property
    def step(self) -> int:
        return max((report.step for report in self.reports), default=0)

    @property
    def outcome(self) -> str:
        return self.completions[0].WhichOneof("outcome") or "" if self.completions else ""


class ScriptedMesh(AttemptServiceServicer, TrainingServiceServicer, TrackingServiceServicer):
    """DataPrep, Training and Export behind one port, Tracking behind another."""

    def __init__(self, key: SigningKey, lease_seconds: float) -> None:
        self.key = key
        self.lease_seconds = lease_seconds
        self.attempts: dict[AttemptRef, HeldAttempt] = {}
        self.fences: dict[str, int] = {}
        self.batches: dict[tuple[str, int], list[MetricBatch]] = {}
        self.syncs: list[pb.SyncClusterRequest] = []
        self.stale: list[AttemptRef] = []
        self.orders: pb.NodeOrders | None = None
        self.logs: dict[tuple[str, int], bytes] = {}
        self.batches_per_stream = 0  # 0: as many as come
        self._servers: dict[str, GrpcServer] = {}
        self._ports = {"service": 0, "tracking": 0}

    # ---- the processes

    async def start(self, name: str) -> None:
        """Listen as `service` or `tracking`, on the port of the last time."""
        config = ServerConfig(port=self._ports[name], grace_seconds=0.0)
        server = GrpcServer(config, TokenVerifier.of(self.key))
        if name == "tracking":
            server.add(add_TrackingServiceServicer_to_server, self)
        else:
            server.add(add_AttemptServiceServicer_to_server, self)
            server.add(add_TrainingServiceServicer_to_server, self)
        await server.start()
        self._servers[name], self._ports[name] = server, server.port

    async def stop(self, name: str) -> None:
        """Be away: connections break and nobody listens."""
        if server := self._servers.pop(name, None):
            await server.stop()

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    # ---- what the tests do and look at

    def dispatch(self, resource: str, **work: Any) -> HeldAttempt:
        """The next attempt at a resource, not sent yet. Earlier ones are superseded."""
        number = self.fences[resource] = self.fences.get(resource, 0) + 1
        ref = AttemptRef(resource, number, number)
        command = attempt_pb2.Command(
            resource=resource,
            attempt=number,
            fence=number,
            cluster=CLUSTER,
            token=mint_attempt_token(self.key, ref, 60),
            **work,
        )
        command.start_deadline.FromNanoseconds(time.time_ns() + 60 * 10**9)
        held = self.attempts[ref] = HeldAttempt(ref, command, time.monotonic() + 60, token=command.token)
        return held

    def sequences(self, run: str, attempt: int) -> list[int]:
        return [batch.sequence for batch in self.batches.get((run, attempt), [])]

    def steps(self, run: str, attempt: int) -> set[int]:
        return {step for batch in self.batches.get((run, attempt), []) for step in batch.steps}

    # ---- the contract

    def _held(self, ref: AttemptRef) -> HeldAttempt:
        held = self.attempts.get(ref)
        if held is None or ref.fence != self.fences[ref.resource]:
            raise FencedError("superseded")
        if held.completions:
            raise FencedError("ended")
        if held.lease_end <= time.monotonic():
            raise FencedError("the lease ran out")
        return held

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Any) -> pb.RenewLeaseResponse:  # noqa: N802
        ref = authorise_attempt(request.attempt.resource)
        held = self._held(ref)
        held.reports.append(request)
        held.lease_end = time.monotonic() + self.lease_seconds
        held.token = mint_attempt_token(self.key, ref, self.lease_seconds)
        kind = pb.RenewLeaseResponse
        directive = kind.DIRECTIVE_CANCEL if held.cancelled else kind.DIRECTIVE_CONTINUE
        return kind(
            token=held.token, lease_seconds=self.lease_seconds, directive=directive, stop_seconds=STOP_SECONDS
        )

    async def CompleteAttempt(  # noqa: N802
        self, request: pb.CompleteAttemptRequest, context: Any
    ) -> pb.CompleteAttemptResponse:
        held = self.attempts[authorise_attempt(request.attempt.resource)]
        if not held.completions:
            self._held(held.ref)
        if request.if_not_started and held.reports:
            raise FencedError("started")
        held.completions.append(request)
        return pb.CompleteAttemptResponse()

    async def SyncCluster(self, request: pb.SyncClusterRequest, context: Any) -> pb.SyncClusterResponse:  # noqa: N802
        current_principal().require_role(Role.SERVICE)
        self.syncs.append(request)
        named = {AttemptRef(each.resource, each.attempt, each.fence) for each in request.attempts}
        stale = [ref for ref in self.stale if ref in named]
        return pb.SyncClusterResponse(
            stale=[pb.AttemptRef(resource=r.resource, attempt=r.attempt, fence=r.fence) for r in stale],
            node_orders=self.orders,
        )

    async def CommitCheckpoint(  # noqa: N802
        self, request: training_pb.CommitCheckpointRequest, context: Any
    ) -> training_pb.CommitCheckpointResponse:
        held = self._held(authorise_attempt(request.name))
        known = [each for each in held.checkpoints if each.step == request.checkpoint.step]
        if not known:
            held.checkpoints.append(request.checkpoint)
        return training_pb.CommitCheckpointResponse()

    async def AppendTrainingJobLog(  # noqa: N802
        self, request: AppendTrainingJobLogRequest, context: Any
    ) -> AppendTrainingJobLogResponse:
        key = (request.name, request.attempt)
        kept = self.logs.get(key, b"")
        if request.offset <= len(kept):
            self.logs[key] = kept[: request.offset] + request.content
        return AppendTrainingJobLogResponse(durable_bytes=len(self.logs.get(key, b"")))

    async def LogMetrics(  # noqa: N802
        self, request_iterator: AsyncIterator[tracking_pb.LogMetricsRequest], context: Any
    ) -> AsyncIterator[tracking_pb.LogMetricsResponse]:
        principal = current_principal()
        taken = 0
        async for request in request_iterator:
            batch = request.batch
            job = batch.run.replace("/runs/", "/trainingJobs/")
            if principal.role is Role.ATTEMPT and principal.fence < self.fences[job]:
                raise FencedError("superseded")
            durable = [self._take(single) for single in singles(batch)][-1]
            yield tracking_pb.LogMetricsResponse(
                run=batch.run, attempt=batch.attempt, durable_sequence=durable
            )
            taken += 1
            if taken == self.batches_per_stream:
                return

    def _take(self, batch: MetricBatch) -> int:
        """Append the next batch; a repetition has to be the same as before, a gap is refused."""
        taken = self.batches.setdefault((batch.run, batch.attempt), [])
        if batch.sequence <= len(taken):
            if taken[batch.sequence - 1] != batch:
                raise InvalidError(f"batch {batch.sequence} is another one than before")
        elif batch.sequence == len(taken) + 1:
            taken.append(batch)
        else:
            raise PreconditionError(
                f"batch {batch.sequence} after {len(taken)}",
                reason="SEQUENCE_GAP",
                metadata={"durable_sequence": str(len(taken))},
            )
        return len(taken)


def singles(batch: MetricBatch) -> Iterator[MetricBatch]:
    """Each of the batches that travel as one, as its sender wrote it."""
    at, lengths = 0, batch.lengths or [len(batch.steps)]
    thinned = batch.thinned_counts or [batch.thinned_points, *[0] * (len(lengths) - 1)]
    for place, length in enumerate(lengths):
        chosen = slice(at, at + length)
        keys = list(dict.fromkeys(batch.keys[index] for index in batch.key_indices[chosen]))
        yield MetricBatch(
            run=batch.run,
            attempt=batch.attempt,
            sequence=batch.sequence - max(len(batch.lengths) - 1, 0) + place,
            keys=keys,
            key_indices=[keys.index(batch.keys[index]) for index in batch.key_indices[chosen]],
            steps=batch.steps[chosen],
            values=batch.values[chosen],
            times_us=batch.times_us[chosen],
            thinned_points=thinned[place],
        )
        at += length


def scripted_mesh(key: SigningKey, lease_seconds: float) -> ScriptedMesh:
    """A mesh that is not listening yet. Methods that no cluster calls answer UNIMPLEMENTED."""
    make: Any = ScriptedMesh  # to the type checker the generated bases are abstract; at run time they answer
    return make(key, lease_seconds)


async def until(condition: Any, what: str, timeout_seconds: float = PATIENCE_SECONDS) -> None:
    """Poll `condition` while the event loop goes on. Raises TimeoutError that names `what`."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_seconds} s")
        await asyncio.sleep(0.05)
