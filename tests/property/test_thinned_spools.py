"""A spool that left points out catches up in few messages, and what it left out counts once."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from finemesh.client.carrier import Carrier
from finemesh.client.spool import SpoolWriter
from finemesh.core.errors import InvalidError
from finemesh.tracking.convert import batch_from_proto
from finemesh.tracking.points import PointFile
from finemesh.tracking.writer import Writer
from finemesh.v1.metric_pb2 import MetricBatch
from hypothesis import given, settings
from hypothesis import strategies as st

RUN = "projects/p/runs/r"
LIMIT = 400_000
ROUND_STEPS = 4_000


def log(spool: SpoolWriter, steps: range) -> None:
    for step in steps:
        spool.append(step, {"loss": 1 / (1 + step)})


def waiting(path: Path, durable: int = 0) -> list[MetricBatch]:
    carrier, found = Carrier(path, durable), list[MetricBatch]()
    while batches := carrier.waiting():
        found += batches
    return found


async def send(writer: Writer, messages: Sequence[MetricBatch]) -> None:
    for message in messages:
        batch = batch_from_proto(message)
        batch.check()
        assert await (await writer.submit(batch)) >= message.sequence


def test_thousands_of_thinned_records_travel_in_few_messages(tmp_path: Path) -> None:
    path, steps = tmp_path / "000001.spool", range(50_000)
    spool = SpoolWriter(path, RUN, 1, LIMIT)
    log(spool, steps)
    spool.close()
    messages = waiting(path)
    assert sum(count > 0 for each in messages for count in each.thinned_counts) > 2_000
    assert len(messages) <= 30
    assert sum(len(each.steps) + each.thinned_points for each in messages) == len(steps)


@settings(max_examples=6, deadline=None)
@given(known=st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_what_was_left_out_counts_once_whatever_is_sent_again(known: Sequence[float]) -> None:
    """The sender has forgotten some of what is durable, and cuts its messages elsewhere than before."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_send_again(Path(folder), known))


async def _send_again(folder: Path, known: Sequence[float]) -> None:
    path = folder / "000001.spool"
    spool = SpoolWriter(path, RUN, 1, LIMIT)
    file = PointFile(folder / "points.duckdb", memory_bytes=64 << 20, threads=1)
    writer = Writer(file, lambda _: None)
    writer.start()
    try:
        for number, share in enumerate(known):
            log(spool, range(number * ROUND_STEPS, (number + 1) * ROUND_STEPS))
            await send(writer, waiting(path, int(share * file.mark(RUN, 1))))
        spool.close()
        await send(writer, waiting(path))
        stored = len(file.read(RUN).curves["loss"])
        assert stored + file.thinned(RUN, 1) == len(known) * ROUND_STEPS
    finally:
        await writer.stop()
        file.close()


@pytest.mark.parametrize("counts", [[1], [1, 1], [3, -1]])
def test_counts_that_do_not_add_up_are_refused(counts: list[int]) -> None:
    message = MetricBatch(
        run=RUN, attempt=1, sequence=2, lengths=[0, 0], thinned_points=3, thinned_counts=counts
    )
    with pytest.raises(InvalidError, match="thinned_counts"):
        batch_from_proto(message).check()
