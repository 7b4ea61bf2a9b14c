"""The segments in the object store: shipped as they are cut, merged as they become many.

Keys are `tracking/points/` and the name of the segment, which tells the cuts that it holds. A merged segment
is there before those it was made of go, so a crash in between leaves cuts twice; the widest segment of each
cut is the one that counts. `tracking/points/owner` names the points file that they are of: a second file,
made where the first was lost, must not mix its segments in.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finemesh.chassis.objects import ObjectStore
from finemesh.core.errors import PreconditionError
from finemesh.tracking.points import AttemptKey, Mark
from finemesh.tracking.segments import Contents, Cutter, Segment, write_segment

PREFIX: Final = "tracking/points/"
OWNER_KEY: Final = f"{PREFIX}owner"
MERGED_AT_ONCE: Final = 8
MAX_MERGED_BYTES: Final = 512 << 20
_GROUP_POINTS: Final = 200_000
_OWNER_BYTES: Final = 100


class Archive:
    """Ships what a cutter has cut. Belongs to one event loop."""

    def __init__(self, objects: ObjectStore, cutter: Cutter) -> None:
        self._objects = objects
        self._cutter = cutter
        self._owned = False

    async def ship(self) -> int:
        """Bring every segment that is still here to the object store; how many they were.

        Raises:
            UnavailableError: the store or the points file is away.
            PreconditionError: SEGMENTS_OF_ANOTHER_FILE.
        """
        pending = await asyncio.to_thread(self._cutter.pending)
        if pending and not self._owned:
            await self._own()
        for segment in pending:
            path = self._cutter.path(segment)
            await self._objects.put_file(PREFIX + segment.name, path)
            path.unlink()
        return len(pending)

    async def merge(self) -> Segment | None:
        """Make one of several small segments, if there are enough; None if not. Raises what `ship` raises."""
        stored = await stored_segments(self._objects)
        counted = counting(stored)
        for segment in stored.keys() - set(counted):
            await self._objects.delete(PREFIX + segment.name)
        group = due([(segment, stored[segment]) for segment in counted])
        if not group:
            return None
        merged = Segment(group[0].first, group[-1].last)
        with tempfile.TemporaryDirectory(dir=self._cutter.folder.parent, prefix="merging-") as folder:
            paths = [Path(folder) / segment.name for segment in group]
            for segment, path in zip(group, paths, strict=True):
                await self._objects.get_file(PREFIX + segment.name, path)
            await asyncio.to_thread(write_merged, Path(folder) / merged.name, paths, first=merged.first == 1)
            await self._objects.put_file(PREFIX + merged.name, Path(folder) / merged.name)
        for segment in group:
            await self._objects.delete(PREFIX + segment.name)
        return merged

    async def _own(self) -> None:
        await self._objects.ensure_bucket()
        owner = await asyncio.to_thread(self._cutter.owner)
        if not await self._objects.put_if_absent(OWNER_KEY, owner.encode()):
            found = (await self._objects.get_bytes(OWNER_KEY, max_bytes=_OWNER_BYTES)).decode()
            if found != owner:
                raise PreconditionError(
                    f"the object store holds segments of another points file ({found}, this is {owner}):"
                    " stop Tracking and run `finemesh tracking rebuild`, which brings its points back; or"
                    " give this Tracking a bucket of its own",
                    reason="SEGMENTS_OF_ANOTHER_FILE",
                )
        self._owned = True


async def stored_segments(objects: ObjectStore) -> dict[Segment, int]:
    """All segments in the object store with their sizes in bytes. Raises UnavailableError."""
    found: dict[Segment, int] = {}
    for each in await objects.list(PREFIX):
        segment = Segment.parse(each.key.removeprefix(PREFIX))
        if segment is not None:
            found[segment] = each.size_bytes
    return found


def counting(segments: Sequence[Segment] | dict[Segment, int]) -> list[Segment]:
    """The segments that count, in order: those that lie within another do not."""
    counted: list[Segment] = []
    for segment in sorted(segments, key=lambda each: (each.first, -each.last)):
        if not counted or segment.last > counted[-1].last:
            counted.append(segment)
    return counted


def due(sizes: Sequence[tuple[Segment, int]]) -> list[Segment]:
    """The first neighbours of about equal span that should be one; empty if there are not enough."""
    group: list[Segment] = []
    size = 0
    for segment, size_bytes in sizes:
        if group and (_tier(segment) != _tier(group[-1]) or size + size_bytes > MAX_MERGED_BYTES):
            group, size = [], 0
        group.append(segment)
        size += size_bytes
        if len(group) == MERGED_AT_ONCE:
            return group
    return []


def write_merged(path: Path, sources: Sequence[Path], *, first: bool) -> None:
    """One segment of several neighbours, without the points of runs that a later one of them deletes.

    `first`: nothing lies before them, so that nobody need know what was deleted.
    """
    contents = [Contents.of(pq.read_metadata(source).metadata) for source in sources]
    marks: dict[AttemptKey, Mark] = {}
    for each in contents:
        marks = {key: mark for key, mark in marks.items() if key[0] not in each.deleted} | dict(each.marks)
    deleted = sorted({run for each in contents for run in each.deleted})
    tables = (
        table
        for index, source in enumerate(sources)
        for table in _without(source, {run for each in contents[index + 1 :] for run in each.deleted})
    )
    write_segment(path, _in_groups(tables), Contents(marks, [] if first else deleted))


def tables_of(path: Path) -> Iterator[pa.Table]:
    """The points of a segment in their order, each column in one chunk, names as dictionaries."""
    with pq.ParquetFile(path, read_dictionary=["run", "metric"]) as file:
        for batch in file.iter_batches(_GROUP_POINTS):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            yield table.unify_dictionaries().combine_chunks()


def _tier(segment: Segment) -> int:
    tier, span = 0, segment.last - segment.first + 1
    while span >= MERGED_AT_ONCE:
        tier, span = tier + 1, span // MERGED_AT_ONCE
    return tier


def _without(path: Path, runs: set[str]) -> Iterator[pa.Table]:
    for table in tables_of(path):
        run = table["run"].chunk(0)
        kept = np.array([name not in runs for name in run.dictionary.to_pylist()], np.bool_)
        yield table.filter(pa.array(kept[run.indices.to_numpy()])) if not kept.all() else table


def _in_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables that are worth a row group of their own; at least one."""
    group: list[pa.Table] = []
    for table in tables:
        group.append(table)
        if sum(len(each) for each in group) >= _GROUP_POINTS:
            yield pa.concat_tables(group).unify_dictionaries().combine_chunks()
            group = []
    if group:
        yield pa.concat_tables(group).unify_dictionaries().combine_chunks()
