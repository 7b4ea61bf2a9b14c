"""Runs of other programs through the gateway: by the Python client, the command line, and plain HTTP."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from finemesh.client import RpcError, Run, Settings, connect, load_settings
from finemesh.v1.tracking_service_pb2 import GetRunRequest
from tensorboard.backend.event_processing import event_accumulator

from tests.e2e.conftest import RunningMesh
from tests.support.servers import PATIENCE_SECONDS, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PROJECT = "programs"


@pytest.fixture(scope="module")
def settings(running_mesh: RunningMesh) -> Settings:
    return load_settings(project=PROJECT, environ={}, folder=running_mesh.folder)


@pytest.fixture(scope="module")
def logged(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("logged") / "run"
    with Run("Through the door", tags=["e2e"], settings=settings, folder=folder, run_id="door") as run:
        for step in range(20):
            run.log({"loss": 1 / (1 + step)}, step)
        run.log_artifact(Path(__file__), "code.py")
        run.finish(wait_seconds=100)
    assert not folder.exists(), "not all of it is in the mesh"
    return run


def environment(mesh: RunningMesh) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(mesh.folder), "LC_ALL": "C.UTF-8", "FINEMESH_PROJECT": PROJECT}


def command(mesh: RunningMesh, *words: str, expect: int = 0) -> str:
    done = subprocess.run(
        ["finemesh", *words],
        cwd=mesh.folder,
        env=environment(mesh),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def http(settings: Settings, mesh: RunningMesh, method: str, path: str, body: bytes = b"") -> Any:
    headers = {"authorization": f"Bearer {settings.token}", "content-type": "application/json"}
    return urllib3.request(
        method, f"{mesh.url}/v1/{path}", headers=headers, body=body, retries=False, timeout=PATIENCE_SECONDS
    )


def test_the_command_line_shows_changes_fetches_and_exports(
    running_mesh: RunningMesh, logged: Run, tmp_path: Path
) -> None:
    command(running_mesh, "runs", "update", "door", "--notes", "# Why", "--tag", "best", "--label", "team=a")
    shown = command(running_mesh, "runs", "show", "door")
    for words in ("Through the door", "e2e, best", "team=a", "# Why", "Python 3", "loss"):
        assert words in shown
    command(running_mesh, "runs", "artifacts", "door", "--download", str(tmp_path))
    assert (tmp_path / "code.py").read_bytes() == Path(__file__).read_bytes()
    command(running_mesh, "runs", "export", "door", "--format", "tensorboard", "--out", str(tmp_path))
    reader: Any = event_accumulator.EventAccumulator(str(tmp_path / "door")).Reload()
    assert [each.step for each in reader.Scalars("loss")] == list(range(20))
    said = json.loads(
        command(running_mesh, "runs", "import", "tensorboard", str(tmp_path / "door"), "--json")
    )
    assert (said["points"], said["problems"]) == (20, [])
    again = json.loads(
        command(running_mesh, "runs", "import", "tensorboard", str(tmp_path / "door"), "--json")
    )
    assert (again["run"], again["points"]) == (said["run"], 0)


def test_plain_http_does_the_same(running_mesh: RunningMesh, settings: Settings, logged: Run) -> None:
    run = f"projects/{PROJECT}/runs/{logged.id}"
    changed = http(
        settings, running_mesh, "PATCH", f"{run}?updateMask=experiment", b'{"experiment": "by curl"}'
    )
    assert (changed.status, changed.json()["experiment"], changed.json()["displayName"]) == (
        200,
        "by curl",
        "Through the door",
    )
    content = b"x" * 1000
    digest = hashlib.sha256(content).hexdigest()
    query = f"artifact.path=by/curl.bin&artifact.sha256={digest}&artifact.sizeBytes=1000"
    assert http(settings, running_mesh, "POST", f"{run}/artifacts:upload?{query}", content).status == 200
    files = http(settings, running_mesh, "GET", f"{run}/artifacts").json()["artifacts"]
    [url] = [each["url"] for each in files if each["path"] == "by/curl.bin"]
    assert url.startswith(running_mesh.url)
    assert urllib3.request("GET", url, retries=False).data == content
    found = http(settings, running_mesh, "GET", f"{run}:downloadMetrics?format=FORMAT_CSV&keys=loss")
    assert found.headers["content-type"] == "text/csv"
    assert len(found.data.splitlines()) == 21


@contextmanager
def watching(mesh: RunningMesh, output: int, *words: str) -> Generator[subprocess.Popen[str]]:
    """`finemesh runs watch`, which writes to a file descriptor; ended with the block at the latest."""
    screen = {"TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
    with subprocess.Popen(
        ["finemesh", "runs", "watch", *words],
        cwd=mesh.folder,
        env={**environment(mesh), **screen},
        stdout=output,
        stderr=output if output >= 0 else None,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(terminal: int, *words: str) -> None:
    """Read what a terminal shows until all words were there."""
    shown = ""
    while not all(word in shown for word in words):
        ready, _, _ = select.select([terminal], [], [], PATIENCE_SECONDS)
        assert ready, f"{words} are not all in {shown!r}"
        shown += os.read(terminal, 65536).decode(errors="replace")


@pytest.fixture
def growing(settings: Settings, tmp_path: Path) -> Generator[Run]:
    """A run with a point of two metrics, which the mesh has."""
    with Run("Seen", settings=settings, folder=tmp_path / "run", system_metrics=False) as run:
        run.log({"train/loss": 0.5, "val/loss": 0.75}, 0)
        with connect(settings) as mesh:

            def there() -> bool:
                try:
                    found = mesh.tracking.GetRun(GetRunRequest(name=f"projects/{PROJECT}/runs/{run.id}"))
                except RpcError:
                    return False
                return len(found.metrics) == 2

            wait_until(there, "the first points")
        yield run


def test_a_run_is_followed_to_its_end_in_a_pipe(running_mesh: RunningMesh, growing: Run) -> None:
    with watching(running_mesh, subprocess.PIPE, growing.id, "--metric", "train/*") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "train/loss  0.5  at step 0\n"
        growing.log({"val/loss": 0.625}, 1)  # which was not asked for
        growing.log({"train/loss": math.nan}, 1)
        assert process.stdout.readline() == "train/loss  nan  at step 1\n"
        growing.finish("CANCELLED", wait_seconds=100)
        assert process.stdout.readlines() == ["CANCELLED\n"]
        assert process.wait() == 1


def test_a_run_is_followed_in_a_terminal_until_the_interrupt(running_mesh: RunningMesh, growing: Run) -> None:
    terminal, output = pty.openpty()
    with watching(running_mesh, output, growing.id) as process:
        os.close(output)
        read_until(terminal, "RUNNING", "train/loss", "val/loss", "0.75")
        growing.log({"val/loss": 0.625}, 1)
        read_until(terminal, "0.625")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 130
    os.close(terminal)


def test_a_run_that_has_ended_is_shown_and_what_is_not_there_is_said(
    running_mesh: RunningMesh, logged: Run
) -> None:
    assert command(running_mesh, "runs", "watch", logged.id) == "loss  0.05  at step 19\nFINISHED\n"
    [ended] = command(running_mesh, "runs", "watch", logged.id, "--json").splitlines()
    assert json.loads(ended)["state"] == "STATE_FINISHED"
    command(running_mesh, "runs", "watch", "nobody", expect=3)
    command(running_mesh, "runs", "curves", logged.id, "--key", "loss", "--over", "los", expect=3)
    command(running_mesh, "runs", "watch", logged.id, "--metric", "los", expect=3)
