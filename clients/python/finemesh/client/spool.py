"""Metric points on local disk, between the step that measured them and Tracking's word that they are durable.

A spool is an append-only file per attempt, of numbered records: whoever sends the file again sends the same
batches under the same numbers, so Tracking recognises every repetition. Little-endian, there are three kinds:

    batch   length, crc32 (uint32), and so many bytes: a serialised `finemesh.v1.MetricBatch`
    names   the same with the number 0 and without points: what the rows that refer to it have in common
    row     2^31 + n (uint32), where in the file its names are (uint64), number, step, time in ns (int64),
            n values (double), crc32 of all this (uint32)

A step's values are a row; batches are what comes in columns, is thinned, or waits for a full disk. A record
is in the operating system's hands before the next step begins, so a SIGKILL of the writer loses nothing;
what it left torn at the end is not read, and cut off by the next writer. Zeros follow the last record while
its writer lives, see `finemesh.client.growing_file`.

A spool with a limit goes on in further files, `NAME_000001.spool` and so on, so that what is durable can be
removed while the run still writes; as it fills up it becomes coarser (`finemesh.client.thinning`) and says in
its batches how many points it left out.
"""

from __future__ import annotations

import logging
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from finemesh.client.growing_file import GrowingFile
from finemesh.client.thinning import Thinning
from finemesh.v1.metric_pb2 import MetricBatch

SUFFIX: Final = ".spool"
_HEADER: Final = struct.Struct("<II")
_ROW: Final = struct.Struct("<IQqqq")
_IS_ROW: Final = 1 << 31
_CRC_BYTES: Final = 4
_MAX_RECORD_BYTES: Final = 16 << 20
_READ_BYTES: Final = 1 << 16
# A spool with a limit has about so many files; the first of them can go soonest.
_PARTS: Final = 16
_LOOK_RECORDS: Final = 256
_MAX_KINDS: Final = 1000
# Records kept in memory while the disk is full: hours of most runs, some tens of megabytes.
MAX_HELD_RECORDS: Final = 100_000

_log = logging.getLogger("finemesh.spool")


class SpoolWriter:
    """Appends the points of one attempt, after what the spool holds already. Used from one thread at a time.

    While the disk takes nothing, records wait in memory: a full disk must not end a run. As these come near
    `MAX_HELD_RECORDS`, or the files near `limit_bytes` (0: no limit), points are left out; batches tell how
    many. `check` sees names before they are first written, and raises for those that may not be.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        attempt: int,
        limit_bytes: int = 0,
        check: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._limit_bytes = limit_bytes
        self._part_bytes = max(limit_bytes // _PARTS, 1) if limit_bytes else 1 << 62
        parts = parts_of(path) or [path]
        self._part = int(parts[-1].stem.partition("_")[2] or 0)
        end, self._sequence = _whole(parts[-1])
        if not self._sequence and len(parts) > 1:
            self._sequence = _whole(parts[-2])[1]
        self._file = GrowingFile(parts[-1], end, self._part_bytes)
        # By names: what packs a row, its first two fields, its size. Empty while rows go another way.
        self._rows: dict[tuple[str, ...], tuple[Callable[..., bytes], int, int, int]] = {}
        self._held: deque[bytes] = deque()
        self._thinning = Thinning()
        self._thinned = 0  # since the last batch
        self._until_look = 1
        self._next_look = 0  # the size of the file, in bytes
        self._run = run
        self._attempt = attempt
        self._check = check

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values measured at `step`, now. Never raises for a disk that is full.

        Raises TypeError for what is no number.
        """
        # Few operations: after a step each finds its code and data gone from the processor's caches.
        file, row = self._file, self._rows.get(tuple(values))
        if row is None or file.end + row[3] > file.ready:
            self._append_slowly(step, values)
            return
        pack, mark, names, size = row
        number = self._sequence + 1
        try:
            payload = pack(mark, names, number, step, time.time_ns(), *values.values())
        except struct.error:
            raise TypeError(_wrong(step, values)) from None
        file.put(payload + zlib.crc32(payload).to_bytes(_CRC_BYTES, "little"))
        file.end += size
        self._sequence = number

    def _append_slowly(self, step: int, values: Mapping[str, float]) -> None:
        """As a row if it can be made ready, as a batch otherwise."""
        self._check(values)
        if not hasattr(step, "__index__"):
            raise TypeError(_wrong(step, values))
        self._look()
        if not self._thinning.level and not self._held and self._make_ready(tuple(values)):
            self.append(step, values)
            return
        if self._thinning.level:
            kept = self._thinning.kept(values)
            self._thinned += len(values) - len(kept)
            if not kept:
                return
            values = kept
        count = len(values)
        now_us = time.time_ns() // 1000
        self._write(list(values), range(count), [int(step)] * count, values.values(), [now_us] * count)

    def _make_ready(self, keys: tuple[str, ...]) -> bool:
        """Whether the next row with these names can be put; its names are noted where they were not."""
        names = MetricBatch(run=self._run, attempt=self._attempt, keys=keys, key_indices=range(len(keys)))
        record = _record(names.SerializeToString())
        pack = struct.Struct(f"{_ROW.format}{len(keys)}d")
        size = pack.size + _CRC_BYTES
        try:
            if self._file.end + len(record) + size > self._part_bytes and self._file.end:
                self._begin_part()
        except OSError:
            return False
        if not self._file.make_ready(len(record) + size):
            return False
        if keys not in self._rows:
            if len(self._rows) == _MAX_KINDS:
                self._rows.clear()
            self._rows[keys] = pack.pack, _IS_ROW + len(keys), self._file.end, size
            self._file.put(record)
            self._file.end += len(record)
        return True

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
        self._file.close()

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
        self._held.append(_record(batch.SerializeToString()))
        self._sequence += 1
        self._thinned = 0
        self._write_held()

    def _write_held(self) -> None:
        """Write what waits, each record at the end of the last whole one."""
        try:
            while self._held:
                if not self._file.write(self._held[0]):
                    return
                self._held.popleft()
            if self._file.end >= self._part_bytes:
                self._begin_part()
        except OSError as error:
            if len(self._held) == 1:
                _log.warning("spool_blocked", extra={"run": self._run, "error": str(error)})
        finally:
            if self._held:
                self._rows.clear()

    def _begin_part(self) -> None:
        """Raises OSError; the records then go on in the old one."""
        path = self._path.with_name(f"{self._path.stem}_{self._part + 1:06d}{SUFFIX}")
        file = GrowingFile(path, 0, self._part_bytes)
        self._file.close()
        self._file, self._part, self._next_look = file, self._part + 1, 0
        self._rows.clear()

    def _look(self) -> None:
        """Now and then, and while records wait, see how full the spool is."""
        self._until_look -= 1
        if self._until_look > 0 and self._file.end < self._next_look and not self._held:
            return
        self._until_look, self._next_look = _LOOK_RECORDS, self._file.end + self._part_bytes // 4
        share = len(self._held) / MAX_HELD_RECORDS
        if self._limit_bytes:
            others = sum(_size(part) for part in parts_of(self._path)[:-1])
            share = max(share, (others + self._file.end) / self._limit_bytes)
        before = self._thinning.level
        self._thinning.fill(share)
        if self._thinning.level:
            self._rows.clear()
        if self._thinning.level > before:
            coarse = {"run": self._run, "keeping_one_of": 2**self._thinning.level}
            _log.warning("spool_coarser", extra=coarse)


class SpoolReader:
    """Reads the whole records of a spool that may still grow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self._names: dict[int, MetricBatch] = {}

    def read(self, limit: int = 1000) -> list[MetricBatch]:
        """The next batches, at most `limit`; empty when there are none yet."""
        batches: list[MetricBatch] = []
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                for record in _records(file):
                    batch = self._batch(record)
                    if not batch.sequence:
                        self._names[self.offset] = batch
                    else:
                        batches.append(batch)
                    self.offset += len(record)
                    if len(batches) == limit:
                        break
        except FileNotFoundError:
            pass
        return batches

    def _batch(self, record: bytes) -> MetricBatch:
        mark, names, number, step, time_ns = _ROW.unpack_from(record.ljust(_ROW.size))
        if mark < _IS_ROW:
            return MetricBatch.FromString(record[_HEADER.size :])
        batch, count = MetricBatch(), mark - _IS_ROW
        batch.CopyFrom(self._names[names])
        batch.sequence = number
        batch.steps.extend([step] * count)
        batch.values.extend(struct.unpack_from(f"<{count}d", record, _ROW.size))
        batch.times_us.extend([time_ns // 1000] * count)
        return batch


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
    thinned = [batch.thinned_points for batch in batches]
    whole = MetricBatch(
        run=batches[0].run,
        attempt=batches[0].attempt,
        sequence=batches[-1].sequence,
        keys=keys,
        lengths=[len(batch.steps) for batch in batches],
        thinned_points=sum(thinned),
        thinned_counts=thinned if any(thinned) else (),
    )
    for batch in batches:
        own = [places[key] for key in batch.keys]
        whole.key_indices.extend([own[index] for index in batch.key_indices])
        whole.steps.extend(batch.steps)
        whole.values.extend(batch.values)
        whole.times_us.extend(batch.times_us)
    return whole


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


def _record(payload: bytes) -> bytes:
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def _records(file: BinaryIO) -> Iterator[bytes]:
    """The whole ones that follow each other from where the file is."""
    data, at = file.read(_READ_BYTES), 0
    while True:
        record = data[at : at + _size_of(data, at)]
        if len(record) < _size_of(data, at) <= _MAX_RECORD_BYTES:
            more = file.read(max(_READ_BYTES, _size_of(data, at)))
            if not more:
                return
            data, at = data[at:] + more, 0
        elif _is_whole(record):
            yield record
            at += len(record)
        else:
            return


def _size_of(data: bytes, at: int) -> int:
    """Of the record that begins there, in bytes."""
    first = int.from_bytes(data[at : at + 4], "little")
    return _HEADER.size + first if first < _IS_ROW else _ROW.size + 8 * (first - _IS_ROW) + _CRC_BYTES


def _is_whole(record: bytes) -> bool:
    if int.from_bytes(record[:4], "little") >= _IS_ROW:
        return zlib.crc32(record[:-_CRC_BYTES]) == int.from_bytes(record[-_CRC_BYTES:], "little")
    payload = record[_HEADER.size :]
    return bool(payload) and record == _record(payload)


def _wrong(step: int, values: Mapping[str, float]) -> str:
    """What of a row cannot be packed."""
    for key, value in values.items():
        try:
            float(value)
        except (TypeError, ValueError, OverflowError):
            return f"{key}: a metric's value is a number, not {value!r:.80}"
        if isinstance(value, str):
            return f"{key}: a metric's value is a number, not the text {value!r:.80}"
    return f"step {step!r} is no integer: give int(step)"
