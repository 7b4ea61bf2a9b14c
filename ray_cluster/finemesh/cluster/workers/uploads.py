"""Checkpoints on their way to the object store, while training goes on."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from finemesh.chassis.logs import get_logger
from finemesh.chassis.objects import DirectoryManifest, FileEntry
from finemesh.cluster.worker import Job
from finemesh.cluster.workers.store import Store
from finemesh.core.errors import FinemeshError, UnavailableError
from finemesh.finetune.checkpoint import weights_digest
from finemesh.finetune.hooks import CheckpointInfo
from finemesh.finetune.manifests import MANIFEST, read_manifest
from finemesh.v1 import training_job_pb2

_COMMIT_POLL_SECONDS: Final = 0.1
# How long the object store may be away before the attempt is given up.
_OUTAGE_SECONDS: Final = 300.0
_RETRY_SECONDS: Final = 1.0
# Checkpoints that wait while one is uploaded: a slow store shall neither fill the disk nor stop the steps.
_WAITING: Final = 2

_log = get_logger("finemesh.worker.uploads")


class Uploader:
    """Uploads checkpoints in order, and waits for their commits at the end.

    Args:
        job: told of what is uploaded.
        store: where to.
        output_uri: checkpoints go below it.
        after_step: nothing up to this step is uploaded: it is committed already, or 0 and no step at all.
    """

    def __init__(self, job: Job, store: Store, output_uri: str, *, after_step: int) -> None:
        self._job = job
        self._store = store
        self._output_uri = output_uri
        self._held = job.scratch / "uploads"
        self._waiting: list[CheckpointInfo] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._uploaded_step = after_step
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def put(self, info: CheckpointInfo) -> None:
        """Hand a checkpoint over; its files are held by links, whatever the loop's rotation removes.

        Never waits: where too many do, an older one is left out, the best one last.
        """
        self.check()
        if info.step <= self._uploaded_step:
            return
        held = self._held / info.path.name
        shutil.copytree(info.path, held, copy_function=os.link)
        with self._changed:
            self._waiting.append(replace(info, path=held))
            if len(self._waiting) > _WAITING:
                left_out = min(self._waiting[:-1], key=lambda each: (each.best, each.step))
                self._waiting.remove(left_out)
                shutil.rmtree(left_out.path)
                _log.warning("checkpoint_left_out", step=left_out.step, waiting=len(self._waiting))
            self._changed.notify()

    def check(self) -> None:
        """Raises the error that ended the uploads, if one did."""
        if self._failure:
            raise self._failure

    def settle(self, step: int) -> None:
        """Wait until the checkpoint of a step, and what was handed over before, is uploaded and committed."""
        while self._uploaded_step < step or self._job.uploaded:
            self.check()
            self._discard_expired()
            time.sleep(_COMMIT_POLL_SECONDS)
        self._discard_expired()

    def close(self) -> None:
        """Let the thread end. What is not uploaded by now, nobody waits for any more."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while info := self._next():
            try:
                self._upload(info)
                self._discard_expired()
            except Exception as error:  # of any kind: the loop waits for this thread
                _log.warning("checkpoint_not_uploaded", step=info.step, error=repr(error))
                self._failure = error
                return

    def _next(self) -> CheckpointInfo | None:
        """The oldest that waits; None when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            return None if self._closing.is_set() else self._waiting.pop(0)

    def _upload(self, info: CheckpointInfo) -> None:
        attempt = self._job.command.attempt
        uri = f"{self._output_uri}/checkpoints/step-{info.step:08d}-a{attempt}"
        weights_sha256 = weights_digest(info.path)
        manifest = _as_written(info)
        self._publish(info.path, uri, manifest)
        shutil.rmtree(info.path)
        self._job.uploaded.append(
            training_job_pb2.Checkpoint(
                step=info.step,
                uri=uri,
                manifest_sha256=info.manifest_digest,
                size_bytes=manifest.total_bytes,
                attempt=attempt,
                metrics=info.metrics,
                best=info.best,
                sample_hash=info.certificate.sample_hash,
                loss_digest=info.certificate.loss_digest,
                weights_sha256=weights_sha256,
            )
        )
        self._uploaded_step = info.step

    def _publish(self, folder: Path, uri: str, manifest: DirectoryManifest) -> None:
        """Upload, and wait out an outage of the store: training goes on meanwhile."""
        given_up_at = time.monotonic() + _OUTAGE_SECONDS
        while True:
            try:
                self._store.put_files(folder, uri, manifest.files)
                return self._store.seal(uri, manifest)
            except UnavailableError:
                if time.monotonic() > given_up_at or self._closing.wait(_RETRY_SECONDS):
                    raise

    def _discard_expired(self) -> None:
        while True:
            try:
                uri = self._job.expired_uris.popleft()
            except IndexError:  # the last one was taken by the thread, or by who waits for it
                return
            try:
                self._store.discard(uri)
            except FinemeshError as error:
                _log.warning("checkpoint_not_deleted", uri=uri, reason=error.reason)


def _as_written(info: CheckpointInfo) -> DirectoryManifest:
    """The files of a checkpoint with the digests that they were written with: reading them all once more
    would take time from the steps, and say less.
    """
    written = read_manifest(info.path)["files"]
    files = [FileEntry(each["path"], each["bytes"], each["sha256"]) for each in written]
    manifest = FileEntry(MANIFEST, (info.path / MANIFEST).stat().st_size, info.manifest_digest)
    return DirectoryManifest(tuple(sorted([*files, manifest])))
