"""Runs of other programs: recorded in a folder, carried to the mesh at once, later, and after kills."""

from __future__ import annotations

import hashlib
import math
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from finemesh.chassis.auth import Role
from finemesh.client import Connection, Run, Settings
from finemesh.client.recording import Recording
from finemesh.client.sync import sync
from finemesh.client.transfer import fetch_page
from finemesh.v1 import run_pb2
from finemesh.v1 import tracking_service_pb2 as pb

from tests.support.servers import NatsServer, S3Server
from tests.support.services import ServiceProcess
from tests.support.tracking import tracking_process

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, nats: NatsServer) -> Generator[ServiceProcess]:
    """A Tracking service with an object store."""
    s3 = S3Server(tmp_path_factory.mktemp("s3"))
    process = tracking_process(tmp_path_factory.mktemp("tracking"), nats)
    process.s3 = s3
    s3.start()
    yield process.start()
    process.stop()
    s3.kill()


@pytest.fixture(scope="module")
def settings(stored: ServiceProcess) -> Settings:
    return Settings(
        server=stored.address, project="p", token=stored.key.mint("me", Role.OPERATOR, ["p"], 600)
    )


@pytest.fixture(scope="module")
def mesh(settings: Settings) -> Generator[Connection]:
    with Connection(settings) as connection:
        yield connection


def points_of(mesh: Connection, run_id: str, key: str) -> list[tuple[int, float]]:
    request = pb.QueryMetricsRequest(
        parent="projects/p", runs=[f"projects/p/runs/{run_id}"], keys=[key], max_points=20_000
    )
    [series] = mesh.tracking.QueryMetrics(request).series
    return list(zip(series.steps, series.values, strict=True))


def got(mesh: Connection, run_id: str) -> run_pb2.Run:
    return mesh.tracking.GetRun(pb.GetRunRequest(name=f"projects/p/runs/{run_id}"))


def test_a_run_is_in_the_mesh_when_its_block_ends(
    mesh: Connection, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with Run("first of all", params={"lr": 1e-4, "layers": [2, 3]}, tags=["a", "b", "a"], notes="# Why",
             experiment="e", parent_run="elder", dataset="scenes", dataset_digest="00ff", seed=7,
             folder=folder, settings=settings, system_metrics=False) as run:  # fmt: skip
        for step in range(50):
            run.log(
                {"train/loss": 1 / (1 + step), "odd name (%)/é": math.nan if step % 2 else math.inf}, step
            )
        run.log_many({"val/loss": np.arange(3.0), "val/n": np.arange(3)}, np.array([10, 30, 20]))
        run.log_images("samples", np.zeros((4, 5, 3), np.uint8), step=3)
        run.log_table("confusion", {"class": ["cat", 'the "dog"'], "count": np.array([3, 4])}, step=3)
        run.log_artifact(Path(__file__), "code/test.py")
        run.update(notes="# Because")
        run.finish(wait_seconds=100)
    assert not folder.exists()
    found = got(mesh, run.id)
    assert found.state == run_pb2.Run.STATE_FINISHED
    assert (found.display_name, list(found.tags), found.notes) == ("first of all", ["a", "b"], "# Because")
    assert found.parent_run == "projects/p/runs/elder"
    assert dict(found.params) == {"lr": "0.0001", "layers": "[2, 3]"}
    assert (found.experiment, found.lineage.dataset, found.lineage.seed) == ("e", "scenes", 7)
    assert found.lineage.environment.libraries["numpy"] == np.__version__
    assert found.start_time.seconds
    assert points_of(mesh, run.id, "train/loss") == [(step, 1 / (1 + step)) for step in range(50)]
    assert points_of(mesh, run.id, "val/loss") == [(10, 0.0), (20, 2.0), (30, 1.0)]
    assert [value for _, value in points_of(mesh, run.id, "odd name (%)/é")][:1] == [math.inf]
    files = mesh.tracking.ListRunArtifacts(pb.ListRunArtifactsRequest(parent=found.name)).artifacts
    by_path = {each.path: fetch_page(each.url) for each in files}
    assert list(by_path) == ["code/test.py", "images/samples/00000003-0.png", "tables/confusion/00000003.csv"]
    assert by_path["code/test.py"] == Path(__file__).read_bytes()
    assert by_path["tables/confusion/00000003.csv"] == b'class,count\r\ncat,3\r\n"the ""dog""",4\r\n'
    assert all(hashlib.sha256(by_path[each.path]).hexdigest() == each.sha256 for each in files)


def test_a_run_without_a_mesh_is_carried_later_and_once(mesh: Connection, tmp_path: Path) -> None:
    run = Run("apart", folder=tmp_path, offline=True)
    run.update(parent_run="elder")
    run.log({"a": 1.0})
    run.log({"a": 2.0})
    run.log_artifact(tmp_path / "run.json")
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError
    first = sync(mesh, tmp_path)
    assert (first.points, first.files, first.ended, first.problems) == (2, 1, True, ())
    again = sync(mesh, tmp_path)
    assert (again.points, again.files, again.ended) == (0, 0, True)
    (tmp_path / "sent.json").unlink()  # as if killed before it could be noted
    assert sync(mesh, tmp_path).problems == ()
    assert points_of(mesh, run.id, "a") == [(0, 1.0), (1, 2.0)]
    found = got(mesh, run.id)
    assert (found.state, found.parent_run) == (run_pb2.Run.STATE_FAILED, "projects/p/runs/elder")


def test_what_a_spool_had_no_room_for_is_told_once_and_counted(mesh: Connection, tmp_path: Path) -> None:
    run = Run("tight", folder=tmp_path, offline=True, system_metrics=False, limit_bytes=100_000)
    for step in range(10_000):
        run.log({"a": float(step)}, step=step)
    run.finish()
    report = sync(mesh, tmp_path)
    left_out = 10_000 - report.points
    [problem] = report.problems
    assert problem.startswith(f"{left_out} points had been left out")
    request = pb.QueryMetricsRequest(parent="projects/p", runs=[report.run], keys=["a"], max_points=10_000)
    [series] = mesh.tracking.QueryMetrics(request).series
    assert (series.total_points, series.thinned_points) == (report.points, left_out)


def test_what_was_logged_before_a_kill_is_kept_and_gone_on_with(
    mesh: Connection, settings: Settings, tmp_path: Path
) -> None:
    program = (
        "import sys; from finemesh.client import Run, Settings\n"
        f"settings = Settings({settings.server!r}, 'p', {settings.token!r})\n"
        f"run = Run('killed', folder={str(tmp_path)!r}, settings=settings)\n"
        "for step in range(10**9):\n"
        "    run.log({'train/loss': 1 / (1 + step)}, step)\n"
        "    print(step, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = 0
        while last < 300:
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in process.stdout if line.endswith("\n"))])
    run_id = Recording(tmp_path).request().run_id
    with Run(folder=tmp_path, settings=settings, system_metrics=False) as run:
        assert run.id == run_id
        run.log({"train/loss": -1.0})
        run.finish(wait_seconds=100)
    found = points_of(mesh, run_id, "train/loss")
    assert found[-1][1] == -1.0
    assert [step for step, _ in found] == list(range(len(found)))
    assert len(found) >= last + 2
    assert got(mesh, run_id).state == run_pb2.Run.STATE_FINISHED
