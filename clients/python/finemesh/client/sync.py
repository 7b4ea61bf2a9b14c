"""Carries runs that were recorded in folders to the mesh: at once, later, again.

Doing it twice changes nothing: the run is created under one request, batches of points carry their numbers,
files go by their SHA-256. What is durable there is noted in the folder, so that a killed sync goes on where
it was; were the note lost, it would only take longer.

As a program, `python -m finemesh.client.sync FOLDER` follows a run while it is being recorded: it ends when
the run has ended and all of it is carried, or some time after the program that records is gone (its stdin
ends).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from finemesh.client.carrier import Carrier
from finemesh.client.connection import Connection, connect
from finemesh.client.errors import RpcError
from finemesh.client.recording import Recording, RecordingError, Sent
from finemesh.client.settings import SettingsError
from finemesh.v1.metric_pb2 import MetricBatch
from finemesh.v1.run_artifact_pb2 import RunArtifact
from finemesh.v1.tracking_service_pb2 import (
    FinishRunRequest,
    GetRunRequest,
    LogMetricBatchRequest,
    UpdateRunRequest,
    UploadRunArtifactRequest,
)

_POLL_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 2.0
# How long a program that follows a run goes on trying after the run's own program is gone.
_AFTER_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 60.0
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """What a sync did: the run, points and files that were sent, and whether the run's end was told."""

    run: str
    points: int
    files: int
    ended: bool
    problems: tuple[str, ...] = ()


class Sync:
    """One folder on its way to the mesh. Raises RpcError when the mesh refuses or does not answer."""

    def __init__(self, connection: Connection, recording: Recording) -> None:
        self._connection = connection
        self._tracking = connection.tracking
        self._recording = recording
        self._sent = recording.sent()
        self._carrier: Carrier | None = None
        self._points = 0
        self._files = 0
        self._left_out = 0
        self._problems: list[str] = []

    def once(self, *, complete: bool = True) -> Report:
        """Carry what is there. With `complete`, the end of the run as well, if it has ended."""
        self._create()
        if self._sent.ended:
            return self.report()
        ending = self._recording.ending() if complete else None  # before the rest, which is then all of it
        self._send_points()
        self._send_artifacts()
        self._send_changes()
        if ending is not None and not self._sent.ended:
            self._finish(ending)
        return self.report()

    def report(self) -> Report:
        sent, problems = self._sent, list(self._problems)
        if self._left_out:
            problems.append(f"{self._left_out} points had been left out: the disk, or limit_bytes, was full")
        return Report(sent.run, self._points, self._files, sent.ended, tuple(problems))

    def _create(self) -> None:
        request = self._recording.request()
        request.parent = self._connection.parent if not request.parent else request.parent
        request.run.parent_run = self._full(request.run.parent_run)
        name = f"{request.parent}/runs/{request.run_id}"
        if self._sent.run and self._sent.run != name:
            self._sent = Sent()
        if not self._sent.run:
            run = self._tracking.CreateRun(request, timeout=_CALL_SECONDS)
            ending = self._recording.ending()
            # Its end is told last: where it was told, all of it was, and only the note of that was lost.
            ended = ending is not None and run.HasField("end_time") and run.end_time == ending.end_time
            self._sent.run, self._sent.ended = run.name, ended
            self._note()

    def _send_points(self) -> None:
        carrier = self._carrier or Carrier(self._recording.spool, self._sent.sequence)
        self._carrier = None  # what fails begins anew
        try:
            while batches := carrier.waiting():
                for batch in batches:
                    self._send_batch(carrier, batch)
        except RpcError as error:
            durable = int(error.metadata.get("durable_sequence", self._sent.sequence))
            if error.reason != "SEQUENCE_GAP" or durable >= self._sent.sequence:
                raise
            # The mesh knows less than is noted here: it was restored, or is another one.
            self._sent.sequence = durable
            self._send_points()
            return
        self._carrier = carrier

    def _send_batch(self, carrier: Carrier, batch: MetricBatch) -> None:
        batch.run = self._sent.run
        durable = self._log(batch)
        self._points += len(batch.steps)
        self._left_out += batch.thinned_points
        self._sent.sequence = durable
        self._note()
        carrier.acknowledge(durable)

    def _log(self, batch: MetricBatch) -> int:
        request = LogMetricBatchRequest(batch=batch)
        return self._tracking.LogMetricBatch(request, timeout=_CALL_SECONDS).durable_sequence

    def _send_artifacts(self) -> None:
        for index, artifact in enumerate(self._recording.artifacts()):
            if index < self._sent.artifacts:
                continue
            if artifact is None:
                self._problems.append(f"line {index + 1} of artifacts.jsonl is torn: that file is not there")
            else:
                self._send_artifact(artifact)
            self._sent.artifacts = index + 1
            self._note()

    def _send_artifact(self, artifact: RunArtifact) -> None:
        """Name it; send its bytes only if the project does not have them."""
        first = UploadRunArtifactRequest(run=self._sent.run, artifact=artifact)
        content = self._recording.content(artifact)
        try:
            self._tracking.UploadRunArtifact(iter([first]))
        except RpcError as error:
            if error.reason != "ARTIFACT_CONTENT_MISSING":
                raise
            if not content.is_file():
                self._problems.append(f"{artifact.path}: its content is no longer in {content.parent}")
                return
            self._tracking.UploadRunArtifact(_messages(first, content))
        self._files += 1
        content.unlink(missing_ok=True)  # the same content once more is known by then

    def _send_changes(self) -> None:
        changes = self._recording.changes()
        digest = hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest() if changes else ""
        if digest == self._sent.changes:
            return
        run = self._recording.changed_run()
        run.name, run.parent_run = self._sent.run, self._full(run.parent_run)
        request = UpdateRunRequest(run=run)
        request.update_mask.paths.extend(sorted(changes))
        self._tracking.UpdateRun(request, timeout=_CALL_SECONDS)
        self._sent.changes = digest
        self._note()

    def _full(self, run: str) -> str:
        """The name of a run that the program may have named by its id; its project is known only here."""
        return run and self._connection.name("runs", run)

    def _finish(self, ending: FinishRunRequest) -> None:
        ending.name = self._sent.run
        try:
            self._tracking.FinishRun(ending, timeout=_CALL_SECONDS)
        except RpcError as error:
            if error.reason != "RUN_ENDED":
                raise
            state = self._tracking.GetRun(GetRunRequest(name=self._sent.run)).state
            if state != (ending.state or state):
                self._problems.append("somebody else has ended the run, in another state")
        self._sent.ended = True
        self._note()

    def _note(self) -> None:
        self._recording.note_sent(self._sent)


def sync(connection: Connection, folder: Path) -> Report:
    """Carry what a folder holds. Raises RecordingError, RpcError."""
    recording = Recording(folder)
    recording.request()
    recording.hold("sender")
    try:
        return Sync(connection, recording).once()
    finally:
        recording.release()


def follow(connection: Connection, folder: Path, gone: Callable[[], bool]) -> bool:
    """Carry a run while it is being recorded, through outages. Whether all of it, with its end, is there.

    Gives up a while after `gone()`, and when the mesh refuses the run. Raises RecordingError, RpcError.
    """
    recording = Recording(folder)
    recording.hold("sender", wait=True)  # that of a program that was killed may still be at it
    try:
        carrier, give_up = Sync(connection, recording), float("inf")
        while True:
            last = gone()  # before looking: what was written before is then surely seen
            if last and give_up == float("inf"):
                give_up = time.monotonic() + _AFTER_SECONDS
            pause = _POLL_SECONDS
            try:
                if carrier.once().ended or last:
                    return carrier.report().ended
            except RpcError as error:
                if error.code not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                    raise
                if time.monotonic() > give_up:
                    return False
                pause = _RETRY_SECONDS
            time.sleep(pause)
    finally:
        recording.release()


def _messages(first: UploadRunArtifactRequest, content: Path) -> Iterator[UploadRunArtifactRequest]:
    yield first
    with content.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            message = UploadRunArtifactRequest()
            message.chunk.data = data
            yield message


def main() -> None:
    """Follow the run of the folder that is named until its program is gone."""
    gone = threading.Event()

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        gone.set()

    threading.Thread(target=wait, daemon=True).start()
    with contextlib.suppress(AttributeError, OSError):  # a wake-up of it shall not interrupt a step
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        with connect() as connection:
            done = follow(connection, Path(sys.argv[1]), gone.is_set)
    except (RpcError, RecordingError, SettingsError) as error:
        sys.exit(f"the run in {sys.argv[1]} is not carried to the mesh: {error}")
    sys.exit(0 if done else 1)


if __name__ == "__main__":
    main()
