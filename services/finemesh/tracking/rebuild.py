"""A points file from nothing but its segments."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finemesh.chassis.objects import ObjectStore
from finemesh.core.errors import NotFoundError, PreconditionError
from finemesh.tracking.archive import OWNER_KEY, PREFIX, counting, stored_segments, tables_of
from finemesh.tracking.domain import Batch
from finemesh.tracking.point_schema import COLUMNS, SORTED
from finemesh.tracking.points import PointFile
from finemesh.tracking.segments import SORT_POINTS, Contents, Segment

_MEMORY_BYTES: Final = 256 << 20
_OWNER_BYTES: Final = 100


async def rebuild(objects: ObjectStore, path: Path) -> int:
    """Make the points file `path` from the segments in the object store, and those that still wait beside it;
    returns how many points it has.

    A file that is there is kept, with `.replaced` at the end of its name.

    Raises:
        NotFoundError: SEGMENTS_NOT_FOUND.
        PreconditionError: SEGMENTS_MISSING.
        UnavailableError: the store is away.
    """
    stored, waiting = await stored_segments(objects), _waiting(path.parent / "segments")
    segments = counting([*stored, *waiting])
    _check(segments)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="rebuilding-") as folder:
        fresh = Path(folder) / path.name
        file = PointFile(fresh, memory_bytes=_MEMORY_BYTES, threads=2)
        try:
            for segment in segments:
                part = waiting.get(segment) or Path(folder) / segment.name
                if segment not in waiting:
                    await objects.get_file(PREFIX + segment.name, part)
                await asyncio.to_thread(_add, file, part)
                if segment not in waiting:
                    part.unlink()
            points = _finish(file, await _owner(objects), segments[-1].last)
        finally:
            file.close()
        _replace(path, fresh)
    return points


def _waiting(folder: Path) -> dict[Segment, Path]:
    """Segments that were cut and not shipped, the last of which a crash may have torn."""
    found: dict[Segment, Path] = {}
    for path in folder.glob("*"):
        segment = Segment.parse(path.name)
        with contextlib.suppress(pa.ArrowInvalid, OSError):
            if segment is not None and pq.read_metadata(path).num_columns:
                found[segment] = path
    return found


async def _owner(objects: ObjectStore) -> str | None:
    """Which points file the segments are of; None if none was shipped."""
    try:
        return (await objects.get_bytes(OWNER_KEY, max_bytes=_OWNER_BYTES)).decode()
    except NotFoundError:
        return None


def _check(segments: Sequence[Segment]) -> None:
    if not segments:
        raise NotFoundError(
            f"there are no segments under {PREFIX}: see that this is the bucket that Tracking wrote to",
            reason="SEGMENTS_NOT_FOUND",
        )
    expected = 1
    for segment in segments:
        if segment.first != expected:
            raise PreconditionError(
                f"the segments from {expected} to {segment.first - 1} are missing under {PREFIX}: restore"
                " them from the versions or the backup of the bucket",
                reason="SEGMENTS_MISSING",
            )
        expected = segment.last + 1


def _replace(path: Path, fresh: Path) -> None:
    for suffix in (".wal", ""):  # without its log first: a log must never meet another file
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(old.with_name(path.name + ".replaced" + suffix))
    fresh.rename(path)


def _add(file: PointFile, part: Path) -> None:
    """The points and marks of one segment."""
    contents = Contents.of(pq.read_metadata(part).metadata)
    for run in contents.deleted:
        file.delete(run)
    for table in tables_of(part):
        file.append(list(_batches(table, contents)))
        _sort(file, least=SORT_POINTS)
    nothing = np.zeros(0, np.int64)
    for (run, attempt), (sequence, left_out) in contents.marks.items():
        more = left_out - file.thinned(run, attempt)
        empty = Batch(run, attempt, sequence, (), nothing, nothing, nothing.astype(float), nothing, (), more)
        file.append([empty])


def _batches(table: pa.Table, contents: Contents) -> Iterator[Batch]:
    """The points of each attempt as if they came in one batch, the last of those that they came in."""
    run, metric = (table[name].chunk(0) for name in ("run", "metric"))
    columns = {name: table[name].to_numpy() for name in ("attempt", "step", "time", "value")}
    keys, runs = tuple(metric.dictionary.to_pylist()), run.dictionary.to_pylist()
    places = run.indices.to_numpy().astype(np.int64) << 16 | columns["attempt"]
    for place in np.unique(places).tolist():
        chosen = np.flatnonzero(places == place)
        name, attempt = runs[place >> 16], place & 0xFFFF
        yield Batch(
            run=name,
            attempt=attempt,
            sequence=contents.marks[name, attempt][0],
            keys=keys,
            key_indices=metric.indices.to_numpy()[chosen].astype(np.int64),
            steps=columns["step"][chosen],
            values=columns["value"][chosen],
            times_us=columns["time"][chosen].view(np.int64),
        )


def _sort(file: PointFile, least: int) -> None:
    with file.cursor() as cursor:
        cursor.begin()
        [(count,)] = cursor.execute("SELECT count(*) FROM tail").fetchall()
        if count >= least:
            cursor.execute(f"INSERT INTO points SELECT {COLUMNS} FROM tail ORDER BY {SORTED}")  # noqa: S608
            cursor.execute("DELETE FROM tail")
            cursor.commit()


def _finish(file: PointFile, owner: str | None, number: int) -> int:
    """Go on where the segments end; returns how many points there are."""
    _sort(file, least=1)
    with file.cursor() as cursor:
        cursor.execute("DELETE FROM deleted")
        cursor.execute("UPDATE archive SET id = coalesce(?, id), segment = ?", [owner, number])
        [(count,)] = cursor.execute("SELECT count(*) FROM everything").fetchall()
        return count
