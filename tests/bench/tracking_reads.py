"""Bars of reading: curves and last values out of millions of points, while more arrive."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import grpc
from finemesh.v1 import tracking_service_pb2 as pb
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub

from tests.bench.measuring import Board
from tests.bench.tracking_clients import Finemesh, columns_of
from tests.bench.tracking_ingest import next_run
from tests.bench.tracking_site import Site

ARRIVING: Final = 100_000  # points/s
_RUNS: Final = 10
_ASKED: Final = 20
_STEPS: Final = 200  # of five metrics, to each of ten runs, ten times a second


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
    """A client that logs ARRIVING points/s to ten runs; gives what it came to."""
    stop, logged = threading.Event(), [0]
    client, first, began = Finemesh(target), next_run(), time.perf_counter()

    def log() -> None:
        step = 0
        while not stop.is_set():
            due = began + step / _STEPS / 10
            for number in range(_RUNS):
                client.log(f"r{first + number}", columns_of(number, _STEPS, step))
            client.settle()
            step += _STEPS
            logged[0] += _RUNS * _STEPS * 5
            stop.wait(max(0.0, due + 0.1 - time.perf_counter()))

    thread = threading.Thread(target=log)
    thread.start()
    try:
        yield lambda: logged[0] / (time.perf_counter() - began)
    finally:
        stop.set()
        thread.join()


def median_ms(ask: Callable[[], Any]) -> float:
    times: list[float] = []
    for _ in range(_ASKED):
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)
