"""Kill -9 of a process that makes a package, on a running mesh: it is made anew, and no half of it seen."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
import pytest
from finemesh.client import Connection, RpcError, load_settings, wait_for
from finemesh.cluster.attempts import resource_key
from finemesh.v1 import export_pb2
from finemesh.v1 import export_service_pb2 as pb
from minio import Minio

from tests.e2e.conftest import RunningMesh
from tests.support.conversations import tiny_model
from tests.support.servers import PATIENCE_SECONDS, executable, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PROJECT: Final = "kills"
Export = export_pb2.Export
ENDED: Final = {Export.STATE_SUCCEEDED, Export.STATE_REJECTED, Export.STATE_FAILED, Export.STATE_CANCELLED}
SPEC: Final = (
    "task=LANGUAGE base_model=./kills-model dataset=talks lora={} validation_split= test_split= "
    "optimization.max_steps=1 optimization.micro_batch_size=2"
)


@pytest.fixture(scope="module")
def trained(running_mesh: RunningMesh) -> RunningMesh:
    """The mesh, with the job `small` in a project of its own."""
    folder = running_mesh.folder
    tiny_model(folder / "kills-model", "llama")
    turns = [{"role": "user", "content": "say red"}, {"role": "assistant", "content": "red"}]
    with (folder / "talks_train.jsonl").open("w") as stream:
        stream.writelines(
            json.dumps({"messages": [{**turns[0], "content": f"say red {n}"}, turns[1]]}) + "\n"
            for n in range(4)
        )
    finemesh(folder, "dataset", "import", "talks_train.jsonl", "--id", "talks")
    chosen = [word for each in SPEC.split() for word in ("-o", each)]
    finemesh(folder, "train", "submit", *chosen, "--id", "small", "--wait")
    return running_mesh


def finemesh(folder: Path, *words: str) -> None:
    command = [executable("finemesh"), *words, "--project", PROJECT]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def connection(trained: RunningMesh) -> Iterator[Connection]:
    settings = load_settings(project=PROJECT, environ={}, folder=trained.folder)
    with Connection(settings) as opened:
        yield opened


def test_a_package_whose_maker_is_killed_is_made_anew(
    trained: RunningMesh, connection: Connection, tmp_path: Path
) -> None:
    """Once while the package is checked: all of its files are there, and nobody has seen one."""
    asked = Export(
        training_job=connection.name("trainingJobs", "small"), format=export_pb2.EXPORT_FORMAT_MERGED
    )
    request = pb.CreateExportRequest(parent=connection.parent, export=asked, export_id="killed")
    name = connection.export.CreateExport(request).name
    scratch = trained.data / "agent" / "scratch"
    checker = found_checker(scratch, resource_key(name))
    maker = checker.parent()
    assert maker is not None
    maker.kill()
    with pytest.raises(RpcError) as caught:
        connection.export.ListExportFiles(pb.ListExportFilesRequest(parent=name))
    assert caught.value.reason == "EXPORT_NOT_RELEASED"
    watched = pb.WatchExportRequest(name=name)
    done = wait_for(lambda: connection.export.WatchExport(watched), lambda each: each.state in ENDED)
    assert (done.state, done.attempt) == (Export.STATE_SUCCEEDED, 2), done.error
    finemesh(trained.folder, "export", "download", "killed", str(tmp_path / "package"))
    assert done.parity.passed
    # Of the first attempt nothing is left: neither in the bucket nor on the node.
    assert {key.split("/")[4] for key in packages_of(trained)} == {"2"}
    wait_until(lambda: not [*scratch.glob(f"{resource_key(name)}-*")], "no folder of the export")
    wait_until(lambda: not checker.is_running(), "the end of the first check")


def found_checker(scratch: Path, key: str) -> psutil.Process:
    """The process that replays a package which lies below a folder, as soon as there is one."""
    found: list[psutil.Process] = []

    def looked() -> bool:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if "verify.py" in command and f"{scratch}/{key}-" in command:
                    found.append(process)
        return bool(found)

    wait_until(looked, "the package is checked", 3 * PATIENCE_SECONDS)
    return found[0]


def packages_of(mesh: RunningMesh) -> list[str]:
    """Every object of the project's packages."""
    secrets = mesh.data / "secrets"
    store = Minio(
        endpoint=f"127.0.0.1:{mesh.ports['s3']}",
        access_key=(secrets / "s3.access").read_text().strip(),
        secret_key=(secrets / "s3.secret").read_text().strip(),
        secure=False,
    )
    prefix = f"projects/{PROJECT}/packages/"
    return [str(each.object_name) for each in store.list_objects("finemesh", prefix=prefix, recursive=True)]
