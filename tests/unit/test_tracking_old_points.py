"""Files of an earlier release are read and go on; points get their segments, and summaries what is new."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from finemesh.chassis.auth import Principal, Role
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.core.errors import PreconditionError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.tracking.domain import Batch, RunState, Summary
from finemesh.tracking.points import PointFile
from finemesh.tracking.segments import Contents, Cutter
from finemesh.tracking.store import CHASSIS, SqlRunStore
from finemesh.tracking.summarizer import Summarizer

# What the first release wrote, word for word.
FIRST_SCHEMA = """
CREATE TABLE IF NOT EXISTS schema_version(version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS runs(run_key INTEGER NOT NULL, run VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS metrics(metric_key INTEGER NOT NULL, key VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS marks(
    run_key INTEGER NOT NULL, attempt SMALLINT NOT NULL, sequence BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS points(
    run_key INTEGER NOT NULL, metric_key INTEGER NOT NULL, attempt SMALLINT NOT NULL,
    step BIGINT NOT NULL, time TIMESTAMP NOT NULL, value DOUBLE NOT NULL
);
INSERT INTO schema_version VALUES (1);
INSERT INTO runs VALUES (1, 'projects/p/runs/old'), (2, 'projects/p/runs/other');
INSERT INTO metrics VALUES (1, 'train/loss'), (2, 'val/loss');
INSERT INTO marks VALUES (1, 1, 3), (1, 2, 1), (2, 1, 7);
INSERT INTO points
SELECT 1, 1, 1, step, make_timestamp(1760000000000000 + step), step / 2 FROM range(50) t(step);
INSERT INTO points VALUES (1, 1, 2, 40, make_timestamp(1760000001000000), 'nan'::DOUBLE);
INSERT INTO points VALUES (2, 2, 1, 9, make_timestamp(1760000002000000), 'inf'::DOUBLE);
"""
OLD = "projects/p/runs/old"
FIRST_ROWS = Path(__file__).parents[1] / "support" / "tracking_0001.sql"
READER = Principal("reader", Role.VIEWER, frozenset({"p"}), math.inf)


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "points.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(FIRST_SCHEMA)
    return path


def opened(path: Path) -> PointFile:
    return PointFile(path, memory_bytes=64 << 20, threads=1)


def test_points_and_marks_of_the_first_release_are_read_and_go_on(old_file: Path) -> None:
    for _ in range(2):  # the second time it is a file of this release
        file = opened(old_file)
        assert file.marks() == {OLD: {1: 3, 2: 1}, "projects/p/runs/other": {1: 7}}
        curve = file.read(OLD, ["train/loss"]).curves["train/loss"]
        assert curve.steps[:51].tolist() == [*range(50), 40]
        assert curve.attempts[:51].tolist() == [1] * 50 + [2]
        assert curve.times_us[3] == 1_760_000_000_000_003
        assert np.isnan(curve.values[50])
        file.close()
    file = opened(old_file)
    one = np.array([1], np.int64)
    file.append([Batch(OLD, 2, 2, ("train/loss",), one - 1, one * 50, np.array([0.5]), one)])
    assert file.read(OLD).curves["train/loss"].steps.tolist() == [*range(50), 40, 50]
    file.close()


def test_points_of_the_first_release_get_into_a_segment(old_file: Path) -> None:
    file = opened(old_file)
    cutter = Cutter(file, old_file.parent / "segments")
    segment = cutter.cut()
    assert segment
    metadata = pq.read_metadata(cutter.path(segment))
    assert metadata.num_rows == 52
    assert Contents.of(metadata.metadata).marks[OLD, 1] == (3, 0)
    file.close()


def test_a_file_of_a_later_release_is_left_alone(old_file: Path) -> None:
    opened(old_file).close()
    with duckdb.connect(str(old_file)) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(PreconditionError) as refusal:
        opened(old_file)
    assert refusal.value.reason == "POINTS_TOO_NEW"


async def test_runs_of_the_first_release_are_read_and_get_their_extremes(old_file: Path) -> None:
    rows = old_file.with_name("service.db")
    with contextlib.closing(sqlite3.connect(rows)) as connection:
        connection.executescript(FIRST_ROWS.read_text())
    file, database = opened(old_file), Database(f"sqlite:///{rows}")
    try:
        await migrate(database, "finemesh.tracking")
        store = SqlRunStore(database, Outbox(CHASSIS), Notifier())
        await Summarizer(store, file, Outbox(CHASSIS).clock).catch_up()
        run = await store.find(Name("p", "runs", "old"))
        assert run
        assert (run.display_name, run.labels, run.params) == ("An old run", {"team": "vision"}, {"lr": "0.1"})
        assert (run.state, run.attempt, run.fence) == (RunState.FINISHED, 2, 7)
        assert run.create_time == datetime(2025, 1, 2, 3, 4, 5, 6, UTC)
        assert run.summaries == (Summary("train/loss", 24.5, 49, 0.0, 0, 50, 0.0, 24.5),)
        found, _ = await store.list(READER, "p", PageRequest(filter='metrics."train/loss".max > 24'))
        assert [each.name for each in found] == [run.name]
        assert await store.is_deleted(Name("p", "runs", "gone"))
    finally:
        await database.close()
        file.close()
