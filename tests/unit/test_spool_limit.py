"""A spool with a limit: never above it, never blocking, and what it leaves out is told and evenly spread."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
from finemesh.client import growing_file, spool
from finemesh.client.spool import PartsReader, SpoolWriter, parts_of
from finemesh.client.thinning import Thinning
from finemesh.v1.metric_pb2 import MetricBatch
from hypothesis import given, settings
from hypothesis import strategies as st

RUN = "projects/p/runs/r"
LIMIT = 32_000


def everything(path: Path) -> list[MetricBatch]:
    reader, found = PartsReader(path), list[MetricBatch]()
    while batches := reader.read(100):
        found += batches
    return found


def size(path: Path) -> int:
    return sum(part.stat().st_size for part in parts_of(path))


@settings(max_examples=6, deadline=None)
@given(steps=st.integers(1, 3_000), remove=st.booleans())
def test_every_point_is_written_or_counted_and_the_limit_holds(steps: int, *, remove: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "000001.spool"
        writer, removed = SpoolWriter(path, RUN, 1, LIMIT), list[MetricBatch]()
        for step in range(steps):
            values = {"train/loss": 1 / (1 + step), "train/speed": float(step)}
            if step % 500 == 0:
                values["val/loss"] = math.nan if step % 1000 else 0.5
            writer.append(step, values)
            assert step % 20 or size(path) <= LIMIT
            if remove and step % 1_000 == 999:  # as if all but the newest file had become durable
                for part in parts_of(path)[:-1]:
                    removed += spool.SpoolReader(part).read(10**9)
                    part.unlink()
        writer.close()
        found = removed + everything(path)
    assert [batch.sequence for batch in found] == list(range(1, len(found) + 1))
    logged = 2 * steps + len(range(0, steps, 500))
    assert sum(len(batch.steps) + batch.thinned_points for batch in found) == logged
    seldom = [batch.steps[0] for batch in found if "val/loss" in batch.keys]
    assert seldom == list(range(0, steps, 500))


def test_a_spool_that_fills_up_goes_on_ever_more_coarsely(tmp_path: Path) -> None:
    path = tmp_path / "000001.spool"
    writer = SpoolWriter(path, RUN, 1, LIMIT)
    for step in range(2_000):
        writer.append(step, {"train/loss": 1 / (1 + step)})
    writer.close()
    steps = [step for batch in everything(path) for step in batch.steps]
    assert steps[:150] == list(range(150))
    quarters = [sum(low <= step < low + 500 for step in steps) for low in range(0, 2_000, 500)]
    assert quarters == sorted(quarters, reverse=True)
    assert quarters[-1] > 0


def test_what_is_not_finite_any_more_is_kept_even_when_it_comes_often() -> None:
    thinning = Thinning()
    thinning.fill(0.99)
    kept = [step for step in range(50) if thinning.kept({"loss": math.nan if 20 <= step < 30 else 1.0})]
    assert kept == [0, 20, 30]


def test_a_writer_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    path = tmp_path / "000001.spool"
    for first in (0, 500):
        writer = SpoolWriter(path, RUN, 1, 10 * LIMIT)
        for step in range(first, first + 500):
            writer.append(step, {"train/loss": 1.0})
        writer.close()
    assert [batch.sequence for batch in everything(path)] == list(range(1, 1_001))


def test_a_disk_that_takes_nothing_costs_detail_and_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "MAX_HELD_RECORDS", 400)
    path = tmp_path / "000001.spool"
    writer = SpoolWriter(path, RUN, 1)
    with monkeypatch.context() as patch:
        patch.setattr(growing_file.os, "pwrite", full)
        patch.setattr(growing_file.os, "posix_fallocate", full)
        for step in range(5_000):
            writer.append(step, {"train/loss": 1.0})
    writer.append(5_000, {"train/loss": 1.0, "val/loss": 2.0})
    writer.close()
    found = everything(path)
    assert len(found) <= 402
    assert sum(len(batch.steps) + batch.thinned_points for batch in found) == 5_002
    assert found[-1].steps[-1] == 5_000
