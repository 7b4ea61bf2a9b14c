"""Checkpoints on their way to a slow object store: training never waits, the disk never fills."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from finemesh.chassis.objects import DirectoryManifest, FileEntry
from finemesh.cluster.config import Site
from finemesh.cluster.worker import Job
from finemesh.cluster.workers.store import Store
from finemesh.cluster.workers.uploads import Uploader
from finemesh.core.errors import PreconditionError
from finemesh.finetune.checkpoint import FULL_WEIGHTS
from finemesh.finetune.hooks import Certificate, CheckpointInfo
from finemesh.v1 import attempt_pb2, training_job_pb2

from tests.support.servers import PATIENCE_SECONDS


class SlowStore:
    """Takes one folder for each time that it is let."""

    def __init__(self) -> None:
        self.let, self.begun = threading.Semaphore(0), threading.Semaphore(0)
        self.fault: Exception | None = None
        self.sealed: list[DirectoryManifest] = []

    def put_files(self, folder: Path, uri: str, files: Sequence[FileEntry]) -> None:
        self.begun.release()
        assert self.let.acquire(timeout=PATIENCE_SECONDS)
        if self.fault:
            raise self.fault
        assert (folder / "manifest.json").is_file()

    def seal(self, uri: str, manifest: DirectoryManifest) -> None:
        self.sealed.append(manifest)


class Told(deque[training_job_pb2.Checkpoint]):
    """What is uploaded; one may wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.more = threading.Semaphore(0)

    def append(self, x: training_job_pb2.Checkpoint) -> None:
        super().append(x)
        self.more.release()


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    site = Site(cluster="c", data_dir=tmp_path, addresses={}, s3=cast("Any", None))
    return Job(attempt_pb2.Command(attempt=1), site, tmp_path / "scratch", uploaded=Told())


@pytest.fixture
def uploader(job: Job, store: SlowStore) -> Generator[Uploader]:
    uploader = Uploader(job, cast("Store", store), "s3://bucket/job", after_step=0)
    yield uploader
    store.let.release(100)
    uploader.close()


def checkpoint(root: Path, step: int, *, best: bool = False) -> CheckpointInfo:
    folder = root / f"step-{step:08d}"
    folder.mkdir()
    files = [{"path": FULL_WEIGHTS, "bytes": 0, "sha256": f"weights {step}"}]
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    return CheckpointInfo(folder, step, {}, "digest", Certificate(step, "samples", "losses"), best)


def test_a_slow_store_gets_the_last_and_the_best(
    uploader: Uploader, store: SlowStore, job: Job, tmp_path: Path
) -> None:
    uploader.put(checkpoint(tmp_path, 1))
    assert store.begun.acquire(timeout=PATIENCE_SECONDS)  # it is on its way when the others come
    for step in range(2, 9):
        uploader.put(checkpoint(tmp_path, step, best=step == 3))
    assert sorted(each.name[-1] for each in (job.scratch / "uploads").iterdir()) == ["1", "3", "8"]
    store.let.release(3)
    assert all(cast("Told", job.uploaded).more.acquire(timeout=PATIENCE_SECONDS) for _ in range(3))
    assert [(each.step, each.best, each.weights_sha256) for each in job.uploaded] == [
        (1, False, "weights 1"),
        (3, True, "weights 3"),
        (8, False, "weights 8"),
    ]
    first = {file.path: file.sha256 for file in store.sealed[0].files}  # as it was written, not read again
    assert first == {"manifest.json": "digest", FULL_WEIGHTS: "weights 1"}


def test_what_an_upload_raises_is_raised_to_the_training(
    uploader: Uploader, store: SlowStore, tmp_path: Path
) -> None:
    store.fault = PreconditionError("the bucket is gone", reason="GONE")
    uploader.put(last := checkpoint(tmp_path, 1))
    store.let.release()
    with pytest.raises(PreconditionError, match="gone"):
        uploader.settle(last.step)
    with pytest.raises(PreconditionError, match="gone"):
        uploader.put(checkpoint(tmp_path, 2))


def test_a_run_that_took_no_step_uploads_nothing(uploader: Uploader, job: Job, tmp_path: Path) -> None:
    uploader.put(none := checkpoint(tmp_path, 0))
    uploader.settle(none.step)
    assert not job.uploaded
