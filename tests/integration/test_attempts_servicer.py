"""AttemptService over a real channel: who may speak for an attempt, and what travels."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

import grpc.aio
import pytest
from finemesh.chassis.attempts_servicer import AttemptServicer, mint_attempt_token
from finemesh.chassis.auth import Role, SigningKey, TokenVerifier
from finemesh.chassis.client_channel import channel
from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.grpc_server import GrpcServer, ServerConfig
from finemesh.chassis.sql import Database
from finemesh.core.attempts import AttemptRef
from finemesh.core.clock import ManualClock
from finemesh.core.errors import FencedError, FinemeshError, InvalidError, PermissionDeniedError
from finemesh.v1 import attempt_pb2
from finemesh.v1 import attempt_service_pb2 as pb
from finemesh.v1.attempt_service_pb2_grpc import AttemptServiceStub, add_AttemptServiceServicer_to_server

from tests.support.attempt_owner import ScriptedOwner, create_tables
from tests.support.log_lines import lines, written

pytestmark = pytest.mark.integration

JOB = "projects/acme/exports/e-1"
KEY = SigningKey.generate()


@dataclass
class Caller:
    """Calls the service with a token of its choice."""

    stub: Any  # the generated stub; its types are those of the synchronous one
    token: str = ""

    def bearing(self, token: str) -> Caller:
        return replace(self, token=token)

    async def renew(self, ref: AttemptRef) -> pb.RenewLeaseResponse:
        request = pb.RenewLeaseRequest(attempt=_to_proto(ref), phase=pb.RenewLeaseRequest.PHASE_RUNNING)
        request.progress.fraction = 0.25
        return await self.stub.RenewLease(request, metadata=self._metadata())

    async def complete(self, request: pb.CompleteAttemptRequest) -> pb.CompleteAttemptResponse:
        return await self.stub.CompleteAttempt(request, metadata=self._metadata())

    async def sync(self, *refs: AttemptRef) -> pb.SyncClusterResponse:
        request = pb.SyncClusterRequest(cluster="local", attempts=[_to_proto(ref) for ref in refs])
        return await self.stub.SyncCluster(request, metadata=self._metadata())

    def _metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token}")]


def _to_proto(ref: AttemptRef) -> pb.AttemptRef:
    return pb.AttemptRef(resource=ref.resource, attempt=ref.attempt, fence=ref.fence)


@pytest.fixture
async def owner(database: Database) -> ScriptedOwner:
    await create_tables(database)
    return ScriptedOwner(database, ManualClock())


@pytest.fixture
async def caller(owner: ScriptedOwner) -> AsyncGenerator[Caller]:
    def digest(result: attempt_pb2.AttemptResult) -> str:
        return result.export.manifest_sha256

    server = GrpcServer(ServerConfig(grace_seconds=0), TokenVerifier.of(KEY))
    server.add(add_AttemptServiceServicer_to_server, AttemptServicer(owner.queue, KEY, digest))
    await server.start()
    connection = channel(server.address, None)
    yield Caller(AttemptServiceStub(connection))
    await connection.close()
    await server.stop()


async def refusal(error_type: type[FinemeshError], call: object) -> FinemeshError:
    """The error that a call ends with, as the caller sees it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    error = from_rpc_error(caught.value)
    assert type(error) is error_type, error
    return error


async def test_an_attempt_renews_with_the_token_it_is_given_and_completes(
    owner: ScriptedOwner, caller: Caller
) -> None:
    ref = (await owner.dispatch(JOB)).ref
    first = await caller.bearing(mint_attempt_token(KEY, ref, 120)).renew(ref)
    assert first.lease_seconds == owner.settings.lease_seconds
    assert first.directive == pb.RenewLeaseResponse.DIRECTIVE_CONTINUE
    second = await caller.bearing(first.token).renew(ref)
    await owner.stop(JOB)
    told = await caller.bearing(second.token).renew(ref)
    assert told.directive == pb.RenewLeaseResponse.DIRECTIVE_CANCEL
    request = pb.CompleteAttemptRequest(attempt=_to_proto(ref))
    request.result.export.manifest_sha256 = "abc"
    await caller.bearing(told.token).complete(request)
    assert (await owner.effects(JOB))[-2:] == ["1 RUNNING 0.25", "1 SUCCEEDED abc"]


async def test_what_comes_by_the_clock_is_logged_for_debugging_only(
    owner: ScriptedOwner, caller: Caller
) -> None:
    ref = (await owner.dispatch(JOB)).ref
    with written() as log:
        lease = await caller.bearing(mint_attempt_token(KEY, ref, 120)).renew(ref)
        await caller.bearing(KEY.mint("agent", Role.SERVICE, ["*"], 60)).sync(ref)
        request = pb.CompleteAttemptRequest(attempt=_to_proto(ref), cancelled=pb.CancelledOutcome())
        await caller.bearing(lease.token).complete(request)
        await refusal(FencedError, caller.bearing(lease.token).renew(ref))
    assert [(line["method"].split("/")[-1], line["level"]) for line in lines(log, "rpc")] == [
        ("RenewLease", "debug"),
        ("SyncCluster", "debug"),
        ("CompleteAttempt", "info"),
        ("RenewLease", "info"),
    ]


async def test_an_error_becomes_the_state_of_the_attempt(owner: ScriptedOwner, caller: Caller) -> None:
    ref = (await owner.dispatch(JOB)).ref
    request = pb.CompleteAttemptRequest(attempt=_to_proto(ref))
    request.error.code = grpc.StatusCode.INTERNAL.value[0]
    request.error.message = "the export broke"
    await caller.bearing(mint_attempt_token(KEY, ref, 60)).complete(request)
    async with owner.db.read() as tx:
        latest = await owner.queue.latest(tx, JOB)
    assert latest is not None
    assert latest.error is not None
    assert (latest.error.code, latest.error.message) == ("INTERNAL", "the export broke")


async def test_the_word_of_a_cluster_counts_while_nobody_has_begun(
    owner: ScriptedOwner, caller: Caller
) -> None:
    waiting, begun = (await owner.dispatch(JOB)).ref, (await owner.dispatch(JOB + "0")).ref
    lease = await caller.bearing(mint_attempt_token(KEY, begun, 60)).renew(begun)
    for ref in (waiting, begun):
        cluster = caller.bearing(mint_attempt_token(KEY, ref, 60))
        request = pb.CompleteAttemptRequest(attempt=_to_proto(ref), if_not_started=True)
        request.error.code = grpc.StatusCode.UNAVAILABLE.value[0]
        if ref is begun:
            await refusal(FencedError, cluster.complete(request))
        else:
            await cluster.complete(request)
    await refusal(FencedError, caller.bearing(mint_attempt_token(KEY, waiting, 60)).renew(waiting))
    await caller.bearing(lease.token).renew(begun)
    async with owner.db.read() as tx:
        assert [await owner.queue.started_count(tx, each) for each in (JOB, JOB + "0")] == [1, 1]


async def test_an_end_without_an_outcome_is_refused(owner: ScriptedOwner, caller: Caller) -> None:
    ref = (await owner.dispatch(JOB)).ref
    token = mint_attempt_token(KEY, ref, 60)
    request = pb.CompleteAttemptRequest(attempt=_to_proto(ref))
    await refusal(InvalidError, caller.bearing(token).complete(request))


async def test_nobody_speaks_for_another_attempt(owner: ScriptedOwner, caller: Caller) -> None:
    ref = (await owner.dispatch(JOB)).ref
    other = (await owner.dispatch(JOB + "0")).ref
    await refusal(PermissionDeniedError, caller.bearing(mint_attempt_token(KEY, other, 60)).renew(ref))
    stale = AttemptRef(JOB, ref.attempt, ref.fence + 1)
    await refusal(FencedError, caller.bearing(mint_attempt_token(KEY, stale, 60)).renew(ref))
    for role in (Role.ADMIN, Role.SERVICE):
        token = KEY.mint("somebody", role, ["*"], 60)
        await refusal(PermissionDeniedError, caller.bearing(token).renew(ref))


async def test_a_lost_attempt_is_told_to_stop(owner: ScriptedOwner, caller: Caller) -> None:
    ref = (await owner.dispatch(JOB)).ref
    token = mint_attempt_token(KEY, ref, 60)
    await caller.bearing(token).renew(ref)
    assert isinstance(owner.clock, ManualClock)
    owner.clock.advance(owner.settings.lease_seconds)
    error = await refusal(FencedError, caller.bearing(token).renew(ref))
    assert error.reason == "ATTEMPT_FENCED"
    assert error.metadata["fence"] == "1"


async def test_a_cluster_learns_what_to_run_and_what_to_kill(owner: ScriptedOwner, caller: Caller) -> None:
    ref = (await owner.dispatch(JOB)).ref
    assert isinstance(owner.clock, ManualClock)
    owner.clock.advance(owner.settings.resend_after_seconds)
    agent = caller.bearing(KEY.mint("agent", Role.SERVICE, ["*"], 60))
    gone = AttemptRef(JOB, 9, 9)
    answer = await agent.sync(gone)
    assert [(command.resource, command.fence) for command in answer.commands] == [(JOB, ref.fence)]
    assert list(answer.stale) == [_to_proto(gone)]
    for role in (Role.OPERATOR, Role.ATTEMPT):
        token = KEY.mint("somebody", role, ["*"], 60)
        await refusal(PermissionDeniedError, caller.bearing(token).sync())
