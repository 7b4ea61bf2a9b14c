"""Runs of other programs: what a training loop of yours measures, in the mesh.

    with finemesh.client.Run("baseline", params={"lr": 1e-4}, tags=["first"]) as run:
        for step, batch in enumerate(batches):
            run.log({"train/loss": loss}, step=step)

A logging call writes to a folder on this disk, a few microseconds, and never waits for the mesh. A process of
its own carries the folder to the mesh at the same time; without a mesh the folder stays, and
`finemesh runs sync FOLDER` carries it later. When this process is killed, all that it had logged is in the
folder, and `Run(folder=...)` goes on.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from finemesh.client.files import (
    FileThread,
    file_name,
    picture_bytes,
    picture_snapshot,
    plain_list,
    table_bytes,
    table_of,
)
from finemesh.client.lineage import lineage_here
from finemesh.client.recording import Recording, RecordingError
from finemesh.client.settings import Settings, SettingsError, load_settings
from finemesh.client.spool import PartsReader, SpoolWriter
from finemesh.v1.run_pb2 import Run as RunMessage
from finemesh.v1.tracking_service_pb2 import CreateRunRequest, FinishRunRequest

DEFAULT_FOLDER: Final = "finemesh-runs"
MAX_KEY_LENGTH: Final = 200
MAX_STEP: Final = 2**53
SYSTEM_SECONDS: Final = 10.0
LIMIT_BYTES: Final = 4 << 30
# How long the end of a run waits for the mesh.
WAIT_SECONDS: Final = 30.0
_BATCH_POINTS: Final = 20_000
_ENDINGS: Final = ("FINISHED", "FAILED", "CANCELLED")
# Of the names of resources, see `finemesh.core.names`.
_ID: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(rf"projects/{_ID.pattern}/runs/{_ID.pattern}")

_log = logging.getLogger("finemesh.run")


class Run:
    """A run that this program logs. Its methods may be called from any thread.

    Args:
        name: a name for people.
        params: flat parameters; values become text.
        tags: words to find it by.
        notes: Markdown.
        experiment: the group that it belongs to.
        parent_run: the run that it goes on from, by its id or full name.
        dataset: what it is trained on, by any name; `dataset_digest` says exactly which state of it.
        seed: what its random numbers began with.
        run_id: its id; made of the name if left out.
        folder: where it is recorded; by default a folder of its own in `finemesh-runs` (or what
            FINEMESH_RUNS_DIR names). A folder that holds a run already is gone on with.
        settings: where the mesh is; found as everywhere if left out.
        offline: record only. Also where no mesh is described.
        system_metrics: log every few seconds what the process and its machine use.
        limit_bytes: how much of its points may wait on disk; as that fills up fewer are kept, which is said.
    """

    def __init__(
        self,
        name: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        notes: str = "",
        experiment: str = "",
        parent_run: str = "",
        dataset: str = "",
        dataset_digest: str = "",
        seed: int | None = None,
        run_id: str = "",
        folder: str | Path | None = None,
        settings: Settings | None = None,
        offline: bool = False,
        system_metrics: bool = True,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        run_id = run_id or _made_up_id(name)
        if not _ID.fullmatch(run_id):
            raise ValueError(f"{run_id!r} is no id: 1 to 63 of a-z, 0-9 and '-', first a letter, last no '-'")
        _check_parent(parent_run)
        if isinstance(tags, str):
            raise TypeError(f"tags is the text {tags!r}: give a list of them")
        home = Path(os.environ.get("FINEMESH_RUNS_DIR", DEFAULT_FOLDER))
        self._recording = Recording(Path(folder) if folder else home / run_id)
        self._recording.folder.mkdir(parents=True, exist_ok=True)
        self._recording.hold("writer")
        if self._recording.sent().ended:
            raise RecordingError(f"{self._recording.folder} holds a run that has ended: begin a new one")
        run = RunMessage(
            display_name=name,
            params={key: _text(value) for key, value in (params or {}).items()},
            tags=tags,
            notes=notes,
            experiment=experiment,
            parent_run=parent_run,
            lineage=lineage_here(dataset=dataset, dataset_digest=dataset_digest, seed=seed),
        )
        run.start_time.FromMicroseconds(time.time_ns() // 1000)
        request = CreateRunRequest(run=run, run_id=run_id, request_id=f"{run_id}-{secrets.token_hex(8)}")
        self.id = self._recording.begin(request).run_id
        self._recording.reopen()
        self._step = _last_step(self._recording.spool)
        self._lock = threading.Lock()
        self._spool = SpoolWriter(self._recording.spool, "", 1, limit_bytes, _check_names)
        self._append = self._spool.append
        self._files = FileThread(self._recording)
        self._ended = threading.Event()
        self._sender = None if offline else self._start_sender(settings)
        if system_metrics:
            threading.Thread(target=self._measure, name="finemesh-system", daemon=True).start()

    @property
    def folder(self) -> Path:
        """Where it is recorded."""
        return self._recording.folder

    # Points

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log values measured now, at `step`; at the step after the last one if left out.

        Raises ValueError or TypeError for what is no metric; never because of the disk or the mesh.
        """
        with self._lock:
            if step is None:
                step = self._step + 1
            elif not 0 <= step <= MAX_STEP:
                raise ValueError(f"{step} is not a step: count from 0, at most to 2^53")
            self._append(step, values)
            self._step = max(self._step, int(step))

    def _refuse(self, *_: object) -> NoReturn:
        raise ValueError(f"run {self.id} has ended: nothing can be logged to it any more")

    def _check_open(self) -> None:
        if self._ended.is_set():
            self._refuse()

    def log_many(self, columns: Mapping[str, Any], steps: Any, times: Any = None) -> None:
        """Log columns of values, one per entry of `steps`: arrays of numpy, or any sequences.

        Args:
            columns: values by metric, each as long as `steps`.
            steps: of the points.
            times: when they were measured, seconds since 1970; now if left out.
        """
        _check_names(columns)
        lists = {key: _numbers(key, column) for key, column in columns.items()}
        all_steps = _numbers("steps", steps, int)
        times_us = None if times is None else _numbers("times", times, lambda moment: round(1e6 * moment))
        for name, column in {**lists, "times": times_us}.items():
            if column is not None and len(column) != len(all_steps):
                raise ValueError(f"{name} has {len(column)} entries, and steps {len(all_steps)}")
        if all_steps and not 0 <= min(all_steps) <= max(all_steps) <= MAX_STEP:
            raise ValueError("a step is negative or above 2^53: count from 0")
        times_us = times_us or [time.time_ns() // 1000] * len(all_steps)
        if times_us and min(times_us) < 0:
            raise ValueError("a time is before 1970: give seconds since then")
        rows = max(1, _BATCH_POINTS // max(1, len(lists)))
        for start in range(0, len(all_steps), rows):
            self._append_rows(lists, all_steps, times_us, slice(start, start + rows))

    def _append_rows(
        self, columns: Mapping[str, list[float]], steps: list[int], times_us: list[int], rows: slice
    ) -> None:
        part, moments = steps[rows], times_us[rows]
        with self._lock:
            self._check_open()
            self._step = max(self._step, *part)
            self._spool.append_columns(
                list(columns),
                [index for index in range(len(columns)) for _ in part],
                part * len(columns),
                [value for column in columns.values() for value in column[rows]],
                moments * len(columns),
            )

    # Files

    def log_images(self, key: str, images: Any, step: int | None = None) -> None:
        """Log a picture or several: arrays, PIL images, bytes or paths of PNG or JPEG files.

        They are copied now and written soon. A picture that cannot be written is named in the program's log.
        """
        self._check_open()
        at = self._step if step is None else step
        many: Iterable[Any] = images if isinstance(images, list | tuple) else [images]
        for index, picture in enumerate(many):
            copy, size_bytes = picture_snapshot(picture)
            path = f"images/{file_name(key)}/{at:08d}-{index}.png"

            def work(copy: Any = copy, path: str = path) -> None:
                content = picture_bytes(copy)
                name = path if content[:4] == b"\x89PNG" else path[:-4] + ".jpg"
                self._recording.add_bytes(content, name, at)

            self._files.add(path, size_bytes, work)

    def log_table(self, key: str, columns: Mapping[str, Any], step: int | None = None) -> None:
        """Log a table by its columns; it is kept as CSV. Raises ValueError: they differ in length."""
        self._check_open()
        at = self._step if step is None else step
        table, path = table_of(columns), f"tables/{file_name(key)}/{at:08d}.csv"
        cells = sum(len(column) for column in table.values())
        self._files.add(
            path, 50 * cells, lambda: self._recording.add_bytes(table_bytes(table), path, at, "text/csv")
        )

    def log_artifact(self, file: str | Path, path: str = "", step: int | None = None) -> None:
        """Log a file, or all files of a folder, under `path`; by default under its name. They are copied
        soon: leave them as they are until then, or until `finish`.
        """
        self._check_open()
        source = Path(file)
        if not source.exists():
            raise ValueError(f"{source}: no such file or folder")
        root = path.strip("/") or source.name
        members = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
        for member in members:
            name = root if member == source else f"{root}/{member.relative_to(source).as_posix()}"

            def work(member: Path = member, name: str = name) -> None:
                self._recording.add_file(member, name, step)

            self._files.add(name, 0, work)

    # What is said of it

    def update(self, **fields: Any) -> None:
        """Change `display_name`, `params`, `tags`, `notes`, `experiment` or `parent_run` of the run."""
        self._check_open()
        allowed = {"display_name", "labels", "params", "tags", "notes", "experiment", "parent_run"}
        if wrong := set(fields) - allowed:
            raise ValueError(
                f"{', '.join(sorted(wrong))} cannot be changed: use {', '.join(sorted(allowed))}"
            )
        _check_parent(fields.get("parent_run", ""))
        if "params" in fields:
            fields["params"] = {key: _text(value) for key, value in fields["params"].items()}
        self._recording.change(**fields)

    # Its end

    def finish(self, state: str = "FINISHED", *, wait_seconds: float = WAIT_SECONDS) -> None:
        """End the run: FINISHED, FAILED or CANCELLED. Waits so long for the mesh to have all of it; what it
        then lacks stays in the folder for `finemesh runs sync`.
        """
        if self._ended.is_set():
            return
        if state not in _ENDINGS:
            raise ValueError(f"{state} is no way to end: use {', '.join(_ENDINGS)}")
        ending = FinishRunRequest(state=f"STATE_{state}")  # pyright: ignore[reportArgumentType]
        self._files.close()
        with self._lock:
            self._ended.set()
            self._spool.close()
            self._append = self._refuse
        ending.end_time.FromMicroseconds(time.time_ns() // 1000)
        self._recording.end(ending)
        self._recording.release()
        if self._sender is None:
            _log.info("run %s is in %s", self.id, self.folder)
            return
        try:
            self._sender.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            self._sender.terminate()
            self._sender.wait()
        if self._sender.stdin:
            self._sender.stdin.close()
        if self._recording.sent().ended and not self._files.lost:
            self._recording.remove()
        else:
            _log.warning("not all of run %s is in the mesh: finemesh runs sync %s", self.id, self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish("FINISHED" if error is None else "FAILED")

    def _start_sender(self, settings: Settings | None) -> subprocess.Popen[bytes] | None:
        """The process that carries the folder to the mesh; None where no mesh is described."""
        try:
            found = settings or load_settings()
        except SettingsError as error:
            _log.warning("run %s is recorded in %s only: %s", self.id, self.folder, error)
            return None
        told = {
            "FINEMESH_SERVER": found.server,
            "FINEMESH_PROJECT": found.project,
            "FINEMESH_TOKEN": found.token,
            "FINEMESH_CA_FILE": found.ca_file,
        }
        command = [sys.executable, "-m", "finemesh.client.sync", str(self.folder)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **told},
            start_new_session=True,  # Ctrl-C ends the loop; the sender sends what it logged
        )

    def _measure(self) -> None:
        from finemesh.client.machine import Sampler

        sampler = Sampler(folder=str(self.folder))
        sampler.sample()
        while not self._ended.wait(SYSTEM_SECONDS):
            values = sampler.sample()
            with self._lock:
                if not self._ended.is_set():
                    self._spool.append(max(self._step, 0), values)


def _made_up_id(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return f"{slug if slug[:1].isalpha() else 'run'}-{secrets.token_hex(4)}".replace("--", "-")


def _check_parent(run: str) -> None:
    """Raises ValueError for what names no run."""
    if run and not (_ID.fullmatch(run) or _NAME.fullmatch(run)):
        raise ValueError(f"parent_run {run!r} names no run: give its id, or projects/PROJECT/runs/ID")


def _check_names(names: Iterable[str]) -> None:
    """Raises TypeError or ValueError for what cannot name a metric."""
    for key in names:
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"{key!r:.80} names no metric: give values by name, such as {{'train/loss': 0.5}}"
            )
        if not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isprintable():
            raise ValueError(f"{key[:80]!r}: a metric's name has 1 to {MAX_KEY_LENGTH} printable characters")


def _numbers(name: str, column: Any, kind: Callable[[Any], Any] = float) -> list[Any]:
    """Raises ValueError that names the column."""
    try:
        return [kind(value) for value in plain_list(column)]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is no column of numbers: {error}") from error


def _text(value: Any) -> str:
    """A parameter as text: JSON for what has parts."""
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _last_step(spool: Path) -> int:
    """The highest step in a spool; -1 if there is none."""
    reader, highest = PartsReader(spool), -1
    while batches := reader.read():
        highest = max([highest, *(step for batch in batches for step in batch.steps)])
    return highest
