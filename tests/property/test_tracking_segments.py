"""From its segments a points file comes back with every point exactly once, whatever happened meanwhile."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pytest
from finemesh.core.errors import InvalidError, NotFoundError, PreconditionError
from finemesh.tracking import archive as archive_module
from finemesh.tracking.archive import PREFIX, Archive, counting, stored_segments
from finemesh.tracking.domain import Batch
from finemesh.tracking.points import PointFile
from finemesh.tracking.rebuild import rebuild
from finemesh.tracking.segments import Contents, Cutter, Segment
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.memory_object_store import MemoryObjectStore

RUNS = ("projects/p/runs/a", "projects/p/runs/b")
Row = tuple[str, str, int, int, int, str]  # run, metric, attempt, step, µs, repr of the value
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(RUNS), st.integers(1, 2)),
        st.tuples(st.just("append"), st.sampled_from(RUNS), st.integers(1, 2)),
        st.tuples(st.just("empty"), st.sampled_from(RUNS), st.integers(1, 2)),
        st.tuples(st.sampled_from(["cut", "sort", "ship", "merge", "crash"]), st.just(""), st.just(0)),
        st.tuples(st.just("cut"), st.just(""), st.just(0)),
        st.tuples(st.just("delete"), st.sampled_from(RUNS), st.just(0)),
    ),
    max_size=14,
)


class World:
    """A points file with its cutter and archive, and a model: what a client knows to be durable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = MemoryObjectStore()
        self.rows: list[Row] = []
        self.marks: dict[str, dict[int, int]] = {}
        self.made = 0
        self.open()

    def open(self) -> None:
        self.file = PointFile(self.folder / "points.duckdb", memory_bytes=64 << 20, threads=1)
        self.cutter = Cutter(self.file, self.folder / "segments")
        self.archive = Archive(self.objects, self.cutter)

    def crash(self) -> None:
        """What a cut that never was leaves behind is a file that nobody counted."""
        self.file.close()
        stray = self.folder / "segments" / Segment(999, 999).name
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"PAR1 torn")
        self.open()

    def append(self, run: str, attempt: int, points: int) -> None:
        sequence = self.marks.setdefault(run, {}).get(attempt, 0) + 1
        self.made += 1
        steps = np.arange(points, dtype=np.int64) % 3 + self.made  # some steps come twice
        values = np.array([self.made, np.nan, np.inf, -0.5][:points])
        each = Batch(run, attempt, sequence, ("loss", "x"), steps % 2, steps, values, steps * 1_000)
        self.file.append([each])
        self.marks[run][attempt] = sequence
        self.rows += [
            (run, ("loss", "x")[step % 2], attempt, step, step * 1_000, repr(value))
            for step, value in zip(steps.tolist(), values.tolist(), strict=True)
        ]

    def delete(self, run: str) -> None:
        self.file.delete(run)
        self.rows = [row for row in self.rows if row[0] != run]
        self.marks.pop(run, None)

    async def carry_out(self, operation: str, run: str, attempt: int) -> None:
        match operation:
            case "append" | "empty":
                self.append(run, attempt, 4 if operation == "append" else 0)
            case "cut":
                self.cutter.cut()
            case "sort":
                self.cutter.sort(least=1)
            case "ship":
                await self.archive.ship()
            case "merge":
                await self.archive.merge()
            case "delete":
                self.delete(run)
            case _:
                self.crash()


def rows_of(file: PointFile) -> list[Row]:
    return [
        (run, key, attempt, step, time, repr(value))
        for run in RUNS
        for key, curve in file.read(run).curves.items()
        for attempt, step, time, value in zip(
            curve.attempts.tolist(),
            curve.steps.tolist(),
            curve.times_us.tolist(),
            curve.values.tolist(),
            strict=True,
        )
    ]


@settings(max_examples=8, deadline=None)
@given(operations=OPERATIONS)
def test_a_rebuilt_file_has_every_point_exactly_once(operations: list[tuple[str, str, int]]) -> None:
    async def main(folder: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(archive_module, "MERGED_AT_ONCE", 2)
        world = World(folder)
        world.append(RUNS[0], 1, 4)
        for operation in operations:
            await world.carry_out(*operation)
        assert Counter(rows_of(world.file)) == Counter(world.rows)
        world.cutter.cut()
        await world.archive.ship()
        while await world.archive.merge():
            pass
        before = {run: world.file.read(run).curves for run in RUNS}
        world.file.close()
        await rebuild(world.objects, folder / "points.duckdb")
        world.open()
        assert Counter(rows_of(world.file)) == Counter(world.rows)
        assert world.file.marks() == world.marks
        for run, curves in before.items():  # and in the order that settles which of equal steps counts
            for key, curve in curves.items():
                found = world.file.read(run, [key]).curves[key]
                order, wanted = np.argsort(found.steps, kind="stable"), np.argsort(curve.steps, kind="stable")
                np.testing.assert_array_equal(found.values[order], curve.values[wanted])
        world.append(RUNS[0], 1, 4)  # and goes on: the next segment follows the last
        world.cutter.cut()
        await world.archive.ship()
        numbers = counting(await stored_segments(world.objects))
        assert [each.first for each in numbers] == [1, *(each.last + 1 for each in numbers[:-1])]
        world.file.close()

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        asyncio.run(main(Path(folder), patch))


async def test_a_merge_that_died_half_way_counts_nothing_twice(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(8):
        world.append(RUNS[0], 1, 4)
        world.cutter.cut()
    await world.archive.ship()
    before = dict(world.objects.objects)
    assert await world.archive.merge() == Segment(1, 8)
    world.objects.objects |= before  # those it was made of were not removed
    world.file.close()
    assert await rebuild(world.objects, tmp_path / "points.duckdb") == 32
    world.open()
    assert await world.archive.merge() is None
    assert list(await stored_segments(world.objects)) == [Segment(1, 8)]
    world.file.close()


async def test_points_of_a_deleted_run_leave_the_store_when_segments_become_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(7):
        world.append(RUNS[0], 1, 4)
        world.append(RUNS[1], 1, 4)
        world.cutter.cut()
    world.delete(RUNS[0])
    world.cutter.cut()
    await world.archive.ship()
    assert await world.archive.merge() == Segment(1, 8)
    assert list(await stored_segments(world.objects)) == [Segment(1, 8)]
    path = tmp_path / "merged.parquet"
    path.write_bytes(await world.objects.get_bytes(PREFIX + Segment(1, 8).name, max_bytes=1 << 20))
    with duckdb.connect() as reader:
        found = reader.execute(f"SELECT run, count(*) FROM '{path}' GROUP BY run").fetchall()
    assert found == [(RUNS[1], 28)]
    world.file.close()


async def test_segments_that_were_not_shipped_yet_are_used_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    for shipped in (True, False, False):
        world.append(RUNS[0], 1, 4)
        world.cutter.cut()
        if shipped:
            await world.archive.ship()
    (tmp_path / "segments" / Segment(4, 4).name).write_bytes(b"PAR1 torn")
    world.file.close()
    assert await rebuild(world.objects, tmp_path / "points.duckdb") == 12
    world.open()
    assert Counter(rows_of(world.file)) == Counter(world.rows)
    await world.archive.ship()
    assert counting(await stored_segments(world.objects)) == [Segment(n, n) for n in (1, 2, 3)]
    world.file.close()


async def test_anyone_can_read_a_segment(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(RUNS[0], 2, 4)
    segment = world.cutter.cut()
    assert segment
    path = str(world.cutter.path(segment))
    query = f"SELECT run, metric, attempt, step, epoch_us(time), value FROM '{path}'"
    with duckdb.connect() as reader:
        found = reader.execute(query).fetchall()
    assert Counter((*row[:5], repr(row[5])) for row in found) == Counter(world.rows)
    world.file.close()


def test_what_is_no_segment_is_refused() -> None:
    for metadata in (None, {}, {b"finemesh": b"{}"}, {b"finemesh": b"not JSON"}):
        with pytest.raises(InvalidError) as refusal:
            Contents.of(metadata)
        assert refusal.value.reason == "MALFORMED_SEGMENT"


async def test_segments_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    world = World(tmp_path / "one")
    with pytest.raises(NotFoundError) as none:
        await rebuild(world.objects, tmp_path / "one" / "points.duckdb")
    assert none.value.reason == "SEGMENTS_NOT_FOUND"
    for _ in range(3):
        world.append(RUNS[0], 1, 4)
        world.cutter.cut()
    await world.archive.ship()
    other = World(tmp_path / "two")
    other.objects = world.objects
    other.archive = Archive(world.objects, other.cutter)
    other.append(RUNS[1], 1, 4)
    other.cutter.cut()
    with pytest.raises(PreconditionError) as foreign:
        await other.archive.ship()
    assert foreign.value.reason == "SEGMENTS_OF_ANOTHER_FILE"
    await world.objects.delete(PREFIX + Segment(2, 2).name)
    with pytest.raises(PreconditionError) as missing:
        await rebuild(world.objects, tmp_path / "one" / "points.duckdb")
    assert missing.value.reason == "SEGMENTS_MISSING"
    assert "from 2 to 2" in missing.value.message
    world.file.close()
    other.file.close()
