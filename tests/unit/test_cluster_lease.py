"""The lease: renewed while the service lets it, and over on this side before it is over on the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from types import SimpleNamespace

import grpc.aio
import pytest
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.client_channel import channel
from finemesh.cluster.attempts import to_proto
from finemesh.cluster.lease import Lease
from finemesh.v1 import attempt_service_pb2 as pb

from tests.support.scripted_mesh import HeldAttempt, ScriptedMesh, scripted_mesh, until
from tests.support.servers import PATIENCE_SECONDS

LEASE_SECONDS = 3.0
JOB = "projects/p/trainingJobs/j"


@pytest.fixture
async def mesh() -> AsyncGenerator[ScriptedMesh]:
    mesh = scripted_mesh(SigningKey.generate(), LEASE_SECONDS)
    await mesh.start("service")
    yield mesh
    await mesh.stop("service")


class Holder:
    """A lease being held, with the channel that uses its token."""

    def __init__(self, mesh: ScriptedMesh, held: HeldAttempt) -> None:
        self.held = held
        self.lease = Lease(held.command, mesh.lease_seconds)
        self.channel: grpc.aio.Channel = channel(mesh.address("service"), self.lease.current_token)
        self.task = asyncio.create_task(self.lease.hold(self.channel, self._describe))

    def _describe(self) -> pb.RenewLeaseRequest:
        return pb.RenewLeaseRequest(attempt=to_proto(self.held.ref))

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.channel.close()


@pytest.fixture
async def holder(mesh: ScriptedMesh) -> AsyncGenerator[Holder]:
    holder = Holder(mesh, mesh.dispatch(JOB))
    await until(lambda: holder.held.reports, "the first renewal")
    yield holder
    await holder.close()


async def test_it_is_held_for_longer_than_it_lasts(holder: Holder) -> None:
    first_token, first_end = holder.held.command.token, holder.held.lease_end
    await until(lambda: time.monotonic() > first_end, "the end of the first lease")
    assert not holder.task.done()
    assert holder.lease.current_token() != first_token


async def test_cut_off_it_ends_before_the_service_lets_go(mesh: ScriptedMesh, holder: Holder) -> None:
    await mesh.stop("service")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await holder.task
    assert time.monotonic() < holder.held.lease_end
    assert holder.lease.lost_because


async def test_an_outage_shorter_than_the_lease_changes_nothing(mesh: ScriptedMesh, holder: Holder) -> None:
    await mesh.stop("service")
    await asyncio.sleep(LEASE_SECONDS / 4)  # one renewal fails
    renewals = len(holder.held.reports)
    await mesh.start("service")
    await until(lambda: len(holder.held.reports) > renewals, "a renewal after the outage")
    assert not holder.task.done()


async def test_superseded_it_ends_at_once(mesh: ScriptedMesh, holder: Holder) -> None:
    mesh.dispatch(JOB)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await holder.task
    assert "superseded" in holder.lease.lost_because  # not because it ran out


async def test_a_cancel_is_noticed_and_the_lease_goes_on(holder: Holder) -> None:
    holder.held.cancelled = True
    async with asyncio.timeout(PATIENCE_SECONDS):
        await holder.lease.told_to_stop.wait()
    assert not holder.task.done()


async def test_something_new_is_told_at_once(mesh: ScriptedMesh) -> None:
    mesh.lease_seconds = 100 * PATIENCE_SECONDS  # nothing else is told while we wait
    holder = Holder(mesh, mesh.dispatch(JOB))
    await until(holder.lease.held.is_set, "the first renewal")
    holder.lease.renew_now()
    await until(lambda: len(holder.held.reports) > 1, "the renewal")
    await holder.close()


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_wrong_changes_nothing(
    mesh: ScriptedMesh, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this machine alone: tokens are made, and judged, by the services'."""
    held = mesh.dispatch(JOB)
    wrong = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + hours * 3600)
    monkeypatch.setattr("finemesh.cluster.lease.time", wrong)
    holder = Holder(mesh, held)
    await until(holder.lease.held.is_set, "the first renewal")
    await holder.close()


async def test_it_is_never_taken_up_when_the_service_has_given_it_up(mesh: ScriptedMesh) -> None:
    late = mesh.dispatch(JOB)
    mesh.dispatch(JOB)
    holder = Holder(mesh, late)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await holder.task
    assert not holder.lease.held.is_set()
    await holder.close()
