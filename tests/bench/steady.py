"""The part of `make bench-training` about what the mesh adds to a step: metrics, heartbeats, checkpoints.

The same spec is trained by a job on a mesh and by the loop alone in a process, by turns. Measured is what
lies between the first step and the last: time on the wall by the times of the points, and CPU time of the
worker and its supervisor, against that of the process. A model of 10 million parameters saves two checkpoints
on the way: of 0.13 GB each when it is tuned in full, of 12 MB with LoRA.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from finemesh.chassis.fine_tune_spec import spec_from_proto, spec_to_proto
from finemesh.client import Connection, load_settings
from finemesh.core.spec.finetune import (
    Checkpointing,
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    Task,
    Tower,
)
from finemesh.embedded import Mesh, MeshConfig
from finemesh.embedded.demo.calls import Calls
from finemesh.embedded.demo.progress import Display
from finemesh.finetune.hooks import NoHooks
from finemesh.v1 import fine_tune_spec_pb2 as spec_pb
from finemesh.v1 import tracking_service_pb2
from rich.console import Console

from tests.bench.checkpoint_stall import bench_model
from tests.bench.launch import import_chats
from tests.bench.measuring import PAIRS, ROOT, Board

STEPS: Final = 90
EVERY: Final = 45
GOAL: Final = 0.98  # of the loop's time per step in that of the mesh
_SAMPLE_SECONDS: Final = 0.1
METHODS: Final = {"full": Full((Tower.LANGUAGE,)), "LoRA": Lora()}
Spent = tuple[float, float]  # seconds on the wall, and of CPU


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
        asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> None:
    async with Mesh(MeshConfig(data_dir=folder / "mesh")) as mesh:
        settings = load_settings(server=mesh.address, environ={"FINEMESH_DATA_DIR": str(mesh.site.data)})
        await asyncio.to_thread(_bars, folder, mesh, settings)


def _bars(folder: Path, mesh: Mesh, settings: Any) -> None:
    with Connection(settings) as connection:
        calls = Calls(connection, Display(Console(quiet=True)))
        dataset = import_chats(calls, folder, rows=400)
        calls.download_dataset(dataset, folder / "dataset")
        model, board = bench_model(folder / "base"), Board("python -m tests.bench.training --only steady")
        for method in METHODS:
            spec, name = _spec(dataset, model, method), f"steady-{method.lower()}"
            pairs = [
                (_on_mesh(calls, mesh, spec, f"{name}-{each}"), _alone(folder, spec)) for each in range(PAIRS)
            ]
            _show(board, method, pairs)


def _show(board: Board, method: str, pairs: Sequence[tuple[Spent, Spent]]) -> None:
    for clock, name in enumerate(("wall", "CPU")):
        ours, peer = ([pair[side][clock] / (STEPS - 1) for pair in pairs] for side in (0, 1))
        bar = f"a step of {method} tuning on the mesh, against the loop alone, {name}"
        board.ratio(bar, ours, peer, GOAL, "s per step")


def _spec(dataset: str, model: Path, method: str) -> FineTuneSpec:
    return FineTuneSpec(
        task=Task.LANGUAGE,
        base_model=str(model),
        dataset=dataset,
        validation_split="",
        test_split="",
        method=METHODS[method],
        optimization=Optimization(max_steps=STEPS, micro_batch_size=8),
        checkpoint=Checkpointing(every_steps=EVERY),
    )


def _on_mesh(calls: Calls, mesh: Mesh, spec: FineTuneSpec, name: str) -> Spent:
    meter = _Meter(mesh)
    with meter:
        job = calls.submit(name, spec_to_proto(spec))
        calls.follow_job(job.name, lambda _: None)
    request = tracking_service_pb2.QueryMetricsRequest(
        parent=calls.connection.parent, runs=[job.run], keys=["train/loss"], max_points=10_000
    )
    (series,) = calls.connection.tracking.QueryMetrics(request).series
    assert len(series.times_us) == STEPS
    began, ended = series.times_us[0] / 1e6, series.times_us[-1] / 1e6
    spent = ended - began, meter.cpu(ended) - meter.cpu(began)
    _tell(name, spent)
    return spent


class _Meter:
    """CPU seconds of the worker and the supervisor of the one job of a mesh, sampled as they run."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._over = threading.Event()
        self._samples: dict[int, list[tuple[float, float]]] = {}
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        watched: list[psutil.Process] = []
        while not self._over.wait(_SAMPLE_SECONDS):
            if len(watched) < 2:
                watched = [
                    p for p in self._mesh.processes() if _title(p).startswith(("ray::Worker", "ray::Sup"))
                ]
            for process in watched:
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                self._samples.setdefault(process.pid, []).append((time.time(), times.user + times.system))

    def cpu(self, moment: float) -> float:
        """CPU seconds of both until a moment."""
        total = 0.0
        for samples in self._samples.values():
            moments, spent = zip(*samples, strict=True)
            total += float(np.interp(moment, moments, spent))
        return total


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _alone(folder: Path, spec: FineTuneSpec) -> Spent:
    file = folder / "spec.bin"
    file.write_bytes(spec_to_proto(spec).SerializeToString())
    command = [sys.executable, "-m", "tests.bench.steady", str(file), str(folder / "dataset")]
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as work:
        done = subprocess.run([*command, work], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    _tell("alone", (wall, cpu))
    return wall, cpu


def _tell(name: str, spent: Spent) -> None:
    wall, cpu = (1000 * each / (STEPS - 1) for each in spent)
    print(f"{name}: {wall:.1f} ms a step, {cpu:.1f} ms of CPU", file=sys.stderr, flush=True)


class _Steps(NoHooks):
    """When each step was taken."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        if "train/loss" in values:
            self.ends.append((time.time(), time.process_time()))


def train_alone(spec_file: str, dataset: str, work: str) -> None:
    """Train here, and print what lay between the first step and the last."""
    from finemesh.finetune.loop import train

    spec = spec_from_proto(spec_pb.FineTuneSpec.FromString(Path(spec_file).read_bytes()))
    steps = _Steps()
    train(spec, base_model=Path(spec.base_model), dataset=Path(dataset), work=Path(work), hooks=steps)
    assert len(steps.ends) == spec.optimization.max_steps
    print(json.dumps([end - began for began, end in zip(steps.ends[0], steps.ends[-1], strict=True)]))


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    train_alone(*arguments) if arguments else main()
