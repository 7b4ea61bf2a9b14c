"""The shipper: every batch arrives, in order and once, whatever becomes of Tracking meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from finemesh.chassis.auth import Role, SigningKey
from finemesh.chassis.client_channel import channel
from finemesh.cluster.shipper import Shipper
from finemesh.cluster.spool import SpoolWriter, spool_path
from finemesh.core.errors import FencedError

from tests.support.scripted_mesh import ScriptedMesh, scripted_mesh, until
from tests.support.servers import PATIENCE_SECONDS

RUN = "projects/p/runs/j"
JOB = "projects/p/trainingJobs/j"


@pytest.fixture
async def mesh() -> AsyncGenerator[ScriptedMesh]:
    mesh = scripted_mesh(SigningKey.generate(), 60)
    mesh.dispatch(JOB)
    await mesh.start("tracking")
    yield mesh
    await mesh.stop("tracking")


class Sender:
    """A spool that is written and shipped at the same time."""

    def __init__(self, mesh: ScriptedMesh, folder: Path, token: str = "") -> None:
        source = (lambda: token) if token else mesh.key.token_source("agent", Role.SERVICE)
        self.path = spool_path(folder, "j", 1)
        self.writer = SpoolWriter(self.path, RUN, 1)
        self.ended = False
        self.channel = channel(mesh.address("tracking"), source)
        self.task = asyncio.create_task(Shipper(self.channel, self.path).ship(lambda: self.ended))

    def write(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.writer.append(step, {"train/loss": 1 / step})

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.writer.close()
        await self.channel.close()


@pytest.fixture
async def sender(mesh: ScriptedMesh, tmp_path: Path) -> AsyncGenerator[Sender]:
    sender = Sender(mesh, tmp_path)
    yield sender
    await sender.close()


async def test_points_arrive_while_the_run_goes_on(mesh: ScriptedMesh, sender: Sender) -> None:
    sender.write(1, 3)
    await until(lambda: len(mesh.sequences(RUN, 1)) == 3, "the first points")
    sender.write(4, 2500)
    sender.ended = True
    async with asyncio.timeout(PATIENCE_SECONDS):
        await sender.task
    assert mesh.sequences(RUN, 1) == list(range(1, 2501))
    assert mesh.steps(RUN, 1) == set(range(1, 2501))
    assert not sender.path.exists()


async def test_an_outage_leaves_no_gap_and_no_duplicate(mesh: ScriptedMesh, sender: Sender) -> None:
    sender.write(1, 50)
    await until(lambda: mesh.sequences(RUN, 1), "the first points")
    await mesh.stop("tracking")
    sender.write(51, 400)
    await asyncio.sleep(1)
    assert not sender.task.done()
    await mesh.start("tracking")
    sender.write(401, 500)
    sender.ended = True
    async with asyncio.timeout(PATIENCE_SECONDS):
        await sender.task
    assert mesh.sequences(RUN, 1) == list(range(1, 501))  # the scripted one refuses any other repetition


async def test_another_sender_takes_up_what_the_first_one_left(mesh: ScriptedMesh, tmp_path: Path) -> None:
    first = Sender(mesh, tmp_path)
    first.write(1, 20)
    await until(lambda: len(mesh.sequences(RUN, 1)) == 20, "the points of the first sender")
    await first.close()
    writer = SpoolWriter(tmp_path / "more", RUN, 1)
    writer.close()
    channel_ = channel(mesh.address("tracking"), mesh.key.token_source("agent", Role.SERVICE))
    await Shipper(channel_, first.path).ship(lambda: True)
    await channel_.close()
    assert mesh.sequences(RUN, 1) == list(range(1, 21))
    assert not first.path.exists()


async def test_a_superseded_sender_stops_and_leaves_the_spool(mesh: ScriptedMesh, tmp_path: Path) -> None:
    (held,) = mesh.attempts.values()
    sender = Sender(mesh, tmp_path, token=held.token)
    sender.write(1, 5)
    await until(lambda: len(mesh.sequences(RUN, 1)) == 5, "the first points")
    mesh.dispatch(JOB)
    sender.write(6, 9)
    with pytest.raises(FencedError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await sender.task
    assert sender.path.exists()
    assert mesh.sequences(RUN, 1) == [1, 2, 3, 4, 5]
    await sender.close()


async def test_a_stream_that_the_other_side_ends_early_costs_nothing(
    mesh: ScriptedMesh, sender: Sender
) -> None:
    mesh.batches_per_stream = 7
    sender.write(1, 40)
    sender.ended = True
    async with asyncio.timeout(PATIENCE_SECONDS):
        await sender.task
    assert mesh.sequences(RUN, 1) == list(range(1, 41))


async def test_what_tracking_has_lost_is_sent_again_from_its_mark_on(
    mesh: ScriptedMesh, sender: Sender
) -> None:
    """It was restored from a backup that is older than what it had acknowledged."""
    sender.write(1, 30)
    await until(lambda: len(mesh.sequences(RUN, 1)) == 30, "the first points")
    before = list(mesh.batches[RUN, 1])
    await mesh.stop("tracking")
    del mesh.batches[RUN, 1][12:]
    await mesh.start("tracking")
    sender.write(31, 60)
    sender.ended = True
    async with asyncio.timeout(PATIENCE_SECONDS):
        await sender.task
    assert mesh.sequences(RUN, 1) == list(range(1, 61))
    assert mesh.batches[RUN, 1][:30] == before
    assert not sender.path.exists()
