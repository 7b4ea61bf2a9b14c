"""Bars of reading: curves and last values out of millions of points, while more arrive."""

from __future__ import annotations

import contextlib
import itertools
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import grpc
from finemesh.v1 import tracking_service_pb2 as pb
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub

from tests.bench.measuring import ENVIRONMENT, ROOT, Board
from tests.bench.tracking_clients import METRICS, Finemesh, columns_of
from tests.bench.tracking_ingest import next_run
from tests.bench.tracking_site import Site

ARRIVING: Final = 100_000  # points/s
_RUNS: Final = 10
_ASKED: Final = 20
_STEPS: Final = 200  # of five metrics, to each of ten runs, at once: ten times a second


def read_bars(board: Board, own: Site, runs: Sequence[str]) -> None:
    """At the median of some questions, as a client sees them."""
    stub, metadata = caller(own.target)
    curves = pb.QueryMetricsRequest(
        parent="projects/p", runs=runs[:_RUNS], keys=["train/loss"], max_points=1000
    )
    asked = f"{_RUNS} runs of 100,000 points down to 1,000 each"
    with arriving(own.target) as rate:
        curves_ms = median_ms(lambda: stub.QueryMetrics(curves, metadata=metadata))
        last_ms = median_ms(lambda: [stub.GetRun(pb.GetRunRequest(name=runs[0]), metadata=metadata)])
        page = pb.ListRunsRequest(parent="projects/p", page_size=_RUNS)
        page_ms = median_ms(lambda: stub.ListRuns(page, metadata=metadata))
    board.show("points/s arriving meanwhile", rate(), ARRIVING * 0.9, "points/s", ratio=rate())
    board.show(asked, curves_ms, 100, "ms")
    board.show("last values of a run", last_ms, 30, "ms")
    board.show(f"last values of a page of {_RUNS} runs", page_ms, 30, "ms")


def caller(target: str) -> tuple[Any, Any]:
    address, token = target.split()
    options = [("grpc.max_receive_message_length", 64 << 20)]
    return TrackingServiceStub(grpc.insecure_channel(address, options=options)), (
        ("authorization", f"Bearer {token}"),
    )


@contextlib.contextmanager
def arriving(target: str) -> Generator[Callable[[], float]]:
    """A client process that logs ARRIVING points/s to ten runs; gives, afterwards, what it came to."""
    command = [sys.executable, "-m", "tests.bench.tracking_reads", target, str(next_run())]
    sender = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert sender.stdout
    sender.stdout.readline()  # it has begun
    rates: list[float] = []
    try:
        yield lambda: rates[0]
    finally:
        rates += map(float, sender.communicate("\n")[0].split())


def send(target: str, first: int) -> None:
    """Log until there is something on stdin; prints when it begins, and points/s."""
    client, logged, began = Finemesh(target), 0, 0.0
    for step in itertools.count(0, _STEPS):
        for number in range(_RUNS):
            client.log(f"r{first + number}", columns_of(number, _STEPS, step))
        client.settle()
        if not began:  # the runs are there, and nothing is to be made up for
            began = time.perf_counter()
            print(flush=True)
            continue
        logged += _RUNS * _STEPS * len(METRICS)
        due = began + logged / ARRIVING
        if select.select([sys.stdin], [], [], max(0.0, due - time.perf_counter()))[0]:
            break
    print(logged / (time.perf_counter() - began))


def median_ms(ask: Callable[[], Any]) -> float:
    times: list[float] = []
    for _ in range(_ASKED):
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


if __name__ == "__main__":
    send(sys.argv[1], int(sys.argv[2]))
