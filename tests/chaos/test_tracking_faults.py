"""Points outlive every fault: of the service, of the program that logs, and of their disks and clocks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.client_channel import channel
from finemesh.cluster.shipper import Shipper
from finemesh.cluster.spool import SpoolReader, parts_of
from finemesh.tracking.points import PointFile

from tests.support.servers import PATIENCE_SECONDS, NatsServer, S3Server
from tests.support.services import ServiceProcess
from tests.support.tracking import Client

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

OUTAGE_SECONDS = 0.5
_Point = tuple[int, str, str]  # step, metric, repr of the value


class World:
    """A Tracking service, a program that logs, and what carries its spool."""

    def __init__(self, folder: Path, service: ServiceProcess, rng: random.Random) -> None:
        self.service, self.rng = service, rng
        self.spool, self.record = folder / "spool" / "000001.spool", folder / "record.jsonl"
        self.run = ""
        self._program: subprocess.Popen[bytes] | None = None
        self._shipping: asyncio.Task[None] | None = None

    @property
    def points(self) -> Path:
        return self.service.folder / "data" / "points.duckdb"

    def logged(self) -> list[_Point]:
        """The record of the program: what it was told is logged. Its last line may be torn."""
        text = self.record.read_text() if self.record.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [(step, key, value) for step, key, value in map(json.loads, lines)]

    async def begin(self) -> None:
        self.service.start()
        client = Client(self.service, self._token())
        self.run = (await client.create("faulty")).name
        await client.channel.close()
        self.log()
        self.ship()

    def log(self) -> None:
        step = max((step for step, _, _ in self.logged()), default=-1) + 2  # one may have been under way
        told = [str(self.spool), self.run, str(self.record), str(step)]
        self.spool.parent.mkdir(exist_ok=True)
        self._program = subprocess.Popen([sys.executable, "-m", "tests.support.tracking_logger", *told])

    def ship(self) -> None:
        self._shipping = asyncio.create_task(self._ship())

    async def _ship(self) -> None:
        ways = channel(self.service.address, self._token)
        try:
            await Shipper(ways, self.spool).ship(lambda: self._program is None)
        finally:
            await ways.close()

    def _token(self) -> str:
        return self.service.key.mint("tester", Role.OPERATOR, ["p"], 600)

    async def stop_shipping(self) -> None:
        assert self._shipping
        self._shipping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._shipping

    def signal_program(self, number: signal.Signals) -> None:
        assert self._program
        self._program.send_signal(number)
        if number is signal.SIGKILL:
            self._program.wait()

    def limit_files(self, size_bytes: int) -> None:
        """No file of the service may grow beyond this; -1: any size."""
        _, hard = resource.prlimit(self.service.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.service.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    async def caught_up(self) -> None:
        """Wait until Tracking shows the newest point of the record as it is now."""
        newest = await self._newest(0)
        client = Client(self.service, self._token())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    with contextlib.suppress(Exception):  # it may still be on its way back
                        if (await client.curve(self.run, "train/speed", max_points=10)).steps[-1] >= newest:
                            return
                    await asyncio.sleep(0.1)
        finally:
            await client.channel.close()

    async def moves_on(self) -> None:
        """Wait until the program has logged some more."""
        await self._newest(max((step for step, _, _ in self.logged()), default=0) + 20)

    async def _newest(self, least: int) -> int:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                newest = max((step for step, _, _ in self.logged()), default=-1)
                if newest >= least:
                    return newest
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        """The program ends; all that it logged becomes durable, and the service stops in order."""
        self.signal_program(signal.SIGKILL)
        self._program = None
        assert self._shipping
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._shipping
        self.service.stop()

    def stored(self) -> list[_Point]:
        """Every point of the file, duplicates and all. The service must have ended."""
        file = PointFile(self.points, memory_bytes=64 << 20, threads=1)
        try:
            found = file.read(self.run).curves
        finally:
            file.close()
        return [
            (step, key, repr(value))
            for key, curve in found.items()
            for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True)
        ]

    def close(self) -> None:
        if self._program:
            self.signal_program(signal.SIGKILL)
        if self._shipping:
            self._shipping.cancel()
        self.service.kill()


async def kill_tracking(world: World) -> None:
    world.service.kill()
    await world.moves_on()
    world.service.start()


async def kill_the_program(world: World) -> None:
    world.signal_program(signal.SIGKILL)
    world.log()


async def kill_the_sender(world: World) -> None:
    await world.stop_shipping()
    await world.moves_on()
    world.ship()


async def full_disk(world: World) -> None:
    """Nothing may grow any more."""
    world.limit_files(max(path.stat().st_size for path in world.points.parent.glob("points.duckdb*")))
    await world.moves_on()
    await asyncio.sleep(OUTAGE_SECONDS)
    world.limit_files(resource.RLIM_INFINITY)


async def read_only_file(world: World) -> None:
    """Nothing may be written at all."""
    world.limit_files(0)
    await world.moves_on()
    await asyncio.sleep(OUTAGE_SECONDS)
    world.limit_files(resource.RLIM_INFINITY)


async def torn_files(world: World) -> None:
    """Both processes die in the middle of a write."""
    world.service.kill()
    world.signal_program(signal.SIGKILL)
    log = world.points.with_name("points.duckdb.wal")
    spool = SpoolReader(parts_of(world.spool)[-1])
    while spool.read():
        pass
    ends = {log: log.stat().st_size, spool.path: spool.offset} if log.exists() else {spool.path: spool.offset}
    for path, end in ends.items():
        with path.open("r+b") as file:
            file.seek(end)
            file.write(world.rng.randbytes(world.rng.randint(1, 200)))
    world.service.start()
    world.log()


async def clock_set_back(world: World) -> None:
    await world.moves_on()  # it listens to signals by then
    world.signal_program(signal.SIGUSR1)
    await world.moves_on()


FAULTS: tuple[Callable[[World], Awaitable[None]], ...] = (
    kill_tracking,
    kill_the_program,
    kill_the_sender,
    full_disk,
    read_only_file,
    torn_files,
    clock_set_back,
)


@pytest.fixture
async def world(tmp_path: Path, seed: int) -> AsyncGenerator[World]:
    nats, s3 = NatsServer(tmp_path / "nats"), S3Server(tmp_path / "s3")
    nats.start()
    s3.start()
    settings = {
        "FINEMESH_DATA_DIR": str(tmp_path / "tracking" / "data"),
        "FINEMESH_SEGMENT_INTERVAL_SECONDS": "1",
    }
    world = World(
        tmp_path,
        ServiceProcess("tracking", tmp_path / "tracking", nats, s3, settings),
        random.Random(seed),
    )
    try:
        yield world
    finally:
        world.close()
        s3.kill()
        nats.kill()


async def test_every_logged_point_is_there_exactly_once_after_every_fault(world: World) -> None:
    await world.begin()
    await world.moves_on()
    for fault in world.rng.sample(FAULTS, len(FAULTS)):
        await asyncio.sleep(world.rng.uniform(0, 0.3))
        await fault(world)
        await world.caught_up()
    await world.end()
    compare(world)
    world.points.unlink()
    rebuilt = await asyncio.to_thread(rebuild, world)
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    compare(world)


def compare(world: World) -> None:
    """Once each; beyond the record only what was under way when the program was killed."""
    logged, stored = Counter(world.logged()), Counter(world.stored())
    assert max(stored.values()) == 1
    assert not logged - stored
    kills = 3
    assert len(stored - logged) <= 2 * kills


def rebuild(world: World) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **world.service.environment()}
    command = [sys.executable, "-m", "finemesh.tracking", "rebuild"]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
