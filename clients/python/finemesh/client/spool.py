"""Metric points on local disk, between the step that measured them and Tracking's word that they are durable.

A spool is an append-only file per attempt. A record is `length, crc32` (two little-endian uint32) and a
serialised `finemesh.v1.MetricBatch`, which carries its own sequence number: whoever sends the file again
sends the same batches under the same numbers, so Tracking recognises every repetition. A record is handed to
the operating system before the next step begins, so a SIGKILL of the writer loses nothing; a torn record at
the end, which only a crash of the machine can leave, is not read, and written over by the next writer.
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

from finemesh.v1.metric_pb2 import MetricBatch

SUFFIX: Final = ".spool"
_HEADER: Final = struct.Struct("<II")
_MAX_RECORD_BYTES: Final = 16 << 20
# Records kept in memory while the disk is full: hours of most runs, some tens of megabytes.
MAX_HELD_RECORDS: Final = 100_000

_log = logging.getLogger("finemesh.spool")


class SpoolWriter:
    """Appends the points of one attempt, after what the file holds already. Used from one thread at a time.

    While the disk takes nothing, records wait in memory: a full disk must not end a run. Beyond
    `MAX_HELD_RECORDS` the newest points are dropped, and their number is logged at the end.
    """

    def __init__(self, path: Path, run: str, attempt: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._end, self._sequence = _whole(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held: deque[bytes] = deque()
        self._dropped = 0
        self._run = run
        self._attempt = attempt

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values measured at `step`, now, as one batch. Never raises for a disk that is full."""
        count = len(values)
        now_us = time.time_ns() // 1000
        self.append_columns(list(values), range(count), [step] * count, values.values(), [now_us] * count)

    def append_columns(
        self,
        keys: Sequence[str],
        key_indices: Sequence[int],
        steps: Sequence[int],
        values: Iterable[float],
        times_us: Sequence[int],
    ) -> None:
        """Write points as one batch: columns as `MetricBatch` has them, at most 200,000 points."""
        if len(self._held) >= MAX_HELD_RECORDS:
            self._dropped += 1
            self._write_held()
            return
        batch = MetricBatch(
            run=self._run,
            attempt=self._attempt,
            sequence=self._sequence + 1,
            keys=keys,
            key_indices=key_indices,
            steps=steps,
            values=values,
            times_us=times_us,
        )
        payload = batch.SerializeToString()
        self._sequence += 1
        self._held.append(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload)
        self._write_held()

    def close(self) -> None:
        """Try once more to write what waits, and close the file."""
        self._write_held()
        if self._held or self._dropped:
            lost = {"run": self._run, "batches": len(self._held) + self._dropped}
            _log.error("points_lost", extra=lost)
        os.close(self._file)

    def _write_held(self) -> None:
        """Write what waits, each record at the end of the last whole one: a short write is written over."""
        try:
            while self._held:
                written = os.pwrite(self._file, self._held[0], self._end)
                if written < len(self._held[0]):
                    return
                self._end += written
                self._held.popleft()
        except OSError as error:
            if len(self._held) == 1:
                _log.warning("spool_blocked", extra={"run": self._run, "error": str(error)})


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


def record_bytes(batch: MetricBatch) -> int:
    """Size of its record in a spool."""
    return _HEADER.size + batch.ByteSize()


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
