"""Bars of ingest and of the disk: how fast points become durable, and what they take."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.measuring import FEW, Board
from tests.bench.peers import peer_python
from tests.bench.tracking_clients import METRICS
from tests.bench.tracking_site import AIM, MLFLOW, Clients, Site, mlflow_server, site

RUNS: Final = 20
STEPS: Final = 1000
POINTS: Final = RUNS * STEPS * len(METRICS)
MILLIONS_AT_ONCE: Final = 10
SUSTAINED_STEPS: Final = MILLIONS_AT_ONCE * 1_000_000 // (RUNS * len(METRICS))
SUSTAINED_BATCH: Final = 10_000
SUSTAINED_RATE: Final = 300_000.0
MEMORY_MB: Final = 1024.0

_rounds = itertools.count()


def next_run() -> int:
    """The number of the first of a round's runs, which nobody has logged to."""
    return next(_rounds) * 1_000


def ingest_bars(board: Board, folder: Path) -> None:
    """The same points from one client and from four, against MLflow over HTTP and TensorBoard's files."""
    with site(folder) as own, mlflow_server(folder / "mlflow") as url:
        for clients in (1, 4):
            ours: list[float] = []
            mlflow: list[float] = []
            board_files: list[float] = []
            for _ in range(FEW):
                ours.append(_logged("finemesh", own.target, clients))
                python = peer_python("tracking-mlflow", MLFLOW)
                mlflow.append(_logged("mlflow", url, clients, python))
                with tempfile.TemporaryDirectory(dir=folder) as files:
                    board_files.append(_logged("tensorboard", files, clients))
            what = f"{POINTS} points from {clients} client{'s' if clients > 1 else ''} until durable"
            board.ratio(f"{what}, against MLflow log_batch", ours, mlflow, 50, "s")
            board.ratio(f"{what}, against TensorBoard's writer", ours, board_files, 10, "s")


def history_bars(board: Board, folder: Path) -> None:
    """The whole history of 10 runs with 5 metrics of 1,000 steps."""
    with site(folder) as own, mlflow_server(folder / "mlflow") as url:
        python = peer_python("tracking-mlflow", MLFLOW)
        entrants = {"finemesh": (own.target, Path(sys.executable)), "mlflow": (url, python)}
        if aim := _aim_python():
            entrants["aim"] = (str(folder / "aim"), aim)
        times: dict[str, list[float]] = {}
        for system, (target, python) in entrants.items():
            clients = Clients(system, target, first_run=next_run(), runs=10, steps=STEPS, python=python)
            clients.order("log")
            clients.order("read")
            read = [clients.order("read") for _ in range(FEW)]
            clients.close()
            if all(points == 10 * STEPS * len(METRICS) for _, points in read):
                times[system] = [seconds for seconds, _ in read]
            else:
                print(f"{system} gave {read[0][1]} points: it is left out", file=sys.stderr)
        what = f"history of 10 runs with {len(METRICS)} metrics of {STEPS} steps"
        board.ratio(f"{what}, against MLflow", times["finemesh"], times["mlflow"], 50, "s")
        if "aim" in times:
            board.ratio(f"{what}, against Aim", times["finemesh"], times["aim"], 5, "s")


def sustained_bars(board: Board, own: Site, millions: int) -> list[str]:
    """Millions of points from one client: how fast, in how many bytes each, and in how much memory.

    Returns the runs of the last ten million.
    """
    first, spent, points = 0, 0.0, 0
    for _ in range(millions // MILLIONS_AT_ONCE):
        first = next_run()
        target = f"{own.target} {SUSTAINED_BATCH}"
        clients = Clients("finemesh", target, first_run=first, runs=RUNS, steps=SUSTAINED_STEPS)
        seconds, logged = clients.order("log")
        spent, points = spent + seconds, points + logged
        clients.close()
    what = f"{millions} million points from one client"
    board.show(f"{what}, points/s", points / spent, SUSTAINED_RATE, "points/s", ratio=points / spent)
    board.show(f"resident memory after {what}, peak", own.peak_mb(), MEMORY_MB, "MB")
    own.service.stop()  # which brings the last points into their order
    board.show(f"a point on disk, real timestamps, of {millions} million", own.size_bytes() / points, 13, "B")
    own.service.start()
    return [f"projects/p/runs/r{number}" for number in range(first, first + RUNS)]


def _logged(system: str, target: str, clients: int, python: Path | str = sys.executable) -> float:
    group = Clients(system, target, first_run=next_run(), clients=clients, python=python)
    seconds, points = group.order("log")
    assert points == POINTS
    group.close()
    return seconds


def _aim_python() -> Path | None:
    """None where Aim does not install: it comes for few systems."""
    try:
        return peer_python("tracking-aim", AIM)
    except subprocess.CalledProcessError:
        return None
