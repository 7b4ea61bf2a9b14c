"""The part of `make bench-training` about starting: from CreateTrainingJob to the first step, stage by stage.

A mesh with one warm worker trains a tiny model again and again; each time the pool is full before. Ours is
the time until the client sees a step, without the loading of the model itself. The peers begin cold, by turns
with ours: the same loop by `python -m finemesh.finetune` to its first line of metrics, and `ray job submit`
to the first line of a script that does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import psutil
from finemesh.client import Connection, load_settings
from finemesh.embedded import Mesh, MeshConfig
from finemesh.embedded.demo.calls import Calls
from finemesh.embedded.demo.progress import Display
from finemesh.v1 import dataset_pb2, training_service_pb2
from finemesh.v1.fine_tune_spec_pb2 import (
    CheckpointSpec,
    FineTuneSpec,
    LoraMethod,
    OptimizationSpec,
    ResourceSpec,
)
from google.protobuf import json_format
from rich.console import Console

from tests.bench.measuring import FEW, Board
from tests.bench.peers import peer_python
from tests.support.conversations import tiny_model
from tests.support.servers import free_ports

GOAL_SECONDS: Final = 4.0
_ENDLESS: Final = 1_000_000
_LOADING: Final = "loading the base model"
_LOADED: Final = "encoding the dataset"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
        asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> None:
    config = MeshConfig(data_dir=folder / "mesh", warm_workers=1)
    async with Mesh(config) as mesh:
        settings = load_settings(server=mesh.address, environ={"FINEMESH_DATA_DIR": str(mesh.site.data)})
        await asyncio.to_thread(_bars, folder, mesh, settings)


def _bars(folder: Path, mesh: Mesh, settings: Any) -> None:
    model = tiny_model(folder / "model", "llama")
    with Connection(settings) as connection, RayServer(Path(tempfile.mkdtemp(prefix="fm-ray-"))) as server:
        calls = Calls(connection, Display(Console(quiet=True)))
        dataset = import_chats(calls, folder, rows=64)
        local = folder / "dataset"
        calls.download_dataset(dataset, local)
        spec = _spec(dataset, model)
        rounds = [
            (_ours(calls, mesh, spec, f"launch-{each}"), _loop(folder, spec, local, each), _ray_job(server))
            for each in range(FEW + 1)
        ][1:]  # the first finds nothing in the caches of the system
    board = Board("python -m tests.bench.training --only launch")
    ours, loops, jobs = zip(*rounds, strict=True)
    beyond = [each["beyond"] for each in ours]
    for bar, peer in (("python -m finemesh.finetune, cold", loops), ("ray job submit, first line", jobs)):
        board.show(
            f"submit to first step on a warm mesh, against {bar}",
            statistics.median(beyond),
            GOAL_SECONDS,
            "s beyond loading the model",
            statistics.median(peer),
        )


def import_chats(calls: Calls, folder: Path, rows: int) -> str:
    """Have a dataset of so many short conversations made. Returns its name."""
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"say red {number}"},
                {"role": "assistant", "content": "red green blue"},
            ]
        }
        for number in range(rows)
    ]
    source = folder / "chat_train.jsonl"
    source.write_text("\n".join(json.dumps(chat) for chat in chats))
    raw = calls.import_source(source, "chats")
    canonical = dataset_pb2.ConvertOrigin(dataset=raw.name, format=dataset_pb2.DATASET_FORMAT_CANONICAL)
    return calls.make("rows", dataset_pb2.Dataset(converted_from=canonical)).name


def _spec(dataset: str, model: Path) -> FineTuneSpec:
    return FineTuneSpec(
        task=FineTuneSpec.TASK_LANGUAGE,
        dataset=dataset,
        base_model=str(model),
        validation_split="",
        test_split="",
        lora=LoraMethod(rank=4),
        optimization=OptimizationSpec(max_steps=_ENDLESS, micro_batch_size=4),
        checkpoint=CheckpointSpec(every_steps=0),
        resources=ResourceSpec(cpus=1),
    )


def _ours(calls: Calls, mesh: Mesh, spec: FineTuneSpec, name: str) -> dict[str, float]:
    """Seconds from the submission to each stage, and to the first step as the client sees it, without the
    loading of the model.
    """
    _wait_for_warmth(mesh)
    began = time.time()
    job = calls.submit(name, spec).name
    stub = calls.connection.training
    watch = training_service_pb2.WatchTrainingJobRequest(name=job)
    seen = next(time.time() - began for version in stub.WatchTrainingJob(watch) if version.step)
    stub.CancelTrainingJob(training_service_pb2.CancelTrainingJobRequest(name=job))
    for _ in stub.WatchTrainingJob(watch):  # to its end
        pass
    stages = {what: at - began for what, at in _stages(mesh, job)}
    # Where no log tells of the loading, it counts as ours.
    beyond = seen - (stages[_LOADED] - stages[_LOADING] if stages.keys() >= {_LOADED, _LOADING} else 0)
    told = {what: round(at, 2) for what, at in sorted(stages.items(), key=lambda each: each[1])}
    print(
        f"{name}: {beyond:.2f} s beyond the model, {seen:.2f} s in all: {told}", file=sys.stderr, flush=True
    )
    return {"beyond": beyond, "seen": seen}


def _wait_for_warmth(mesh: Mesh) -> None:
    """Until a worker is warm that no job has had."""
    log = mesh.site.data / "logs" / "agent.log"
    had = sum("warm_worker_given" in line for line in log.read_text().splitlines())
    while sum("warm_worker_ready" in line for line in log.read_text().splitlines()) <= had:
        time.sleep(0.5)
    time.sleep(5)  # and the agent has nothing else to do


def _stages(mesh: Mesh, job: str) -> Iterator[tuple[str, float]]:
    """When each stage of a job began, as the logs of the services, the agent and Ray's actors tell."""
    logs = [mesh.site.data / "logs" / f"{name}.log" for name in ("training", "agent")]
    for path in [*logs, *mesh.site.ray_folder.glob("session_latest/logs/worker-*.err")]:
        for line in path.read_text(errors="replace").splitlines():
            if job in line and line.startswith("{"):
                told = json.loads(line)
                at = datetime.fromisoformat(told["time"]).timestamp()
                yield told.get("stage", told["event"]), at


def _loop(folder: Path, spec: FineTuneSpec, dataset: Path, number: int) -> float:
    """The same loop by its own command line: seconds from its start to its first line of metrics."""
    file = folder / "spec.json"
    file.write_text(json_format.MessageToJson(spec, preserving_proto_field_name=True))
    command = [sys.executable, "-m", "finemesh.finetune", file, "--dataset", dataset]
    return _first_line([*map(str, command), "--work", str(folder / f"run-{number}")], os.environ)


def _ray_job(server: RayServer) -> float:
    """Seconds from `ray job submit` to the first line of a script that imports nothing."""
    script = ["--", str(server.python), "-c", "print('first line', flush=True)"]
    command = [str(server.python.parent / "ray"), "job", "submit", "--address", server.dashboard, *script]
    return _first_line(command, server.environment, wanted="first line")


def _first_line(command: list[str], environment: Mapping[str, str], wanted: str = "") -> float:
    began = time.time()
    process = subprocess.Popen(
        command, env=dict(environment), text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    line = next((line for line in process.stdout if line.startswith(wanted)), "")
    took = time.time() - began
    process.terminate()
    process.communicate()
    if not line:
        sys.exit(f"{' '.join(command)} has printed nothing")
    return took


class RayServer:
    """A Ray with its dashboard, by which jobs are submitted."""

    def __init__(self, folder: Path) -> None:
        self.python = peer_python("ray", ("ray[default]==2.60.0",))
        self.port, self._head, agent, clients = free_ports(4)
        self.dashboard = f"http://127.0.0.1:{self.port}"
        self.environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        options = [f"--port={self._head}", f"--dashboard-port={self.port}", f"--temp-dir={folder}"]
        options += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={clients}"]
        options += ["--min-worker-port=0", "--max-worker-port=0"]  # any free ones: the usual range holds ours
        switches = ["--head", "--block", "--include-dashboard=true", "--node-ip-address=127.0.0.1"]
        self._process = subprocess.Popen(
            [str(self.python.parent / "ray"), "start", *switches, *options],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.dashboard}/api/version"):
                return self
            if self._process.poll() is not None:
                sys.exit("the peer's Ray does not start")
            time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        children = psutil.Process(self._process.pid).children(recursive=True)
        for process in [*children, psutil.Process(self._process.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


if __name__ == "__main__":
    main()
