"""Bars of asking: searching 10,000 runs while points arrive, SQL, and how soon a watcher sees a point.

A point is written to a spool by a process that stands for the trainer, shipped by another as the supervisor
does, and watched through the gateway of a whole mesh. `python -m tests.bench.tracking_query PATH` is the
trainer.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.client import Connection, Settings, load_settings
from finemesh.core.names import Name
from finemesh.embedded import Mesh, MeshConfig
from finemesh.tracking.domain import Run, RunState, Summary
from finemesh.tracking.store import CHASSIS, SqlRunStore
from finemesh.v1 import run_pb2, run_sql_pb2
from finemesh.v1 import tracking_service_pb2 as pb

from tests.bench.measuring import ENVIRONMENT, ROOT, Board
from tests.bench.tracking_reads import ARRIVING, arriving, caller, median_ms
from tests.bench.tracking_site import site

RUN_COUNT: Final = 10_000
METRICS: Final = ("train/loss", "val/loss", "val/accuracy", "train/tokens", "train/learning_rate")
PARAMS: Final = 60
SHOWN: Final = 50
LOGGED: Final = 1_000
LOG_SECONDS: Final = 0.03
WATCH_GOAL_MS: Final = 250.0


def search_bars(board: Board, folder: Path) -> None:
    """At the median of some questions, as a client sees them."""
    asyncio.run(_write_runs(folder / "service.db"))
    with site(folder) as own:
        stub, metadata = caller(own.target)

        def ask(filter_text: str, order_by: str = "") -> Callable[[], Any]:
            request = pb.ListRunsRequest(
                parent="projects/p", page_size=SHOWN, filter=filter_text, order_by=order_by
            )
            return lambda: stub.ListRuns(request, metadata=metadata)

        final, rank = 'metrics."val/loss"', 'params."method.lora.rank" = "16"'
        asked = {
            f"{RUN_COUNT} runs by a final metric": (ask(f"{final} < 0.05"), 50),
            "the same, the best first": (ask(f"{final} < 0.5", final), 50),
            "by a final metric and a parameter": (ask(f"{rank} AND {final}.best < 0.5"), 50),
            f"last values of {SHOWN} runs": (ask(""), 30),
        }
        with arriving(own.target) as rate:
            found = {name: (median_ms(call), goal) for name, (call, goal) in asked.items()}
        board.show("points/s arriving meanwhile", rate(), ARRIVING * 0.9, "points/s", ratio=rate())
        for name, (took_ms, goal) in found.items():
            board.show(name, took_ms, goal, "ms")
        query = run_sql_pb2.QuerySqlRequest(
            parent="projects/p", query="SELECT avg(last_value) FROM summaries WHERE key = 'val/loss'"
        )
        sql_ms = median_ms(lambda: list(stub.QuerySql(query, metadata=metadata)))
        board.show(f"SQL over the summaries of {RUN_COUNT} runs", sql_ms, 1000, "ms")


async def _write_runs(database: Path) -> None:
    """Rows as the service would have written them, before it starts."""
    rng, now = random.Random(0), datetime.now(UTC)
    db = Database(f"sqlite:///{database}")
    runs = [_run(number, now - timedelta(minutes=number), rng) for number in range(RUN_COUNT)]
    try:
        await migrate(db, "finemesh.tracking")
        store = SqlRunStore(db, Outbox(CHASSIS), Notifier())
        await store.update_all({run.name: lambda _, run=run: run for run in runs})
    finally:
        await db.close()


def _run(number: int, created: datetime, rng: random.Random) -> Run:
    params = {f"method.option{index}": str(rng.random()) for index in range(PARAMS)}
    return Run(
        name=Name("p", "runs", f"old-{number:05}"),
        params={**params, "method.lora.rank": rng.choice(["8", "16", "32"])},
        state=RunState.FINISHED,
        create_time=created,
        update_time=created,
        summaries=tuple(Summary(key, rng.random(), 1000, rng.random(), 900, 1000, 0, 2) for key in METRICS),
    )


def watch_bars(board: Board, folder: Path) -> None:
    asyncio.run(_watch_bars(board, folder))


async def _watch_bars(board: Board, folder: Path) -> None:
    async with Mesh(MeshConfig(data_dir=folder / "mesh")) as mesh:
        environ = {"FINEMESH_DATA_DIR": str(mesh.site.data)}
        direct = load_settings(server=mesh.site.address("tracking"), environ=environ)
        through = load_settings(server=mesh.address, environ=environ)
        for name, watch in (
            ("gRPC", lambda run: _by_grpc(through, run)),
            ("server-sent events", lambda run: _by_events(mesh.url, through.token, run)),
        ):
            delays_ms = await asyncio.to_thread(_delays_ms, direct, folder / f"{name[:4]}.spool", watch)
            for percent in (50, 99):
                told = f"from log in the trainer to a watcher through the gateway, {name}, p{percent}"
                board.show(told, float(np.percentile(delays_ms, percent)), WATCH_GOAL_MS, "ms")


def _delays_ms(direct: Settings, spool: Path, watch: Callable[[str], Iterator[int]]) -> list[float]:
    """From when each point was measured to when the watcher had it."""
    run = f"projects/demo/runs/watched-{spool.stem.lower()}"
    with Connection(direct) as connection:
        request = pb.CreateRunRequest(
            parent="projects/demo", run_id=run.rsplit("/", maxsplit=1)[-1], run=run_pb2.Run()
        )
        connection.tracking.CreateRun(request)
    spool.with_suffix(".run").write_text(run)
    ship = ["tests.bench.tracking_logging", "ship", str(spool), direct.server, direct.token]
    log = ["tests.bench.tracking_query", str(spool)]
    started = [
        subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=ENVIRONMENT)
        for command in (ship, log)
    ]
    delays: list[float] = []
    try:
        for measured_us in watch(run):
            delays.append((time.time_ns() / 1000 - measured_us) / 1000)
            if len(delays) == LOGGED:
                return delays[LOGGED // 10 :]  # by then, all of them have started
        sys.exit("the watch ended before the last point")
    finally:
        for process in started:
            process.kill()
            process.wait()


def _by_grpc(through: Settings, run: str) -> Iterator[int]:
    with Connection(through) as connection:
        for response in connection.tracking.WatchMetrics(pb.WatchMetricsRequest(run=run)):
            for series in response.series:
                yield from series.times_us


def _by_events(url: str, token: str, run: str) -> Iterator[int]:
    headers = {"authorization": f"Bearer {token}"}
    with httpx.stream("GET", f"{url}/v1/{run}/metrics:watch", headers=headers, timeout=60) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                for series in json.loads(line.removeprefix("data: "))["series"]:
                    yield from map(int, series["timesUs"])


def log(spool: Path) -> None:
    """A point every LOG_SECONDS, at its own time."""
    from finemesh.cluster.spool import SpoolWriter

    writer = SpoolWriter(spool, spool.with_suffix(".run").read_text(), 1)
    for step in range(LOGGED):
        writer.append(step, {"train/loss": 1 / (1 + step)})
        time.sleep(LOG_SECONDS)
    writer.close()


if __name__ == "__main__":
    log(Path(sys.argv[1]))
