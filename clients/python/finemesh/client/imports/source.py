"""A run as another tracker has it, and how it becomes a recording, which is then carried like any other.

Its id follows from where it comes from, and its labels hold a digest of all that was read: importing it again
changes nothing, and what has changed since is refused, not mixed in.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from finemesh.client.recording import Recording
from finemesh.client.run import MAX_KEY_LENGTH, MAX_STEP
from finemesh.client.spool import SpoolWriter
from finemesh.v1.lineage_pb2 import Lineage
from finemesh.v1.run_pb2 import Run as RunMessage
from finemesh.v1.tracking_service_pb2 import CreateRunRequest, FinishRunRequest

SOURCE_LABEL: Final = "import.source"
DIGEST_LABEL: Final = "import.digest"
_BATCH_POINTS: Final = 20_000
_MAX_TIME_US: Final = 253_402_300_800_000_000  # the year 10000
# What Tracking takes of a run; whatever is longer is in the file `import/source.json`.
_MAX_PARAMS: Final = 1_000
_MAX_PARAM_LENGTH: Final = 4_096
_MAX_TAGS: Final = 100
_MAX_TAG_LENGTH: Final = 200
_MAX_NOTES_LENGTH: Final = 65_536


@dataclass(slots=True)
class Column:
    """The points of one metric: steps, values, and times in seconds since 1970, of equal length."""

    steps: list[int] = field(default_factory=list[int])
    values: list[float] = field(default_factory=list[float])
    times: list[float] = field(default_factory=list[float])

    def add(self, step: int, value: float, time: float) -> None:
        self.steps.append(step)
        self.values.append(value)
        self.times.append(time)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a run: its content, or where that is."""

    path: str
    content: bytes | Path
    step: int | None = None


@dataclass(slots=True)
class Source:
    """A run as another tracker has it.

    Attributes:
        kind: the tracker, e.g. `mlflow`.
        identity: what makes it the same run when it is read again.
        start_time: seconds since 1970; 0 if that is not known. So for `end_time`.
        state: FINISHED, FAILED or CANCELLED.
        problems: what was not taken, and why, for people.
        original: all that was read of it but points and files, as JSON values.
    """

    kind: str
    identity: str
    name: str
    experiment: str = ""
    params: dict[str, str] = field(default_factory=dict[str, str])
    tags: list[str] = field(default_factory=list[str])
    notes: str = ""
    parent_run_id: str = ""
    lineage: Lineage = field(default_factory=Lineage)
    start_time: float = 0.0
    end_time: float = 0.0
    state: str = "FINISHED"
    columns: dict[str, Column] = field(default_factory=dict[str, Column])
    files: list[SourceFile] = field(default_factory=list[SourceFile])
    problems: list[str] = field(default_factory=list[str])
    original: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def run_id(self) -> str:
        return run_id_of(self.kind, self.identity)

    def record(self, folder: Path, project: str) -> Recording:
        """Write it as a recording, which ends as the run did; `problems` then say all that was not taken."""
        recording = Recording(folder)
        columns = self._checked()
        request = CreateRunRequest(
            parent=f"projects/{project}", run=self._message(project, columns), run_id=self.run_id
        )
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        request.request_id = f"import-{digest[:40]}"
        recording.begin(request)
        writer = SpoolWriter(recording.spool, "", 1)
        for key, column in columns.items():
            for rows in _slices(len(column.steps)):
                count = len(column.steps[rows])
                times_us = [round(1e6 * time) for time in column.times[rows]]
                writer.append_columns([key], [0] * count, column.steps[rows], column.values[rows], times_us)
        writer.close()
        self._add_files(recording)
        ending = FinishRunRequest(state=f"STATE_{self.state}")  # pyright: ignore[reportArgumentType]
        last = max((max(column.times) for column in columns.values() if column.times), default=0.0)
        ending.end_time.FromMicroseconds(round(1e6 * (self.end_time or last or 1.0)))
        recording.end(ending)
        return recording

    def _message(self, project: str, columns: Mapping[str, Column]) -> RunMessage:
        first = min((min(column.times) for column in columns.values() if column.times), default=0.0)
        run = RunMessage(
            display_name=_printable(self.name, _MAX_TAG_LENGTH),
            labels={SOURCE_LABEL: self.kind, DIGEST_LABEL: self._digest(columns)},
            params=self._fitting_params(),
            tags=self._fitting_tags(),
            notes=self.notes[:_MAX_NOTES_LENGTH],
            experiment=_printable(self.experiment, _MAX_TAG_LENGTH),
            lineage=self.lineage,
        )
        if self.parent_run_id:
            run.parent_run = f"projects/{project}/runs/{self.parent_run_id}"
        if start := self.start_time or first:
            run.start_time.FromMicroseconds(round(1e6 * start))
        return run

    def _checked(self) -> dict[str, Column]:
        """The columns by names, and with the points, that Tracking takes; `problems` name the others."""
        found: dict[str, Column] = {}
        for key, column in self.columns.items():
            name = _metric_name(key)
            if name != key:
                self.problems.append(f"metric {key[:80]!r} is called {name!r} here")
            kept, dropped = Column(), Counter[str]()
            for step, value, time in zip(column.steps, column.values, column.times, strict=True):
                if not 0 <= step <= MAX_STEP:
                    dropped["a step below 0 or above 2^53"] += 1
                elif not (math.isfinite(time) and 0 <= 1e6 * time < _MAX_TIME_US):
                    dropped["a time before 1970 or after 9999"] += 1
                else:
                    kept.add(step, value, time)
            self.problems += [f"{count} points of {name!r} left out: {why}" for why, count in dropped.items()]
            found[name] = kept
        return found

    def _fitting_params(self) -> dict[str, str]:
        fitting = {
            key: value for key, value in self.params.items() if max(len(key), len(value)) <= _MAX_PARAM_LENGTH
        }
        kept = dict(sorted(fitting.items())[:_MAX_PARAMS])
        if len(kept) < len(self.params):
            self.problems.append(
                f"{len(self.params) - len(kept)} parameters are too long or too many: see import/source.json"
            )
        return kept

    def _fitting_tags(self) -> list[str]:
        fitting = [tag for tag in self.tags if 1 <= len(tag) <= _MAX_TAG_LENGTH and tag.isprintable()]
        if len(fitting[:_MAX_TAGS]) < len(self.tags):
            left = len(self.tags) - len(fitting[:_MAX_TAGS])
            self.problems.append(f"{left} tags are too long or too many: see import/source.json")
        return fitting[:_MAX_TAGS]

    def _digest(self, columns: Mapping[str, Column]) -> str:
        digest = hashlib.sha256(json.dumps(self.original, sort_keys=True, default=str).encode())
        for key, column in sorted(columns.items()):
            digest.update(repr((key, column.steps, column.values, column.times)).encode())
        for file in sorted(self.files, key=lambda each: each.path):
            size = len(file.content) if isinstance(file.content, bytes) else file.content.stat().st_size
            digest.update(f"{file.path} {size}".encode())
        return digest.hexdigest()

    def _add_files(self, recording: Recording) -> None:
        original = json.dumps(self.original, indent=1, sort_keys=True, default=str).encode()
        recording.add_bytes(original, "import/source.json", None, "application/json")
        for file in self.files:
            try:
                if isinstance(file.content, bytes):
                    recording.add_bytes(file.content, file.path, file.step)
                else:
                    recording.add_file(file.content, file.path, file.step)
            except OSError as error:
                self.problems.append(f"file {file.path} left out: {error}")


def run_id_of(kind: str, identity: str) -> str:
    """The id here of a run of another tracker."""
    prefix = {"tensorboard": "tb", "mlflow": "ml"}[kind]
    return f"{prefix}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _metric_name(key: str) -> str:
    """`key` as a name that Tracking takes; where it had to be changed, with a digest that keeps it apart."""
    name = _printable(key, MAX_KEY_LENGTH)
    if name == key and name:
        return name
    mark = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[: MAX_KEY_LENGTH - 9] or 'metric'}~{mark}"


def _printable(text: str, length: int) -> str:
    return "".join(char if char.isprintable() else "_" for char in text)[:length]


def _slices(length: int) -> Iterator[slice]:
    return (slice(start, start + _BATCH_POINTS) for start in range(0, length, _BATCH_POINTS))


def counted(counts: Mapping[str, int], what: Sequence[str] = ("left out",)) -> list[str]:
    """Sentences such as `3 histograms left out`."""
    return [f"{count} {kind} {what[0]}" for kind, count in sorted(counts.items())]
