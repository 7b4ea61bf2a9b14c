"""A mesh for tests of faults: a Ray node of its own holds the only GPU, and everything may be killed.

`sound` says after each fault whether the promises were kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
from finemesh.chassis.config import Secret
from finemesh.chassis.fine_tune_spec import spec_to_proto
from finemesh.chassis.objects import download_directory
from finemesh.chassis.s3 import S3Config, S3ObjectStore
from finemesh.client import Connection, RpcError, load_settings, upload_source, wait_for
from finemesh.cluster.attempts import resource_key
from finemesh.core.spec.finetune import Checkpointing, Evaluation, FineTuneSpec, Optimization, Resources, Task
from finemesh.embedded import Mesh
from finemesh.embedded.environment import ray_environment
from finemesh.embedded.processes import signal_all
from finemesh.v1 import dataprep_service_pb2 as dataprep_pb
from finemesh.v1 import dataset_pb2, training_job_history_pb2, training_job_pb2
from finemesh.v1 import training_service_pb2 as training_pb

from tests.support.conversations import COLOURS, spec, tiny_model
from tests.support.ranks import Leg, run_legs
from tests.support.servers import ServerProcess

State = training_job_pb2.TrainingJob.State
Job = training_job_pb2.TrainingJob
Entry = training_job_history_pb2.TrainingJobHistoryEntry
T = TypeVar("T")
PATIENCE_SECONDS: Final = 600.0
RUN_SECONDS: Final = 4 * PATIENCE_SECONDS  # a whole training, on a machine that others keep busy
# One thread, and room on the second node alone, for one job at a time.
NODE_CPUS: Final = 2
_ENDED: Final = {State.STATE_SUCCEEDED, State.STATE_FAILED, State.STATE_CANCELLED}
_WRONG_CLOCK: Final = Path(__file__).with_name("wrong_clock")
# `ray`, whose second nodes refuse to stay on loopback as its first one does.
_RAY_ON_LOOPBACK: Final = (
    "from ray._private import ray_constants, services\n"
    "ray_constants.ENABLE_RAY_CLUSTER = True\n"
    "services.resolve_ip_for_localhost = lambda host: host\n"
    "from ray.scripts.scripts import main\n"
    "main()"
)


@dataclass
class GpuNode:
    """A second node of the mesh's Ray, with one logical GPU and a clock that is wrong."""

    mesh: Mesh
    folder: Path
    wrong_seconds: int = 3600
    _process: ServerProcess | None = None

    def start(self) -> None:
        options = {
            "address": self.mesh.site.address("ray"),
            "node-ip-address": "127.0.0.1",
            "num-cpus": NODE_CPUS,
            "num-gpus": 1,
            "object-store-memory": 100 << 20,
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        variables = {
            **self.mesh.site.environment("node"),
            **ray_environment(self.mesh.site.credentials.ray_token),
            "PYTHONPATH": os.pathsep.join([str(_WRONG_CLOCK), os.environ.get("PYTHONPATH", "")]).rstrip(":"),
            "WRONG_CLOCK_SECONDS": str(self.wrong_seconds),
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        environment = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        ray = [sys.executable, "-c", _RAY_ON_LOOPBACK, "start", *arguments, "--block"]
        # Ray gives a node up that is not there within 30 s, which a busy machine may not manage.
        command = [*environment, "/bin/sh", "-c", 'until "$@"; do sleep 1; done', "node", *ray]
        self._process = ServerProcess(command, self.folder, self.folder / "node.log")
        self._process.start()

    def processes(self) -> list[psutil.Process]:
        """Everything of this node: its raylet, and the actors on it."""
        if self._process is None or self._process.process is None:
            return []
        root = psutil.Process(self._process.process.pid)
        return [root, *root.children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL all of it at once, as when the power fails."""
        found = self.processes()
        for action in (psutil.Process.suspend, psutil.Process.kill):
            signal_all(found, action)
        psutil.wait_procs(found, 60)
        if self._process:
            self._process.kill()


@dataclass
class FaultMesh:
    """The mesh, its client, and what is trained on it.

    Attributes:
        dataset: name of the dataset that all jobs train on.
        worked: pids of every process that was ever seen to work on a job.
    """

    mesh: Mesh
    connection: Connection
    folder: Path
    node: GpuNode
    objects: S3ObjectStore
    dataset: str = ""
    worked: dict[str, set[int]] = field(default_factory=dict[str, set[int]])

    @classmethod
    async def prepared(cls, mesh: Mesh, folder: Path) -> FaultMesh:
        """On a mesh that is ready: with the second node, a dataset and a tiny model."""
        site = mesh.site
        environ = {"FINEMESH_DATA_DIR": str(site.data), "HOME": str(folder)}
        connection = Connection(load_settings(server=mesh.address, environ=environ))
        secrets = site.credentials
        objects = S3ObjectStore(
            S3Config(
                endpoint=f"http://{site.address('s3')}",
                access_key=secrets.s3_access_key.read_text().strip(),
                secret_key=Secret(secrets.s3_secret_key.read_text().strip()),
                bucket=site.config.bucket,
            )
        )
        made = cls(mesh, connection, folder, GpuNode(mesh, folder), objects)
        made.node.start()
        await asyncio.to_thread(tiny_model, folder / "model", "llama")
        made.dataset = await asyncio.to_thread(made._import)
        await made.until(made.is_free, "the second node")
        return made

    def _import(self) -> str:
        words = list(COLOURS)
        path = self.folder / "chat_train.jsonl"
        with path.open("w") as file:
            for index in range(48):
                said = [words[(index * step) % len(words)] for step in range(1, 3 + index % 7)]
                turns = [("user", "say " + " ".join(said)), ("assistant", " ".join(said))]
                messages = [{"role": role, "content": text} for role, text in turns]
                file.write(json.dumps({"messages": messages}) + "\n")
        origin = dataset_pb2.ImportOrigin(upload=upload_source(self.connection, path))
        stub = self.connection.dataprep
        made = stub.CreateDataset(
            dataprep_pb.CreateDatasetRequest(
                parent=self.connection.parent, dataset=dataset_pb2.Dataset(imported_from=origin)
            )
        )
        over = {dataset_pb2.Dataset.STATE_SUCCEEDED, dataset_pb2.Dataset.STATE_FAILED}
        request = dataprep_pb.WatchDatasetRequest(name=made.name)
        done = wait_for(lambda: stub.WatchDataset(request), lambda each: each.state in over)
        assert done.state == dataset_pb2.Dataset.STATE_SUCCEEDED, done.error
        return done.name

    def close(self) -> None:
        self.connection.close()
        self.objects.close()
        self.node.kill()

    # ---- jobs

    def spec(self, steps: int, checkpoint_steps: int) -> FineTuneSpec:
        """So many steps of about a tenth of a second."""
        return replace(
            spec(Task.LANGUAGE, evaluation=Evaluation(), resources=Resources(cpus=NODE_CPUS - 0.1)),
            base_model=str(self.folder / "model"),
            dataset=self.dataset,
            optimization=Optimization(
                max_steps=steps, micro_batch_size=8, gradient_accumulation_steps=6, seed=3
            ),
            checkpoint=Checkpointing(every_steps=checkpoint_steps, keep_last=3, keep_best=False),
        )

    async def undisturbed(self, chosen: FineTuneSpec) -> dict[str, Any]:
        """What a run of the same spec comes to that has this machine's process to itself."""
        folder = self.folder / f"alone-{uuid.uuid4().hex[:8]}"
        await download_directory(self.objects, self.dataset, folder / "dataset")
        leg = Leg(chosen.to_dict(), chosen.base_model, str(folder / "dataset"), str(folder / "work"))
        return (await asyncio.to_thread(run_legs, [leg], folder, 1, RUN_SECONDS))[0]

    async def submit(self, chosen: FineTuneSpec, **fields: Any) -> str:
        """The name of a new job. It may be restarted as often as it takes."""
        job = Job(spec=spec_to_proto(chosen), max_restarts=100, **fields)
        request = training_pb.CreateTrainingJobRequest(
            parent=self.connection.parent, training_job=job, request_id=uuid.uuid4().hex
        )
        return (await self.call(self.connection.training.CreateTrainingJob, request)).name

    async def job(self, name: str) -> Job:
        request = training_pb.GetTrainingJobRequest(name=name)
        found = await self.call(self.connection.training.GetTrainingJob, request)
        self.worked.setdefault(name, set()).update(found.worker.pids)
        return found

    async def reached(
        self, name: str, test: Callable[[Job], object], what: str, seconds: float = PATIENCE_SECONDS
    ) -> Job:
        """The job once it passes `test`. Raises AssertionError when it ends before."""
        deadline = time.monotonic() + seconds
        while True:
            job = await self.job(name)
            if test(job):
                return job
            told = f"{State.Name(job.state)}, attempt {job.attempt}, step {job.step}, {job.error}"
            assert job.state not in _ENDED, f"ended before {what}: {told}"
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s; {told}"
            await asyncio.sleep(0.1)

    async def ended(self, name: str, seconds: float = RUN_SECONDS) -> Job:
        return await self.reached(name, lambda job: job.state in _ENDED, "its end", seconds)

    async def history(self, name: str) -> Sequence[Entry]:
        """All that happened to a job, oldest first."""
        request = training_pb.ListTrainingJobHistoryRequest(parent=name, page_size=500)
        return (await self.call(self.connection.training.ListTrainingJobHistory, request)).entries

    async def call(self, method: Callable[[Any], T], request: Any) -> T:
        """Call, and call again while the service is away."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await asyncio.to_thread(method, request)
            except RpcError as error:
                refused = bool(error.reason) and error.code.name != "UNAVAILABLE"
                if refused or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.2)

    async def until(self, test: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not test():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            await asyncio.sleep(0.1)

    # ---- processes

    def actors(self, kind: str) -> list[psutil.Process]:
        """The processes of Ray that are a `Supervisor`, or a `Worker`."""
        found: list[psutil.Process] = []
        for process in self.mesh.processes():
            try:
                if f"ray::{kind}" in " ".join(process.cmdline()) and process.is_running():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def at_work_on(self, name: str) -> set[int]:
        """Pids of processes that were seen to work on a job, and are there still."""
        return self.worked[name] & {each.pid for each in self.actors("Worker")}

    def is_free(self) -> bool:
        """Whether the cluster reported last that Ray has all back that it can give away."""
        path = self.mesh.site.data / "sql" / "training.db"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT capacity FROM clusters").fetchall()
        found = [json.loads(row[0]) for row in rows]
        return any(
            (each["nodes"], each["cpus_free"], each["gpus_free"]) == (2, NODE_CPUS + 1, 1) for each in found
        )

    def leftovers(self, name: str) -> list[Path]:
        """What a job has left on the disk of its nodes."""
        key = resource_key(name)
        folder = self.mesh.site.data / "agent"
        return [*folder.glob(f"spool/{key}/*"), *folder.glob(f"scratch/{key}-*")]
