"""Runs of other programs through the gateway: by the Python client, the command line, and plain HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import urllib3
from finemesh.client import Run, Settings, load_settings
from tensorboard.backend.event_processing import event_accumulator

from tests.e2e.conftest import RunningMesh
from tests.support.servers import PATIENCE_SECONDS

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


def command(mesh: RunningMesh, *words: str, expect: int = 0) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "HOME": str(mesh.folder), "LC_ALL": "C.UTF-8", "FINEMESH_PROJECT": PROJECT}
    done = subprocess.run(
        ["finemesh", *words], cwd=mesh.folder, env=environ, capture_output=True, text=True, check=False
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
