"""Whatever order batches, replays and crashes come in, every acknowledged point is kept exactly once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from finemesh.core.errors import PreconditionError
from finemesh.tracking.domain import Batch
from finemesh.tracking.points import AttemptKey, PointFile
from finemesh.tracking.writer import Writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RUNS = ("projects/p/runs/a", "projects/p/runs/b")
POINTS_PER_BATCH = 3
Point = tuple[str, int, str, int, float]  # run, attempt, key, step, value


def batch(run: str, attempt: int, sequence: int) -> Batch:
    """The batch that this client would send under that number: the same each time."""
    steps = np.arange(POINTS_PER_BATCH, dtype=np.int64) + sequence * POINTS_PER_BATCH
    return Batch(
        run=run,
        attempt=attempt,
        sequence=sequence,
        keys=("loss", f"extra{sequence % 3}"),
        key_indices=np.array([0, 1, 0], np.int64),
        steps=steps,
        values=np.where(steps % 7 == 0, np.nan, steps * 1.5 + attempt),
        times_us=steps * 1_000,
    )


def points_of(each: Batch) -> list[Point]:
    columns = zip(each.key_indices.tolist(), each.steps.tolist(), each.values.tolist(), strict=True)
    return [
        (each.run, each.attempt, each.keys[index], step, repr_nan(value)) for index, step, value in columns
    ]


def repr_nan(value: float) -> float:
    return -1.0 if np.isnan(value) else value  # NaN equals nothing, not even itself


@dataclass
class Service:
    """A points file with its writer. `crash` leaves what the disk holds at this moment, and opens that."""

    folder: Path
    generation: int = 0
    sent: dict[AttemptKey, int] = field(default_factory=dict[AttemptKey, int])
    acknowledged: dict[AttemptKey, int] = field(default_factory=dict[AttemptKey, int])
    committed: list[Batch] = field(default_factory=list[Batch])

    def open(self) -> None:
        path = self.folder / str(self.generation) / "points.duckdb"
        self.file = PointFile(path, memory_bytes=64 << 20, threads=1)
        self.writer = Writer(self.file, self.committed.extend)
        self.writer.start()

    async def close(self) -> None:
        await self.writer.stop()
        self.file.close()

    async def crash(self) -> None:
        """A copy of the files taken while the writer works is what kill -9 would leave."""
        image = self.folder / str(self.generation + 1)
        shutil.copytree(self.folder / str(self.generation), image)
        await self.close()  # the old process' end, whose later commits the image does not have
        self.generation += 1
        self.open()
        for key in self.sent:  # the client goes on from what it knows to be durable
            self.sent[key] = self.acknowledged.get(key, 0)

    async def send(self, key: AttemptKey, sequences: Sequence[int]) -> None:
        """Send batches without waiting in between, then note what was acknowledged."""
        futures = [await self.writer.submit(batch(*key, sequence)) for sequence in sequences]
        for sequence, future in zip(sequences, futures, strict=True):
            durable = await future
            assert durable >= sequence
            self.acknowledged[key] = max(self.acknowledged.get(key, 0), durable)

    async def send_next(self, key: AttemptKey, count: int) -> None:
        first = self.sent.get(key, 0) + 1
        self.sent[key] = first + count - 1
        await self.send(key, range(first, first + count))

    async def replay(self, key: AttemptKey, back: int) -> None:
        last = self.sent.get(key, 0)
        await self.send(key, range(max(1, last - back), last + 1))

    async def skip(self, key: AttemptKey) -> None:
        """A batch that leaves a gap is refused and names the one to send."""
        last = self.file.mark(*key)
        future = await self.writer.submit(batch(*key, last + 2))
        with pytest.raises(PreconditionError) as refusal:
            await future
        assert refusal.value.reason == "SEQUENCE_GAP"
        assert refusal.value.metadata["durable_sequence"] == str(last)

    def stored(self) -> list[Point]:
        return [
            (run, attempt, key, step, repr_nan(value))
            for run in RUNS
            for key, curve in self.file.read(run).curves.items()
            for step, value, attempt in zip(
                curve.steps.tolist(), curve.values.tolist(), curve.attempts.tolist(), strict=True
            )
        ]


KEYS = st.tuples(st.sampled_from(RUNS), st.integers(1, 2))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send_next"), KEYS, st.integers(1, 4)),
        st.tuples(st.just("replay"), KEYS, st.integers(0, 5)),
        st.tuples(st.just("skip"), KEYS, st.just(0)),
        st.tuples(st.just("crash"), KEYS, st.just(0)),
        st.tuples(st.just("crash_in_flight"), KEYS, st.integers(1, 4)),
    ),
    min_size=1,
    max_size=14,
)


async def carry_out(service: Service, operation: str, key: AttemptKey, count: int) -> None:
    match operation:
        case "send_next":
            await service.send_next(key, count)
        case "replay":
            await service.replay(key, count)
        case "skip":
            await service.skip(key)
        case "crash_in_flight":
            first = service.sent.get(key, 0) + 1
            for sequence in range(first, first + count):
                await service.writer.submit(batch(*key, sequence))
            service.sent.setdefault(key, 0)
            await service.crash()
        case _:
            await service.crash()


# Every example opens DuckDB several times, which takes longer than hypothesis likes.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_every_acknowledged_point_is_kept_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, AttemptKey, int]]
) -> None:
    async def main() -> None:
        service = Service(tmp_path_factory.mktemp("points"))
        service.open()
        try:
            for operation, key, count in operations:
                await carry_out(service, operation, key, count)
            for key in list(service.sent):
                await service.replay(key, service.sent[key])  # the client's last word: all of it again
            marks = {key: service.file.mark(*key) for key in service.sent}
            stored = service.stored()
        finally:
            await service.close()
        expected = [
            point
            for key, durable in marks.items()
            for sequence in range(1, durable + 1)
            for point in points_of(batch(*key, sequence))
        ]
        assert sorted(stored) == sorted(expected)
        assert all(marks[key] >= sequence for key, sequence in service.acknowledged.items())

    asyncio.run(main())


async def test_the_first_of_two_equal_batches_in_one_group_is_kept(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.open()
    try:
        run = RUNS[0]
        futures = [await service.writer.submit(batch(run, 1, sequence)) for sequence in (1, 1, 2, 1, 2)]
        for future, sequence in zip(futures, (1, 1, 2, 1, 2), strict=True):
            assert await future >= sequence
        assert len(service.stored()) == 2 * POINTS_PER_BATCH
        assert [each.sequence for each in service.committed] == [1, 2]
    finally:
        await service.close()


async def test_deleting_a_run_removes_its_points_and_leaves_the_others(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.open()
    try:
        for run in RUNS:
            await service.send_next((run, 1), 2)
        await service.writer.delete(RUNS[0])
        assert {point[0] for point in service.stored()} == {RUNS[1]}
        assert service.file.marks() == {RUNS[1]: {1: 2}}
        await service.crash()
        assert service.file.marks() == {RUNS[1]: {1: 2}}
    finally:
        await service.close()
