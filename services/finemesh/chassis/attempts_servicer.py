"""`finemesh.v1.AttemptService` over the attempt queue: what supervisors and cluster agents call."""
# ruff: noqa: ARG002  the generated base class sets the signatures

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from finemesh.chassis.attempts import AttemptQueue
from finemesh.chassis.auth import Role, SigningKey, current_principal
from finemesh.chassis.errors import status_to_record
from finemesh.core.attempts import (
    AttemptRef,
    ClusterCapacity,
    Completion,
    Directive,
    LocalPool,
    NodeCapacity,
    Outcome,
    Phase,
    ResumeCertificate,
    Worker,
    WorkReport,
)
from finemesh.core.errors import FencedError, InvalidError
from finemesh.v1 import attempt_pb2, training_job_pb2, worker_pb2
from finemesh.v1 import attempt_service_pb2 as pb
from finemesh.v1.attempt_service_pb2_grpc import AttemptServiceServicer

R = TypeVar("R")

_PHASES: Final = {
    pb.RenewLeaseRequest.PHASE_UNSPECIFIED: Phase.STARTING,
    pb.RenewLeaseRequest.PHASE_STARTING: Phase.STARTING,
    pb.RenewLeaseRequest.PHASE_RUNNING: Phase.RUNNING,
    pb.RenewLeaseRequest.PHASE_VERIFYING: Phase.VERIFYING,
}
_DIRECTIVES: Final = {
    Directive.CONTINUE: pb.RenewLeaseResponse.DIRECTIVE_CONTINUE,
    Directive.PREEMPT: pb.RenewLeaseResponse.DIRECTIVE_PREEMPT,
    Directive.PAUSE: pb.RenewLeaseResponse.DIRECTIVE_PAUSE,
    Directive.CANCEL: pb.RenewLeaseResponse.DIRECTIVE_CANCEL,
}
_FOLLOWING: Final = {number: directive for directive, number in _DIRECTIVES.items()}


class AttemptServicer(AttemptServiceServicer, Generic[R]):
    """The same for every service; `result_of` turns the service's part of an `AttemptResult` into `R`."""

    def __init__(
        self, queue: AttemptQueue[R], key: SigningKey, result_of: Callable[[attempt_pb2.AttemptResult], R]
    ) -> None:
        self._queue = queue
        self._key = key
        self._result_of = result_of

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Any) -> pb.RenewLeaseResponse:  # noqa: N802
        ref = _authorised(request.attempt)
        lease = await self._queue.renew(ref, _report(request))
        response = pb.RenewLeaseResponse(
            token=mint_attempt_token(self._key, ref, lease.seconds),
            lease_seconds=lease.seconds,
            directive=_DIRECTIVES[lease.directive],
            stop_seconds=lease.stop_seconds,
        )
        response.lease_expire_time.FromDatetime(lease.expire_time)
        return response

    async def CompleteAttempt(  # noqa: N802
        self, request: pb.CompleteAttemptRequest, context: Any
    ) -> pb.CompleteAttemptResponse:
        ref = _authorised(request.attempt)
        await self._queue.complete(ref, self._completion(request))
        return pb.CompleteAttemptResponse()

    async def SyncCluster(self, request: pb.SyncClusterRequest, context: Any) -> pb.SyncClusterResponse:  # noqa: N802
        current_principal().require_role(Role.SERVICE)
        if not request.cluster:
            raise InvalidError.of("cluster", "name the cluster that speaks")
        answer = await self._queue.sync(
            request.cluster,
            _capacity(request.capacity),
            [_ref(each) for each in request.attempts],
        )
        return pb.SyncClusterResponse(
            commands=[attempt_pb2.Command.FromString(command) for command in answer.commands],
            stale=[
                pb.AttemptRef(resource=ref.resource, attempt=ref.attempt, fence=ref.fence)
                for ref in answer.stale
            ],
        )

    def _completion(self, request: pb.CompleteAttemptRequest) -> Completion[R]:
        match request.WhichOneof("outcome"):
            case "result":
                return Completion(Outcome.SUCCEEDED, result=self._result_of(request.result))
            case "error":
                error = status_to_record(request.error)
                return Completion(Outcome.FAILED, error=error, if_not_started=request.if_not_started)
            case "cancelled":
                return Completion(Outcome.CANCELLED, step=request.cancelled.step)
            case _:
                raise InvalidError.of("outcome", "say how the attempt ended: result, error or cancelled")


def mint_attempt_token(key: SigningKey, ref: AttemptRef, ttl_seconds: float) -> str:
    """A token that lets one attempt act on its resource; the first one travels in the command."""
    return key.mint_attempt(
        resource=ref.resource,
        attempt=ref.attempt,
        fence=ref.fence,
        project=ref.resource.split("/")[1],
        ttl_seconds=ttl_seconds,
    )


def authorise_attempt(resource: str) -> AttemptRef:
    """The attempt whose token the current call carries, if it is one at `resource`.

    Raises PermissionDeniedError for any other token. Pass the result to `AttemptQueue.held`.
    """
    principal = current_principal()
    principal.require_attempt(resource, principal.attempt)
    return AttemptRef(resource, principal.attempt, principal.fence)


def _authorised(claimed: pb.AttemptRef) -> AttemptRef:
    """The attempt that the request names, if the token is its own."""
    ref = _ref(claimed)
    if authorise_attempt(ref.resource) != ref:
        raise FencedError(f"the token is not that of attempt {ref.attempt} at {ref.resource}: stop")
    return ref


def _ref(message: pb.AttemptRef) -> AttemptRef:
    return AttemptRef(message.resource, message.attempt, message.fence)


def _report(request: pb.RenewLeaseRequest) -> WorkReport:
    worker = request.worker
    return WorkReport(
        phase=_PHASES[request.phase],
        fraction=request.progress.fraction,
        message=request.progress.message,
        worker=Worker(
            worker.cluster,
            worker.node_id,
            tuple(worker.pids),
            tuple(worker.gpu_ids),
            tuple(worker.gpu_uuids),
        ),
        step=request.step,
        total_steps=request.total_steps,
        resume_certificate=_certificate(request.resume_certificate)
        if request.HasField("resume_certificate")
        else None,
        peak_memory_bytes=request.peak_memory_bytes,
        following=_FOLLOWING.get(request.following, Directive.CONTINUE),
    )


def _capacity(message: pb.ClusterCapacity) -> ClusterCapacity:
    return ClusterCapacity(
        cpus=message.cpus,
        cpus_free=message.cpus_free,
        gpus=message.gpus,
        gpus_free=message.gpus_free,
        memory_bytes=message.memory_bytes,
        memory_free_bytes=message.memory_free_bytes,
        nodes=message.nodes,
        warm_workers=message.warm_workers,
        warm_memory_bytes=message.warm_memory_bytes,
        gpus_held_back=message.gpus_held_back,
        node_capacities=tuple(_node_capacity(each) for each in message.node_capacities),
        local_pool=_local_pool(message.local_pool) if message.HasField("local_pool") else None,
    )


def _node_capacity(message: pb.NodeCapacity) -> NodeCapacity:
    return NodeCapacity(
        node_id=message.node_id,
        hostname=message.hostname,
        cpus=message.cpus,
        cpus_free=message.cpus_free,
        gpus=message.gpus,
        gpus_free=message.gpus_free,
        memory_bytes=message.memory_bytes,
        memory_free_bytes=message.memory_free_bytes,
        gpu_model=message.gpu_model,
        gpu_memory_bytes=message.gpu_memory_bytes,
        draining=message.draining,
        start_time=message.start_time.ToMicroseconds() / 1e6,
        pool_slot=message.pool_slot,
        supervised=tuple(message.supervised),
    )


def _local_pool(message: worker_pb2.LocalPool) -> LocalPool:
    node = message.node
    return LocalPool(message.wanted_nodes, message.nodes, node.cpus, node.memory_bytes, message.message)


def _certificate(message: training_job_pb2.ResumeCertificate) -> ResumeCertificate:
    return ResumeCertificate(
        attempt=message.attempt,
        step=message.step,
        expected_sample_hash=message.expected_sample_hash,
        actual_sample_hash=message.actual_sample_hash,
        matches=message.matches,
    )
