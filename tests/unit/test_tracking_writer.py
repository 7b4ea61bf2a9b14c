"""The writer holds callers up when it has enough, and takes apart batches that travel as one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import numpy as np
import pytest
from finemesh.core.errors import PreconditionError
from finemesh.tracking import writer as writer_module
from finemesh.tracking.domain import Batch
from finemesh.tracking.points import PointFile
from finemesh.tracking.writer import Writer

RUN = "projects/p/runs/r"


def several(first: int, last: int, thinned_points: int = 0) -> Batch:
    """The batches from `first` to `last`, of two points each, as one."""
    steps = np.arange(2 * first, 2 * last + 2, dtype=np.int64)
    lengths = (2,) * (last - first + 1)
    values = steps.astype(np.float64)
    return Batch(RUN, 1, last, ("loss",), steps * 0, steps, values, steps, lengths, thinned_points)


@pytest.fixture
async def file(tmp_path: Path) -> AsyncGenerator[PointFile]:
    file = PointFile(tmp_path / "points.duckdb", memory_bytes=64 << 20, threads=1)
    yield file
    file.close()


async def test_batches_that_travel_together_are_recognised_one_by_one(file: PointFile) -> None:
    writer = Writer(file, lambda _: None)
    writer.start()
    try:
        for batch, durable in (
            (several(1, 3, thinned_points=7), 3),
            (several(2, 3), 3),  # both are known
            (several(2, 5), 5),  # two of four are known
            (several(6, 6), 6),
        ):
            assert await (await writer.submit(batch)) == durable
        with pytest.raises(PreconditionError, match="send 7 next"):
            await (await writer.submit(several(8, 9)))
    finally:
        await writer.stop()
    assert file.read(RUN).curves["loss"].steps.tolist() == list(range(2, 14))
    with file.snapshot() as snapshot:
        assert snapshot.thinned([RUN]) == {RUN: 7}


async def test_a_caller_waits_while_too_much_is_under_way(
    file: PointFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_PENDING_POINTS", 150)
    disk, begun = threading.Event(), threading.Event()
    append = file.append

    def slow(batches: Sequence[Batch]) -> None:
        begun.set()
        disk.wait()
        append(batches)

    monkeypatch.setattr(file, "append", slow)
    writer = Writer(file, lambda _: None)
    writer.start()
    first, second = await writer.submit(several(1, 1)), await writer.submit(several(2, 2))
    third = asyncio.create_task(writer.submit(several(3, 3)))
    await asyncio.to_thread(begun.wait)
    assert not third.done()
    disk.set()
    assert await (await third) == 3
    assert await first >= 1
    assert await second == 2
    await writer.stop()
