"""Metric points on local disk, between the step that measured them and Tracking's word that they are durable.

A spool is an append-only file per attempt. A record is `length, crc32` (two little-endian uint32) and a
serialised `finemesh.v1.MetricBatch`, which carries its own sequence number: whoever sends the file again
sends the same batches under the same numbers, so Tracking recognises every repetition. A record is handed to
the operating system before the next step begins, so a SIGKILL of the writer loses nothing; a torn record at
the end, which only a crash of the machine can leave, is not read, and written over by the next writer.

A spool with a limit goes on in further files, `NAME_000001.spool` and so on, so that what is durable can be
removed while the run still writes; as it fills up it becomes coarser (`finemesh.client.thinning`) and says in
its batches how many points it left out.
"""

from __future__ import annotations

import logging
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from finemesh.client.thinning import Thinning
from finemesh.v1.metric_pb2 import MetricBatch

SUFFIX: Final = ".spool"
_HEADER: Final = struct.Struct("<II")
_MAX_RECORD_BYTES: Final = 16 << 20
# A spool with a limit has about so many files; the first of them can go soonest.
_PARTS: Final = 16
_LOOK_RECORDS: Final = 256
# Records kept in memory while the disk is full: hours of most runs, some tens of megabytes.
MAX_HELD_RECORDS: Final = 100_000

_log = logging.getLogger("finemesh.spool")


class SpoolWriter:
    """Appends the points of one attempt, after what the spool holds already. Used from one thread at a time.

    While the disk takes nothing, records wait in memory: a full disk must not end a run. As these come near
    `MAX_HELD_RECORDS`, or the files near `limit_bytes` (0: no limit), points are left out; batches tell how
    many.
    """

    def __init__(self, path: Path, run: str, attempt: int, limit_bytes: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._limit_bytes = limit_bytes
        self._part_bytes = max(limit_bytes // _PARTS, 1)
        self._look_bytes = self._part_bytes // 4 if limit_bytes else 1 << 62
        parts = parts_of(path) or [path]
        self._part = int(parts[-1].stem.partition("_")[2] or 0)
        self._end, self._sequence = _whole(parts[-1])
        if not self._sequence and len(parts) > 1:
            self._sequence = _whole(parts[-2])[1]
        self._file = _opened(parts[-1])
        self._held: deque[bytes] = deque()
        self._thinning = Thinning()
        self._thinned = 0  # since the last batch
        self._until_look = 1
        self._next_look = 0  # the size of the file, in bytes
        self._run = run
        self._attempt = attempt

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values measured at `step`, now, as one batch. Never raises for a disk that is full."""
        self._look()
        if self._thinning.level:
            kept = self._thinning.kept(values)
            self._thinned += len(values) - len(kept)
            if not kept:
                return
            values = kept
        count = len(values)
        now_us = time.time_ns() // 1000
        self._write(list(values), range(count), [step] * count, values.values(), [now_us] * count)

    def append_columns(
        self,
        keys: Sequence[str],
        key_indices: Sequence[int],
        steps: Sequence[int],
        values: Sequence[float],
        times_us: Sequence[int],
    ) -> None:
        """Write points as one batch: columns as `MetricBatch` has them, at most 200,000 points."""
        self._look()
        if self._thinning.level:
            every = slice(None, None, 2**self._thinning.level)
            self._thinned += len(steps) - len(steps[every])
            key_indices, steps = key_indices[every], steps[every]
            values, times_us = values[every], times_us[every]
        self._write(keys, key_indices, steps, values, times_us)

    def close(self) -> None:
        """Try once more to write what waits, and close the file."""
        if self._thinned:
            self._write([], [], [], [], [])
        self._write_held()
        if self._held:
            _log.error("points_lost", extra={"run": self._run, "batches": len(self._held)})
        os.close(self._file)

    def _write(
        self,
        keys: Sequence[str],
        key_indices: Sequence[int],
        steps: Sequence[int],
        values: Iterable[float],
        times_us: Sequence[int],
    ) -> None:
        batch = MetricBatch(
            run=self._run,
            attempt=self._attempt,
            sequence=self._sequence + 1,
            keys=keys,
            key_indices=key_indices,
            steps=steps,
            values=values,
            times_us=times_us,
            thinned_points=self._thinned,
        )
        payload = batch.SerializeToString()
        self._sequence += 1
        self._thinned = 0
        self._held.append(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload)
        self._write_held()

    def _write_held(self) -> None:
        """Write what waits, each record at the end of the last whole one: a short write is written over."""
        try:
            while self._held:
                written = os.pwrite(self._file, self._held[0], self._end)
                if written < len(self._held[0]):
                    return
                self._end += written
                self._held.popleft()
            if self._limit_bytes and self._end >= self._part_bytes:
                self._begin_part()
        except OSError as error:
            if len(self._held) == 1:
                _log.warning("spool_blocked", extra={"run": self._run, "error": str(error)})

    def _begin_part(self) -> None:
        """Raises OSError; the records then go on in the old one."""
        file = _opened(self._path.with_name(f"{self._path.stem}_{self._part + 1:06d}{SUFFIX}"))
        os.close(self._file)
        self._file, self._end, self._part, self._next_look = file, 0, self._part + 1, 0

    def _look(self) -> None:
        """Now and then, and while records wait, see how full the spool is."""
        self._until_look -= 1
        if self._until_look > 0 and self._end < self._next_look and not self._held:
            return
        self._until_look, self._next_look = _LOOK_RECORDS, self._end + self._look_bytes
        share = len(self._held) / MAX_HELD_RECORDS
        if self._limit_bytes:
            share = max(share, sum(_size(part) for part in parts_of(self._path)) / self._limit_bytes)
        before = self._thinning.level
        self._thinning.fill(share)
        if self._thinning.level > before:
            coarse = {"run": self._run, "keeping_one_of": 2**self._thinning.level}
            _log.warning("spool_coarser", extra=coarse)


class SpoolReader:
    """Reads the whole records of a spool that may still grow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def read(self, limit: int = 1000) -> list[MetricBatch]:
        """The next records, at most `limit`; empty when there are none yet."""
        batches: list[MetricBatch] = []
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                for payload in _records(file.read(_MAX_RECORD_BYTES)):
                    batches.append(MetricBatch.FromString(payload))
                    self.offset += _HEADER.size + len(payload)
                    if len(batches) == limit:
                        break
        except FileNotFoundError:
            pass
        return batches

    def rewind(self) -> None:
        """Begin again with the first record."""
        self.offset = 0


class PartsReader:
    """Reads a spool that goes on in several files, some of which may have been removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = SpoolReader((parts_of(path) or [path])[0])
        self._last = 0
        self.finished: list[tuple[Path, int]] = []
        """Files that have been read to their end, each with the last number in it."""

    def read(self, limit: int = 1000) -> list[MetricBatch]:
        """The next records, at most `limit`; empty when there are none yet."""
        batches = self._reader.read(limit)
        while not batches:
            following = next((part for part in parts_of(self._path) if part > self._reader.path), None)
            if following is None:
                break
            batches = self._reader.read(limit)  # nothing is written to it once there is another
            if not batches:
                self.finished.append((self._reader.path, self._last))
                self._reader = SpoolReader(following)
                batches = self._reader.read(limit)
        if batches:
            self._last = batches[-1].sequence
        return batches


def parts_of(path: Path) -> list[Path]:
    """The files of a spool that are there, in order."""
    return [path] * path.exists() + sorted(path.parent.glob(f"{path.stem}_*{SUFFIX}"))


def merged(batches: Sequence[MetricBatch]) -> MetricBatch:
    """Batches that follow each other as one, which is as good for Tracking and cheaper to carry."""
    keys = list(dict.fromkeys(key for batch in batches for key in batch.keys))
    places = {key: index for index, key in enumerate(keys)}
    whole = MetricBatch(
        run=batches[0].run,
        attempt=batches[0].attempt,
        sequence=batches[-1].sequence,
        keys=keys,
        lengths=[len(batch.steps) for batch in batches],
        thinned_points=sum(batch.thinned_points for batch in batches),
    )
    for batch in batches:
        own = [places[key] for key in batch.keys]
        whole.key_indices.extend([own[index] for index in batch.key_indices])
        whole.steps.extend(batch.steps)
        whole.values.extend(batch.values)
        whole.times_us.extend(batch.times_us)
    return whole


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # durable, and removed meanwhile
        return 0


def _whole(path: Path) -> tuple[int, int]:
    """Where the whole records of a spool end, and the sequence number of the last."""
    if not path.is_file():
        return 0, 0
    reader, last = SpoolReader(path), 0
    while batches := reader.read():
        last = batches[-1].sequence
    return reader.offset, last


def _records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, at)
        payload = data[at + _HEADER.size : at + _HEADER.size + length]
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield payload
        at += _HEADER.size + length
