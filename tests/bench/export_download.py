"""`make bench-export`, downloads: a file of a package against what the object store alone delivers.

The same client, fetching and writing, through the gateway by the file's presigned URL; and what `finemesh
export download` does, which checks the SHA-256 as well, against the client that does not and against itself
without the gateway. The peer fetches the same object from the store. They take turns; the median of the
ratios counts. Archives,
made by the service while they are read, come by HTTP and by gRPC; they have no goal. `--profile` says where
the client's time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import http.client
import os
import pstats
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from finemesh.chassis.auth import Role
from finemesh.client import Connection, Settings, connect, download_files
from finemesh.client.archives import download_archive
from finemesh.v1 import dataset_pb2
from finemesh.v1 import export_service_pb2 as pb

from tests.bench.measuring import SCRATCH, Board
from tests.support.export_client import ExportClient
from tests.support.export_gateway import gateway_before
from tests.support.packages import release
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.scripted_dataprep import ScriptedDataPrep
from tests.support.scripted_training import ScriptedTraining
from tests.support.servers import NatsServer, S3Server, free_ports
from tests.support.services import ServiceProcess

ROUNDS: Final = 15
SIZE_BYTES: Final = 256 << 20
GOAL: Final = 0.8
_BUFFER_BYTES: Final = 1 << 20
_PROJECT: Final = "bench"


@dataclass(frozen=True)
class Site:
    """A released package, and ways to it."""

    connection: Connection
    address: str
    token: str
    export: str
    file: dataset_pb2.File
    store_url: str


@asynccontextmanager
async def site(folder: Path) -> AsyncGenerator[Site]:
    """The service behind the gateway, with one package that holds a file of SIZE_BYTES."""
    with ExitStack() as stack:
        nats, store = NatsServer(folder / "nats").start(), S3Server(folder / "s3").start()
        stack.callback(nats.stop)
        stack.callback(store.stop)
        one, other = free_ports(2)
        training, dataprep = ScriptedTraining(one), ScriptedDataPrep(other)
        settings = {
            "FINEMESH_TRAINING_ADDRESS": training.address,
            "FINEMESH_DATAPREP_ADDRESS": dataprep.address,
        }
        service = ServiceProcess("export", folder / "export", nats, store, settings)
        training.key = dataprep.key = service.key
        for each in (training, dataprep):
            each.start()
            stack.callback(each.stop)
        door = stack.enter_context(gateway_before("export", service.address, service.key, store, folder))
        settings["FINEMESH_PUBLIC_ENDPOINT"] = f"http://{door.address}"
        service.start()
        stack.callback(service.stop)
        job = training.add(_PROJECT, "tj", dataprep.add_trainable(_PROJECT))
        client = ExportClient(service.address, service.key, _PROJECT)
        cluster = ScriptedCluster("bench", nats.url, service.address, service.key)
        objects = service.object_store()
        stack.callback(objects.close)
        async with cluster.running():
            await cluster.report()
            export = await client.create(job)
            content = {"model.safetensors": os.urandom(SIZE_BYTES)}
            attempt = await cluster.next_attempt()
            async with attempt.kept_alive():
                place = await release(objects, attempt, folder / "package", content=content)
        await client.channel.close()
        token = service.key.mint("bench", Role.OPERATOR, [_PROJECT], 3600)
        connection = stack.enter_context(connect(Settings(door.address, _PROJECT, token)))
        listed = connection.export.ListExportFiles(pb.ListExportFilesRequest(parent=export.name))
        url = objects.presign_get(f"{place}/model.safetensors", expires_seconds=3600)
        yield Site(connection, door.address, token, export.name, listed.files[0], url)


def fetch(url: str, target: Path, headers: dict[str, str] | None = None) -> None:
    """GET, written as it comes."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("GET", f"{parts.path}?{parts.query}", headers=headers or {})
    response = connection.getresponse()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with target.open("wb") as stream:
        while count := response.readinto(buffer):
            stream.write(buffer[:count])
    connection.close()
    if response.status != http.HTTPStatus.OK or target.stat().st_size < SIZE_BYTES:
        sys.exit(f"HTTP {response.status}, {target.stat().st_size} bytes")


def by_turns(ours: Callable[[], None], peer: Callable[[], None]) -> tuple[list[float], list[float]]:
    """Seconds of each in ROUNDS turns, after one that does not count."""
    spent: list[tuple[float, float]] = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        ours()
        between = time.perf_counter()
        peer()
        spent.append((between - began, time.perf_counter() - between))
    return [each[0] for each in spent[1:]], [each[1] for each in spent[1:]]


def measure(at: Site, board: Board, folder: Path) -> None:
    """Three bars, and two lines without a goal."""
    alone = folder / "alone"
    stored = dataset_pb2.File()
    stored.CopyFrom(at.file)
    stored.url = at.store_url

    def single() -> None:
        [path] = download_files([at.file], folder / "got")
        path.unlink()

    def through_the_gateway() -> None:
        fetch(at.file.url, alone)

    def archive_by_http() -> None:
        headers = {"Authorization": f"Bearer {at.token}"}
        fetch(f"http://{at.address}/v1/{at.export}:download", alone, headers)

    def archive_by_grpc() -> None:
        download_archive(at.connection, at.export, folder / "package.zip")

    def peer() -> None:
        fetch(at.store_url, alone)

    def checking_peer() -> None:
        [path] = download_files([stored], folder / "got")
        path.unlink()

    checked = "single file through the gateway, SHA-256 checked"
    bars = {
        "single file through the gateway": (through_the_gateway, peer, GOAL),
        f"{checked}, the peer's too": (single, checking_peer, GOAL),
        f"{checked}, the peer's not": (single, peer, GOAL),
        "archive by HTTP": (archive_by_http, peer, 0.0),
        "archive by gRPC, every file checked": (archive_by_grpc, peer, 0.0),
    }
    for bar, (ours, theirs, goal) in bars.items():
        our_seconds, peer_seconds = by_turns(ours, theirs)
        ratio = statistics.median(other / our for our, other in zip(our_seconds, peer_seconds, strict=True))
        board.show(
            f"download, {bar}, against the store alone",
            statistics.median(our_seconds),
            goal,
            "s",
            statistics.median(peer_seconds),
            ratio,
        )


def profile(at: Site, folder: Path) -> None:
    """Where the client's time goes."""
    for ours in (
        lambda: download_files([at.file], folder / "profiled"),
        lambda: download_archive(at.connection, at.export, folder / "profiled.zip"),
    ):
        profiler = cProfile.Profile()
        profiler.runcall(ours)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(8)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-", dir=SCRATCH) as name:
        folder = Path(name)
        async with site(folder) as at:
            if arguments.profile:
                await asyncio.to_thread(profile, at, folder)
            else:
                await asyncio.to_thread(measure, at, Board("make bench-export"), folder)


if __name__ == "__main__":
    asyncio.run(main())
