"""Runs of other trackers, checked with TensorBoard's own writer and reader and MLflow's published schema."""

from __future__ import annotations

import io
import json
import math
import sqlite3
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.client.event_file import TornFileError, first_record, read_events, scalar_of, scalar_records
from finemesh.client.imports.mlflow import mlflow_runs
from finemesh.client.imports.source import Source
from finemesh.client.imports.tensorboard import tensorboard_runs
from finemesh.client.recording import Recording
from finemesh.client.spool import SpoolReader
from finemesh.v1 import run_pb2
from finemesh.v1.tracking_service_pb2 import CreateRunRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto import event_pb2 as untyped_event_pb2
from tensorboard.compat.proto import summary_pb2 as untyped_summary_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.event_file_writer import EventFileWriter

event_pb2: Any = untyped_event_pb2
summary_pb2: Any = untyped_summary_pb2
Summary: Any = summary_pb2.Summary
POINTS = st.lists(
    st.tuples(st.integers(0, 2**53), st.floats(0, 4e9), st.floats(width=32)), min_size=1, max_size=20
)


def written(folder: Path, *summaries: tuple[int, Any]) -> Path:
    writer = EventFileWriter(str(folder))
    for step, summary in summaries:
        writer.add_event(event_pb2.Event(wall_time=1e9 + step / 8, step=step, summary=summary))
    writer.close()
    [path] = folder.glob("*tfevents*")
    return path


def scalar(tag: str, value: float) -> Any:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def recorded(source: Source, folder: Path) -> list[tuple[str, int, float, int]]:
    """What the run came to: key, step, value, time in microseconds of each point."""
    recording = source.record(folder, "p")
    return [
        (batch.keys[key], step, value, time)
        for batch in SpoolReader(recording.spool).read()
        for key, step, value, time in zip(
            batch.key_indices, batch.steps, batch.values, batch.times_us, strict=True
        )
    ]


@settings(max_examples=40)
@given(points=POINTS, key=st.text(min_size=1, max_size=40))
def test_tensorboard_reads_what_we_write(points: list[tuple[int, float, float]], key: str) -> None:
    records = first_record(1.0) + scalar_records(key, points)
    found: list[Any] = []
    at = 0
    while at < len(records):  # TensorBoard's own message, behind a frame that its own reader checks below
        length = int.from_bytes(records[at : at + 8], "little")
        found.append(event_pb2.Event.FromString(records[at + 12 : at + 12 + length]))
        at += length + 16
    assert found[0].file_version == "brain.Event:2"
    read = [(each.step, each.wall_time, each.summary.value[0].simple_value) for each in found[1:]]
    assert repr(read) == repr(points)


def test_tensorboards_reader_finds_our_points_and_its_frames_whole(tmp_path: Path) -> None:
    points = [(step, 1e9 + step, 1 / (1 + step)) for step in range(300)]
    path = tmp_path / "events.out.tfevents.1.finemesh"
    path.write_bytes(first_record(1e9) + scalar_records("val/loss (é)", points))
    reader: Any = event_accumulator.EventAccumulator(
        str(path), size_guidance={event_accumulator.TENSORS: 0}
    ).Reload()
    [tag] = reader.Tags()["scalars"] or reader.Tags()["tensors"]
    assert tag == "val/loss (é)"
    found = [(each.step, each.wall_time, each.value) for each in reader.Scalars(tag)]
    assert found == [(step, time, float(np.float32(value))) for step, time, value in points]


def test_a_folder_of_tensorboard_becomes_runs(tmp_path: Path) -> None:
    picture = Summary.Image(height=1, width=1, colorspace=3, encoded_image_string=b"\x89PNG...")
    summaries = [
        (7, scalar("loss", 0.5)),
        (3, scalar("loss", math.nan)),  # out of order, and after it the same step again
        (7, scalar("loss", 0.25)),
        (-1, scalar("loss", 9.0)),
        (1, scalar("tab\there", 1.0)),
        (2, Summary(value=[Summary.Value(tag="samples", image=picture)])),
        (2, Summary(value=[Summary.Value(tag="weights", histo=summary_pb2.HistogramProto(num=1.0))])),
        (0, hparams.hparams_pb({"lr": 0.1, "layers": 3, "name": "a", "big": True})),
    ]
    written(tmp_path / "logs/first", *summaries)
    written(tmp_path / "logs/second/val", (1, scalar("loss", 1.0)))
    first, second = tensorboard_runs(tmp_path / "logs")
    assert (first.name, second.name) == ("first", "second/val")
    found = recorded(first, tmp_path / "recording")
    assert [(key, step) for key, step, _, _ in found[:3]] == [("loss", 7), ("loss", 3), ("loss", 7)]
    assert math.isnan(found[1][2])
    assert found[2][2:] == (0.25, 1_000_000_000_875_000)
    assert found[3][0].startswith("tab_here~")
    assert first.params == {"lr": "0.1", "layers": "3", "name": "a", "big": "true"}
    paths = {each.path for each in Recording(tmp_path / "recording").artifacts() if each}
    assert paths == {"import/source.json", "images/samples/00000002-0.png"}
    said = "; ".join(first.problems)
    for word in ("1 points of 'loss' left out: a step below 0", "tab\\there", "'histo' left out"):
        assert word in said


@given(cut=st.integers(1, 400))
def test_of_a_torn_event_file_all_before_the_tear_is_read(cut: int) -> None:
    parts = [first_record(1.0), *(scalar_records("a", [(step, 1.0, float(step))]) for step in range(5))]
    content = b"".join(parts)[: -min(cut, sum(map(len, parts)))]
    ends = list(accumulate(map(len, parts)))
    whole = sum(end <= len(content) for end in ends)
    is_torn = len(content) not in {0, *ends}
    found: list[Any] = []
    try:
        for event in read_events(io.BytesIO(content)):
            found.append(event)  # noqa: PERF402  what was read before the tear counts
        assert not is_torn
    except TornFileError:
        assert is_torn
    values = [scalar_of(event.summary.value[0]) for event in found[1:]]
    assert values == [float(step) for step in range(max(0, whole - 1))]


# mlflow/store/db_migrations and tests/resources/db/latest_schema.sql of MLflow 3; without foreign keys.
MLFLOW_SCHEMA = """
CREATE TABLE experiments (
    experiment_id INTEGER NOT NULL, name VARCHAR(256) NOT NULL, artifact_location VARCHAR(256),
    lifecycle_stage VARCHAR(32), creation_time BIGINT, last_update_time BIGINT,
    CONSTRAINT experiment_pk PRIMARY KEY (experiment_id), UNIQUE (name)
);
CREATE TABLE runs (
    run_uuid VARCHAR(32) NOT NULL, name VARCHAR(250), source_type VARCHAR(20), source_name VARCHAR(500),
    entry_point_name VARCHAR(50), user_id VARCHAR(256), status VARCHAR(9), start_time BIGINT, end_time BIGINT,
    source_version VARCHAR(50), lifecycle_stage VARCHAR(20), artifact_uri VARCHAR(200), experiment_id INTEGER,
    deleted_time BIGINT, CONSTRAINT run_pk PRIMARY KEY (run_uuid)
);
CREATE TABLE metrics (
    key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL, run_uuid VARCHAR(32) NOT NULL,
    step BIGINT DEFAULT '0' NOT NULL, is_nan BOOLEAN DEFAULT '0' NOT NULL,
    CONSTRAINT metric_pk PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan)
);
CREATE TABLE params (
    key VARCHAR(250) NOT NULL, value VARCHAR(8000) NOT NULL, run_uuid VARCHAR(32) NOT NULL,
    CONSTRAINT param_pk PRIMARY KEY (key, run_uuid)
);
CREATE TABLE tags (
    key VARCHAR(250) NOT NULL, value VARCHAR(8000), run_uuid VARCHAR(32) NOT NULL,
    CONSTRAINT tag_pk PRIMARY KEY (key, run_uuid)
);
CREATE TABLE datasets (
    dataset_uuid VARCHAR(36) NOT NULL, experiment_id INTEGER NOT NULL, name VARCHAR(500) NOT NULL,
    digest VARCHAR(36) NOT NULL, dataset_source_type VARCHAR(36) NOT NULL, dataset_source TEXT NOT NULL
);
CREATE TABLE inputs (
    input_uuid VARCHAR(36) NOT NULL, source_type VARCHAR(36) NOT NULL, source_id VARCHAR(36) NOT NULL,
    destination_type VARCHAR(36) NOT NULL, destination_id VARCHAR(36) NOT NULL
);
"""
PARENT, CHILD, GONE = "a" * 32, "b" * 32, "c" * 32


@pytest.fixture
def mlflow_db(tmp_path: Path) -> Path:
    artifacts = tmp_path / "artifacts of b"
    artifacts.mkdir()
    (artifacts / "model.txt").write_text("weights")
    path = tmp_path / "mlflow.db"
    runs = [
        (PARENT, "FINISHED", "active", "mlflow-artifacts:/1"),
        (CHILD, "KILLED", "active", artifacts.as_uri()),
        (GONE, "FINISHED", "deleted", ""),
    ]
    with sqlite3.connect(path) as database:
        database.executescript(MLFLOW_SCHEMA)
        database.execute("INSERT INTO experiments(experiment_id, name) VALUES (1, 'sweeps')")
        database.executemany(
            "INSERT INTO runs(run_uuid, name, status, lifecycle_stage, artifact_uri, start_time, end_time,"
            " experiment_id) VALUES (?, 'able-' || ?1, ?, ?, ?, 1500, 9500, 1)",
            runs,
        )
        values = [(0.5, 5, 0), (0.0, 6, 1), (1.7976931348623157e308, 3, 0), (0.25, 5, 0), (1.0, -2, 0)]
        database.executemany(
            "INSERT INTO metrics VALUES ('val/loss', ?, ?, ?, ?, ?)",
            [(value, 2000 + at, CHILD, step, nan) for at, (value, step, nan) in enumerate(values)],
        )
        database.execute("INSERT INTO params VALUES ('lr', '0.1', ?)", [CHILD])
        database.execute("INSERT INTO params VALUES ('prompt', ?, ?)", ["x" * 6000, CHILD])
        tags = {"mlflow.parentRunId": PARENT, "mlflow.note.content": "# Why", "mlflow.user": "ann",
                "mlflow.source.git.commit": "1f0c", "Mein Tag": "ja"}  # fmt: skip
        database.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(*pair, CHILD) for pair in tags.items()])
        database.execute("INSERT INTO datasets VALUES ('d', 1, 'scenes', '00ff', 'local', '')")
        database.execute("INSERT INTO inputs VALUES ('i', 'DATASET', 'd', 'RUN', ?)", [CHILD])
    database.close()
    return path


def test_a_database_of_mlflow_becomes_runs(mlflow_db: Path, tmp_path: Path) -> None:
    parent, child = mlflow_runs(mlflow_db)
    found = recorded(child, tmp_path / "recording")
    run = Recording(tmp_path / "recording").request().run
    assert [point[1] for point in found] == [5, 6, 3, 5]  # as they were measured
    assert math.isnan(found[1][2])
    assert (found[2][2], found[2][3]) == (math.inf, 2_002_000)
    assert (run.display_name, run.experiment, run.notes) == (f"able-{CHILD}", "sweeps", "# Why")
    assert run.parent_run == f"projects/p/runs/{parent.run_id}"
    assert dict(run.params) == {"lr": "0.1"}
    assert list(run.tags) == ["Mein Tag=ja", "mlflow.user=ann"]
    assert (run.lineage.code.commit, run.lineage.dataset, run.lineage.dataset_digest) == (
        "1f0c",
        "scenes",
        "00ff",
    )
    assert run.start_time.ToMilliseconds() == 1500
    ending = Recording(tmp_path / "recording").ending()
    assert ending is not None
    assert (ending.end_time.ToMilliseconds(), ending.state) == (9500, run_pb2.Run.STATE_CANCELLED)
    files = {each.path: each for each in Recording(tmp_path / "recording").artifacts() if each}
    assert set(files) == {"model.txt", "import/source.json"}
    original = json.loads(Recording(tmp_path / "recording").content(files["import/source.json"]).read_text())
    assert original["params"]["prompt"] == "x" * 6000
    assert any("step below 0" in each for each in child.problems)
    assert any("1 parameters are too long" in each for each in child.problems)
    assert any("mlflow-artifacts:/1 are not on this disk" in each for each in parent.problems)


def test_a_folder_of_mlflow_becomes_runs(tmp_path: Path) -> None:
    run = tmp_path / "7" / CHILD
    for folder in ("metrics/val", "params", "tags", "artifacts/plots"):
        (run / folder).mkdir(parents=True)
    (tmp_path / "7/meta.yaml").write_text("experiment_id: '7'\nname: sweeps\n")
    (run / "meta.yaml").write_text(
        f"run_id: {CHILD}\nrun_name: able\nstatus: 4\nstart_time: 1500\nend_time: 9500\n"
    )
    (run / "metrics/val/loss").write_text(
        "2000 0.5 5\n2001 nan 6\n2002 -inf 7\n2003 0.1 8 scenes 00ff\ntorn 0.\n"
    )
    (run / "params/layers").write_text("3")
    (run / "tags/mlflow.runName").write_text("able")
    (run / "artifacts/plots/a.png").write_bytes(b"\x89PNG")
    [source] = mlflow_runs(tmp_path)
    found = recorded(source, tmp_path / "recording")
    assert repr(found) == repr(
        [
            ("val/loss", 5, 0.5, 2_000_000),
            ("val/loss", 6, math.nan, 2_001_000),
            ("val/loss", 7, -math.inf, 2_002_000),
            ("val/loss", 8, 0.1, 2_003_000),
        ]
    )
    assert (source.name, source.experiment, source.state, source.params) == (
        "able",
        "sweeps",
        "FAILED",
        {"layers": "3"},
    )
    assert [each.path for each in source.files] == ["plots/a.png"]
    assert source.problems == ["1 lines of metric 'val/loss' left out: they are not `time value step`"]


def test_the_same_source_makes_the_same_run_and_a_changed_one_is_told_apart(
    mlflow_db: Path, tmp_path: Path
) -> None:
    def request(folder: str) -> CreateRunRequest:
        [_, child] = mlflow_runs(mlflow_db)
        return child.record(tmp_path / folder, "p").request()

    first = request("first")
    assert request("again") == first
    with sqlite3.connect(mlflow_db) as database:
        database.execute("INSERT INTO metrics VALUES ('val/loss', 0.1, 3000, ?, 9, 0)", [CHILD])
    database.close()
    changed = request("changed")
    assert (changed.run_id, changed.request_id == first.request_id) == (first.run_id, False)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 torn", b"no database"])
def test_what_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(ValueError, match=r"no database of MLflow's"):
        list(mlflow_runs(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no event file"):
        list(tensorboard_runs(tmp_path))
