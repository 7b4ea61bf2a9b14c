"""Segments: what was committed since the last one, as a Parquet file that stands for itself.

A cut writes the points of `tail`, sorted, to a file beside the database, and moves them on in one transaction
that also counts the segment: to `fresh`, or to `points` if they are many. A file whose number was not counted
belongs to a cut that never was, and is removed; one that was counted stays until the object store has it. So
each point is in the tail or in exactly one segment, whenever the process dies.

Columns are `run`, `metric`, `attempt`, `step`, `time` and `value`. The metadata of the file, under
`finemesh`, is JSON: `marks`, as `[run, attempt, sequence, thinned]`, those that have moved; and `deleted`,
the runs whose points in earlier segments count no more.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finemesh.core.errors import InvalidError
from finemesh.tracking.point_schema import COLUMNS, SORTED
from finemesh.tracking.points import AttemptKey, Mark, PointFile

# What is held in memory while it is sorted and written: about 50 MB.
SLICE_POINTS: Final = 500_000
# So many fresh points are sorted together.
SORT_POINTS: Final = 1_000_000
METADATA: Final = b"finemesh"
_NAME: Final = re.compile(r"points-(\d{12})-(\d{12})\.parquet")

_FORMAT: Final[dict[str, Any]] = {
    "compression": "zstd",
    "use_dictionary": ["run", "metric", "attempt"],
    "column_encoding": {
        "step": "DELTA_BINARY_PACKED",
        "time": "DELTA_BINARY_PACKED",
        "value": "BYTE_STREAM_SPLIT",
    },
}
_COUNT: Final = "SELECT count(*) FROM"
_SLICE: Final = f"SELECT {COLUMNS} FROM tail WHERE rowid >= ? AND rowid < ? ORDER BY {SORTED}"  # noqa: S608
_SORT: Final = f"""
INSERT INTO points SELECT {COLUMNS} FROM fresh ORDER BY {SORTED};
DELETE FROM fresh;
"""  # noqa: S608
_MARKS: Final = "SELECT run, attempt, sequence, thinned FROM marks JOIN runs USING (run_key)"


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """The cuts from number `first` to number `last`, from 1 on."""

    first: int
    last: int

    @property
    def name(self) -> str:
        return f"points-{self.first:012d}-{self.last:012d}.parquet"

    @classmethod
    def parse(cls, name: str) -> Segment | None:
        """The segment whose file has this name; None for any other file."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True, slots=True)
class Contents:
    """What the metadata of a segment say."""

    marks: Mapping[AttemptKey, Mark]
    deleted: Sequence[str]

    def encode(self) -> bytes:
        marks = [[run, attempt, *mark] for (run, attempt), mark in self.marks.items()]
        return json.dumps({"marks": marks, "deleted": list(self.deleted)}).encode()

    @classmethod
    def of(cls, metadata: Mapping[bytes, bytes] | None) -> Contents:
        """Raises InvalidError, reason MALFORMED_SEGMENT."""
        try:
            said = json.loads((metadata or {})[METADATA])
            marks = {(run, attempt): (last, left) for run, attempt, last, left in said["marks"]}
            return cls(marks, said["deleted"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidError(
                f"this Parquet file is no segment of points ({error!r})", reason="MALFORMED_SEGMENT"
            ) from error


class Cutter:
    """Cuts segments of one points file into `folder`. Used from one thread at a time."""

    def __init__(self, file: PointFile, folder: Path) -> None:
        self._file = file
        self._folder = folder
        self._told: Mapping[AttemptKey, Mark] = {}  # what the segments of this process say

    @property
    def folder(self) -> Path:
        return self._folder

    def waiting(self) -> int:
        """Points that no segment holds yet. Raises UnavailableError."""
        with self._file.cursor() as cursor:
            [(count,)] = cursor.execute(f"{_COUNT} tail").fetchall()
            return count

    def owner(self) -> str:
        """What tells this points file from any other. Raises UnavailableError."""
        with self._file.cursor() as cursor:
            [(owner,)] = cursor.execute("SELECT id FROM archive").fetchall()
            return owner

    def pending(self) -> list[Segment]:
        """The segments whose files are still here, after those of cuts that never were have been removed.

        Raises UnavailableError.
        """
        with self._file.moving, self._file.cursor() as cursor:
            last = self._last(cursor)
            found = [Segment.parse(path.name) for path in self._folder.glob("*")]
            for path in self._folder.glob("*"):
                segment = Segment.parse(path.name)
                if segment is None or segment.last > last:
                    path.unlink()
            return sorted(each for each in found if each and each.last <= last)

    def cut(self) -> Segment | None:
        """Make a segment of all that has changed since the last one; None if nothing has.

        Raises UnavailableError.
        """
        with self._file.moving, self._file.cursor() as cursor:
            cursor.begin()
            [(count,)] = cursor.execute(f"{_COUNT} tail").fetchall()
            marks = self._marks(cursor)
            deleted = [run for (run,) in cursor.execute("SELECT run FROM deleted").fetchall()]
            told = {key: mark for key, mark in self._told.items() if key[0] not in deleted}
            contents = Contents(dict(marks.items() - told.items()), deleted)
            if not count and not contents.marks and not deleted:
                return None
            number = self._last(cursor) + 1
            segment = Segment(number, number)
            is_large = count >= SLICE_POINTS  # enough for its slices to be in good order already
            if is_large:
                cursor.execute(_SORT)
            self._write(segment, self._moving(cursor, "points" if is_large else "fresh"), contents)
            cursor.execute("DELETE FROM tail")
            cursor.execute("DELETE FROM deleted")
            cursor.execute("UPDATE archive SET segment = ?", [number])
            cursor.commit()
            self._told = marks
            self._file.note_cut(count)
        if is_large:
            self._file.reclaim()
        return segment

    def _moving(self, cursor: Any, table: str) -> Iterator[pa.Table]:
        """The points of the tail, each slice moved before it is given out; at least one, if empty."""
        names = _names(cursor)
        [(first, last)] = cursor.execute("SELECT coalesce(min(rowid), 0), max(rowid) FROM tail").fetchall()
        for start in range(first, (last or first) + 1, SLICE_POINTS):
            points = cursor.sql(_SLICE, params=[start, start + SLICE_POINTS]).to_arrow_table()
            cursor.register("cut_points", points)
            cursor.execute(f"INSERT INTO {table} SELECT * FROM cut_points")  # noqa: S608
            cursor.unregister("cut_points")
            yield _named(points, names)

    def sort(self, least: int = SORT_POINTS) -> bool:
        """Sort the fresh points in among the others if they are at least so many. Raises UnavailableError."""
        with self._file.moving, self._file.cursor() as cursor:
            cursor.begin()
            [(count,)] = cursor.execute(f"{_COUNT} fresh").fetchall()
            if count < max(least, 1):
                return False
            cursor.execute(_SORT)
            cursor.commit()
            return True

    def path(self, segment: Segment) -> Path:
        return self._folder / segment.name

    def _write(self, segment: Segment, points: Iterable[pa.Table], contents: Contents) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_segment(self.path(segment), points, contents)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @staticmethod
    def _last(cursor: Any) -> int:
        [(last,)] = cursor.execute("SELECT segment FROM archive").fetchall()
        return last

    @staticmethod
    def _marks(cursor: Any) -> dict[AttemptKey, Mark]:
        rows = cursor.execute(_MARKS).fetchall()
        return {(run, attempt): (last, left) for run, attempt, last, left in rows}


def write_segment(path: Path, tables: Iterable[pa.Table], contents: Contents) -> None:
    """Write a segment's file, and see that the disk has it."""
    with path.open("wb") as file:
        writer: pq.ParquetWriter | None = None
        for table in tables:
            if writer is None:
                schema = table.schema.with_metadata({METADATA: contents.encode()})
                writer = pq.ParquetWriter(file, schema, **_FORMAT)
            writer.write_table(table)
        if writer is not None:
            writer.close()
        file.flush()
        os.fsync(file.fileno())


def _names(cursor: Any) -> tuple[dict[int, str], dict[int, str]]:
    runs = dict(cursor.execute("SELECT run_key, run FROM runs").fetchall())
    return runs, dict(cursor.execute("SELECT metric_key, key FROM metrics").fetchall())


def _named(points: pa.Table, names: tuple[dict[int, str], dict[int, str]]) -> pa.Table:
    """With names in place of keys."""
    for column, name, by_key in zip(("run_key", "metric_key"), ("run", "metric"), names, strict=True):
        keys, places = np.unique(points[column].to_numpy(), return_inverse=True)
        words = pa.array([by_key[key] for key in keys.tolist()], pa.string())
        named = pa.DictionaryArray.from_arrays(pa.array(places.astype(np.int32)), words)
        points = points.set_column(points.column_names.index(column), name, named)
    return points
