"""A run as a folder: all that a program says of it, kept until the mesh has it.

    run.json         what the run is: the request that creates it, as JSON
    points.spool     its points, in several files, see `finemesh.client.spool`
    changes.json     fields that were changed since, as JSON of a Run
    artifacts.jsonl  a line per file: a RunArtifact as JSON
    files/SHA256     contents of files that are still to be sent
    end.json         how it ended, once it has
    sent.json        how far it was carried to the mesh

A program writes, and `finemesh.client.sync` carries, also at the same time. What is written counts once it
is whole: JSON files appear by renaming, a torn line at the end of artifacts.jsonl is not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mimetypes
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from google.protobuf import json_format

from finemesh.v1.run_artifact_pb2 import RunArtifact
from finemesh.v1.run_pb2 import Run as RunMessage
from finemesh.v1.tracking_service_pb2 import CreateRunRequest, FinishRunRequest

_CHUNK_BYTES: Final = 1 << 20


class RecordingError(Exception):
    """A folder that holds no run, or that somebody else is using; the message says what to do."""


@dataclass(slots=True)
class Sent:
    """How far a recording was carried.

    Attributes:
        run: its name in the mesh; empty before it was created there.
        sequence: the last batch of points that is durable there.
        artifacts: lines of artifacts.jsonl that were sent.
        changes: digest of the changes that were told.
        ended: whether its end was told.
    """

    run: str = ""
    sequence: int = 0
    artifacts: int = 0
    changes: str = ""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Recording:
    """The folder of one run."""

    folder: Path
    _lock: list[BinaryIO] = field(default_factory=list["BinaryIO"], repr=False)

    @property
    def spool(self) -> Path:
        return self.folder / "points.spool"

    def begin(self, request: CreateRunRequest) -> CreateRunRequest:
        """Make this the folder of a new run, or take up the run that it holds, whose request is returned."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "run.json").exists():
            _write_json(self.folder / "run.json", json_format.MessageToDict(request))
        return self.request()

    def request(self) -> CreateRunRequest:
        """What creates the run. Raises RecordingError."""
        try:
            return json_format.ParseDict(
                json.loads((self.folder / "run.json").read_text()),
                CreateRunRequest(),
                ignore_unknown_fields=True,
            )
        except (OSError, ValueError, json_format.ParseError) as error:
            raise RecordingError(f"{self.folder} is not the folder of a run: {error}") from error

    def hold(self, role: str, *, wait: bool = False) -> None:
        """Be the only one to write (`writer`) or to carry (`sender`) until `release`, or the process ends.

        Raises RecordingError: another process is, and its end is not to be waited for.
        """
        file = (self.folder / f".{role}").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            file.close()
            raise RecordingError(
                f"another process is the {role} of {self.folder}: wait until it has ended"
            ) from error
        self._lock.append(file)

    def release(self) -> None:
        while self._lock:
            self._lock.pop().close()

    # What a program adds

    def change(self, **fields: Any) -> None:
        """Note new values of fields of the run, e.g. `notes`."""
        before = self.changes()
        _write_json(self.folder / "changes.json", {**before, **fields})

    def add_file(self, source: Path, path: str, step: int | None, media_type: str = "") -> RunArtifact:
        """Copy a file and note it under `path`. Raises OSError."""
        target = self.folder / "files"
        target.mkdir(exist_ok=True)
        partial = target / f".{os.getpid()}"
        digest = hashlib.sha256()
        size_bytes = 0
        with source.open("rb") as content, partial.open("wb") as copy:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
                size_bytes += len(chunk)
        partial.replace(target / digest.hexdigest())
        return self._note_file(path, digest.hexdigest(), size_bytes, step, media_type)

    def add_bytes(self, content: bytes, path: str, step: int | None, media_type: str = "") -> RunArtifact:
        """Keep some bytes as a file under `path`. Raises OSError."""
        target = self.folder / "files"
        target.mkdir(exist_ok=True)
        sha256 = hashlib.sha256(content).hexdigest()
        partial = target / f".{os.getpid()}"
        partial.write_bytes(content)
        partial.replace(target / sha256)
        return self._note_file(path, sha256, len(content), step, media_type)

    def _note_file(
        self, path: str, sha256: str, size_bytes: int, step: int | None, media_type: str
    ) -> RunArtifact:
        kind = media_type or mimetypes.guess_type(path)[0] or "application/octet-stream"
        artifact = RunArtifact(path=path, sha256=sha256, size_bytes=size_bytes, media_type=kind, step=step)
        line = json.dumps(json_format.MessageToDict(artifact)) + "\n"
        with (self.folder / "artifacts.jsonl").open("ab") as lines:
            if lines.tell() and not self._ends_whole():
                lines.write(b"\n")  # a writer that was killed left half a line
            lines.write(line.encode())
        return artifact

    def _ends_whole(self) -> bool:
        with (self.folder / "artifacts.jsonl").open("rb") as lines:
            lines.seek(-1, os.SEEK_END)
            return lines.read(1) == b"\n"

    def end(self, request: FinishRunRequest) -> None:
        """Note how the run ended."""
        _write_json(self.folder / "end.json", json_format.MessageToDict(request))

    def reopen(self) -> None:
        """Forget that it ended: its program goes on."""
        (self.folder / "end.json").unlink(missing_ok=True)

    # What carries it

    def changes(self) -> dict[str, Any]:
        return _read_json(self.folder / "changes.json")

    def changed_run(self) -> RunMessage:
        """The changes as a message."""
        return json_format.ParseDict(self.changes(), RunMessage(), ignore_unknown_fields=True)

    def artifacts(self) -> Iterator[RunArtifact | None]:
        """Files in the order they were noted; None for a line that a killed writer left torn."""
        with contextlib.suppress(FileNotFoundError), (self.folder / "artifacts.jsonl").open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                try:
                    yield json_format.ParseDict(json.loads(line), RunArtifact())
                except (ValueError, json_format.ParseError):
                    yield None

    def content(self, artifact: RunArtifact) -> Path:
        return self.folder / "files" / artifact.sha256

    def ending(self) -> FinishRunRequest | None:
        """How it ended; None while it has not."""
        found = _read_json(self.folder / "end.json")
        return json_format.ParseDict(found, FinishRunRequest()) if found else None

    def sent(self) -> Sent:
        """How far it was carried; not at all if that is not known."""
        found = _read_json(self.folder / "sent.json")
        return Sent(**{name: found[name] for name in Sent.__slots__ if name in found})

    def note_sent(self, sent: Sent) -> None:
        _write_json(self.folder / "sent.json", {name: getattr(sent, name) for name in Sent.__slots__})

    def remove(self) -> None:
        """Delete the folder: all of it is elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


def is_recording(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def _write_json(path: Path, document: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(document, indent=1))
    partial.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing if it is not there, or damaged as only a crash of the machine leaves it."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
