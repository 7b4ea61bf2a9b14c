"""Clients of trackers, ours and the peers', each in a process of its own that takes orders.

    python -m tests.bench.tracking_clients SYSTEM TARGET FIRST_RUN RUNS STEPS

Every line on stdin is an order, answered by a line of JSON: `log` logs STEPS steps of METRICS metrics to each
of RUNS new runs and answers once all of it is durable; `read` reads the whole history of those runs. Answers
say how long it took, in s. It imports the standard library and numpy alone, and its peer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

METRICS: Final = ("train/loss", "train/accuracy", "train/grad_norm", "train/learning_rate", "val/loss")
BATCH_POINTS: Final = 1000  # as many as MLflow takes in one request
_START_US: Final = 1_790_000_000_000_000


class Tracker(Protocol):
    def log(self, run: str, columns: dict[str, np.ndarray]) -> None:
        """Log columns of all metrics; need not be durable yet."""
        ...

    def settle(self) -> None:
        """Return once everything is durable."""
        ...

    def read(self, runs: list[str]) -> int:
        """Read all points of runs; how many they were."""
        ...


def columns_of(number: int, steps: int, first: int = 0) -> dict[str, np.ndarray]:
    """Steps, times in µs and the values of each metric: noise on a falling curve, real clocks."""
    rng = np.random.default_rng((number, first))
    step = np.arange(first, first + steps, dtype=np.int64)
    times = _START_US + step * 100_000 + rng.integers(0, 20_000, steps)
    values = {key: np.exp(-step / 1e4) + 0.1 * rng.standard_normal(steps) for key in METRICS}
    return {"step": step, "time": times, **values}


def batches(columns: dict[str, np.ndarray], points: int) -> Iterator[dict[str, np.ndarray]]:
    """Stretches of steps with so many points of all metrics together."""
    size = points // len(METRICS)
    for start in range(0, len(columns["step"]), size):
        yield {name: column[start : start + size] for name, column in columns.items()}


class Finemesh:
    """One stream of columnar batches; TARGET is `address token [points per batch]`."""

    def __init__(self, target: str) -> None:
        import grpc
        from finemesh.client.carrier import MAX_POINTS_TOGETHER
        from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub

        address, token, *rest = target.split()
        self._points = int(rest[0]) if rest else MAX_POINTS_TOGETHER  # as its own sender does
        self._metadata = (("authorization", f"Bearer {token}"),)
        limit = [("grpc.max_receive_message_length", 64 << 20)]
        self._stub: Any = TrackingServiceStub(grpc.insecure_channel(address, options=limit))
        self._sequences: dict[str, int] = {}
        self._waiting: list[Any] = []

    def log(self, run: str, columns: dict[str, np.ndarray]) -> None:
        from finemesh.v1 import run_pb2
        from finemesh.v1 import tracking_service_pb2 as pb

        if run not in self._sequences:
            self._sequences[run] = 0
            request = pb.CreateRunRequest(parent="projects/p", run_id=run, run=run_pb2.Run())
            self._stub.CreateRun(request, metadata=self._metadata)
        self._waiting += [(run, each) for each in batches(columns, self._points)]

    def settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        answers = self._stub.LogMetrics(self._requests(waiting), metadata=self._metadata)
        durable = {answer.run: answer.durable_sequence for answer in answers}
        assert all(self._sequences[run.rpartition("/")[2]] == number for run, number in durable.items())

    def _requests(self, waiting: list[tuple[str, dict[str, np.ndarray]]]) -> Iterator[Any]:
        from finemesh.v1 import tracking_service_pb2 as pb
        from finemesh.v1.metric_pb2 import MetricBatch

        count = len(METRICS)
        for run, each in waiting:
            self._sequences[run] += 1
            steps = len(each["step"])
            batch = MetricBatch(
                run=f"projects/p/runs/{run}",
                attempt=1,
                sequence=self._sequences[run],
                keys=METRICS,
                key_indices=np.repeat(np.arange(count), steps).tolist(),
                steps=np.tile(each["step"], count).tolist(),
                values=np.concatenate([each[key] for key in METRICS]).tolist(),
                times_us=np.tile(each["time"], count).tolist(),
            )
            yield pb.LogMetricsRequest(batch=batch)

    def read(self, runs: list[str]) -> int:
        from finemesh.v1 import tracking_service_pb2 as pb

        names = [f"projects/p/runs/{run}" for run in runs]
        request = pb.QueryMetricsRequest(parent="projects/p", runs=names, max_points=1000)
        found = self._stub.QueryMetrics(request, metadata=self._metadata).series
        return sum(len(list(each.values)) for each in found)


class Mlflow:
    """`log_batch` of MLflow's client; TARGET is the URL of its server."""

    def __init__(self, target: str) -> None:
        os.environ |= {"MLFLOW_TRACKING_URI": target, "MLFLOW_ENABLE_ASYNC_LOGGING": "false"}
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        self._client = MlflowClient(target)
        self._experiment = "0"
        self._ids: dict[str, str] = {}

    def log(self, run: str, columns: dict[str, np.ndarray]) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        if run not in self._ids:
            self._ids[run] = self._client.create_run(self._experiment, run_name=run).info.run_id
        for each in batches(columns, BATCH_POINTS):
            steps, times = each["step"].tolist(), (each["time"] // 1000).tolist()
            metrics = [
                Metric(key, value, at, step)
                for key in METRICS
                for value, at, step in zip(each[key].tolist(), times, steps, strict=True)
            ]
            self._client.log_batch(self._ids[run], metrics=metrics)

    def settle(self) -> None:
        return

    def read(self, runs: list[str]) -> int:
        return sum(
            len(self._client.get_metric_history(self._ids[run], key)) for run in runs for key in METRICS
        )


class TensorBoard:
    """TensorBoard's writer, a file per run in the folder TARGET."""

    def __init__(self, target: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make, self._folder = SummaryWriter, target
        self._open: list[Any] = []

    def log(self, run: str, columns: dict[str, np.ndarray]) -> None:
        writer = self._make(f"{self._folder}/{run}")
        self._open.append(writer)
        steps, times = columns["step"].tolist(), (columns["time"] / 1e6).tolist()
        for key in METRICS:
            for value, at, step in zip(columns[key].tolist(), times, steps, strict=True):
                writer.add_scalar(key, value, step, walltime=at)

    def settle(self) -> None:
        """Flushed to the operating system; it does not ask the disk."""
        while self._open:
            self._open.pop().close()

    def read(self, runs: list[str]) -> int:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        total = 0
        for run in runs:
            events = EventAccumulator(f"{self._folder}/{run}", {"scalars": 0}).Reload()
            total += sum(len(events.Scalars(key)) for key in METRICS)
        return total


class Aim:
    """Aim's own repository in the folder TARGET."""

    def __init__(self, target: str) -> None:
        from aim import Repo, Run  # pyright: ignore[reportMissingImports]

        Path(target).mkdir(parents=True, exist_ok=True)
        if not Repo.exists(target):
            Repo.from_path(target, init=True)
        self._repo, self._run, self._opened, self._target = Repo.from_path(target), Run, Repo, target
        self._ids: dict[str, str] = {}

    def log(self, run: str, columns: dict[str, np.ndarray]) -> None:
        logged = self._run(repo=self._target, system_tracking_interval=None, log_system_params=False)
        self._ids[run] = logged.hash
        for key in METRICS:
            for value, step in zip(columns[key].tolist(), columns["step"].tolist(), strict=True):
                logged.track(value, name=key, step=step)
        logged.close()

    def settle(self) -> None:
        """Index: nothing that is not is read back. Aim's own server would do so, when it pleases."""
        from aim.sdk.index_manager import RepoIndexManager  # pyright: ignore[reportMissingImports]

        manager = RepoIndexManager.get_index_manager(self._repo)
        for run in self._ids.values():
            manager.index(run)

    def read(self, runs: list[str]) -> int:
        repo, total = self._opened(self._target), 0
        for run in runs:
            for metric in self._run(self._ids[run], repo=repo, read_only=True).metrics():
                total += len(metric.values.sparse_numpy()[1])
        return total


SYSTEMS: Final[dict[str, type[Any]]] = {
    "finemesh": Finemesh,
    "mlflow": Mlflow,
    "tensorboard": TensorBoard,
    "aim": Aim,
}


def main() -> None:
    system, target, first_run, runs, steps = sys.argv[1:]
    tracker: Tracker = SYSTEMS[system](target)
    numbers = range(int(first_run), int(first_run) + int(runs))
    data = {f"r{number}": columns_of(number, int(steps)) for number in numbers}
    tracker.log(f"warm{first_run}", columns_of(0, 10))
    tracker.settle()
    print(json.dumps({"ready": True}), flush=True)
    for order in sys.stdin:
        began, count = time.perf_counter(), 0
        if order.strip() == "log":
            for run, columns in data.items():
                tracker.log(run, columns)
            tracker.settle()
            count = len(data) * int(steps) * len(METRICS)
        else:
            count = tracker.read(list(data))
        print(json.dumps({"seconds": time.perf_counter() - began, "points": count}), flush=True)


if __name__ == "__main__":
    main()
