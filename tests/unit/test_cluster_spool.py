"""The spool: what was appended is read back whole and in order, whatever becomes of its tail."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
from finemesh.client import growing_file
from finemesh.cluster.spool import SpoolReader, SpoolWriter, remove_spool, spool_path, spools_of
from finemesh.v1.metric_pb2 import MetricBatch
from hypothesis import given
from hypothesis import strategies as st

RUN = "projects/p/runs/r"
VALUES = st.dictionaries(
    st.sampled_from(["train/loss", "val/loss", "a"]), st.floats(allow_nan=False), min_size=1
)


def written(folder: Path, rows: list[dict[str, float]]) -> Path:
    path = spool_path(folder, "p.trainingJobs.r", 1)
    writer = SpoolWriter(path, RUN, 1)
    for step, values in enumerate(rows, start=1):
        writer.append(step, values)
    writer.close()
    return path


@given(rows=st.lists(VALUES, max_size=8), zeros=st.integers(0, 100), data=st.data())
def test_a_torn_end_costs_only_the_torn_record_and_is_written_over(
    rows: list[dict[str, float]], zeros: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), [{"a": 0.0}, *rows])
        reader, whole, ends = SpoolReader(path), list[MetricBatch](), list[int]()
        while found := reader.read(1):
            whole += found
            ends.append(reader.offset)
        kept_bytes = data.draw(st.integers(0, path.stat().st_size))
        os.truncate(path, kept_bytes)
        os.truncate(path, kept_bytes + zeros)  # what had been allocated beyond
        torn = SpoolReader(path).read()
        writer = SpoolWriter(path, RUN, 1)
        writer.append(7, {"after": 0.5})
        writer.close()
        after = SpoolReader(path).read()
    assert [batch.sequence for batch in whole] == list(range(1, len(rows) + 2))
    least = sum(end <= kept_bytes for end in ends)  # zeros that are cut off and come back are no loss
    assert whole[:least] == torn[:least] == after[:least]
    assert torn == whole[: len(torn)]
    assert after[:-1] == torn
    assert (after[-1].sequence, list(after[-1].steps), list(after[-1].values)) == (len(torn) + 1, [7], [0.5])


@given(rows=st.lists(VALUES, min_size=1, max_size=5), data=st.data())
def test_a_flipped_bit_is_never_read_as_points(rows: list[dict[str, float]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), rows)
        whole = SpoolReader(path).read()
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        found = SpoolReader(path).read()
    assert found == whole[: len(found)]
    assert len(found) < len(whole)


@given(rows=st.lists(VALUES, min_size=2, max_size=6), limit=st.integers(1, 3))
def test_a_reader_takes_up_where_it_was(rows: list[dict[str, float]], limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = spool_path(Path(folder), "j", 1)
        writer, reader, found = SpoolWriter(path, RUN, 1), SpoolReader(path), list[int]()
        for step, values in enumerate(rows, start=1):
            writer.append(step, values)
            found += [batch.sequence for batch in reader.read(limit)]
        while more := reader.read(limit):
            found += [batch.sequence for batch in more]
        writer.close()
        again = SpoolReader(path).read()
        assert found == [batch.sequence for batch in again] == list(range(1, len(rows) + 1))


def test_values_and_steps_come_back(tmp_path: Path) -> None:
    path = written(tmp_path, [{"train/loss": 1.5, "train/learning_rate": 0.1}, {"val/loss": float("inf")}])
    first, second = SpoolReader(path).read()
    assert (first.run, first.attempt, list(first.steps)) == (RUN, 1, [1, 1])
    assert {first.keys[k]: v for k, v in zip(first.key_indices, first.values, strict=True)} == {
        "train/loss": 1.5,
        "train/learning_rate": 0.1,
    }
    assert list(second.values) == [float("inf")]


def test_a_spool_of_an_earlier_release_is_read_and_gone_on_with(tmp_path: Path) -> None:
    """It held batches alone: `length, crc32`, and the message."""
    path = tmp_path / "000001.spool"
    old = [
        MetricBatch(run=RUN, attempt=1, sequence=number, keys=["a"], key_indices=[0], steps=[number])
        for number in (1, 2)
    ]
    for batch in old:
        batch.values.append(batch.sequence / 3)
        batch.times_us.append(5)
    payloads = [batch.SerializeToString() for batch in old]
    records = (struct.pack("<II", len(each), zlib.crc32(each)) + each for each in payloads)
    path.write_bytes(b"".join(records) + b"\x07torn")
    assert SpoolReader(path).read() == old
    writer = SpoolWriter(path, RUN, 1)
    writer.append(3, {"a": 1.0})
    writer.close()
    found = SpoolReader(path).read()
    assert found[:2] == old
    assert [(batch.sequence, list(batch.steps), list(batch.values)) for batch in found[2:]] == [
        (3, [3], [1.0])
    ]


def test_points_are_written_where_they_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that cannot promise room; then it can."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    path = tmp_path / "000001.spool"
    with monkeypatch.context() as patch:
        patch.setattr(growing_file.os, "posix_fallocate", refuse)
        writer = SpoolWriter(path, RUN, 1)
        for step in range(300):
            writer.append(step, {"a": step / 7, "b": 1.0})
    writer.append(300, {"a": 300 / 7, "b": 1.0})
    writer.close()
    found = SpoolReader(path).read()
    assert [(each.sequence, list(each.values)) for each in found] == [
        (step + 1, [step / 7, 1.0]) for step in range(301)
    ]


def test_sigkill_of_the_writer_loses_no_point_it_had_appended(tmp_path: Path) -> None:
    path = spool_path(tmp_path, "j", 1)
    program = (
        "import sys; from pathlib import Path; from finemesh.cluster.spool import SpoolWriter\n"
        f"writer = SpoolWriter(Path({str(path)!r}), {RUN!r}, 1)\n"
        "for step in range(1, 10**9):\n"
        "    writer.append(step, {'train/loss': 1 / step})\n"
        "    print(step, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = 0
        while last < 200:
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        # Lines that were printed before the end may still be in the pipe.
        last = max([last, *(int(line) for line in process.stdout if line.endswith("\n"))])
    found = [batch.sequence for batch in SpoolReader(path).read(10**9)]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= last


def test_spools_are_listed_by_attempt_and_removed_with_their_folder(tmp_path: Path) -> None:
    for attempt in (10, 2, 1):
        SpoolWriter(spool_path(tmp_path, "j", attempt), RUN, attempt).close()
    found = spools_of(tmp_path, "j")
    assert found == [spool_path(tmp_path, "j", attempt) for attempt in (1, 2, 10)]
    remove_spool(found[0])
    assert spools_of(tmp_path, "j") == found[1:]
    for path in found:
        remove_spool(path)
    assert not (tmp_path / "j").exists()


def test_a_spool_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    assert SpoolReader(tmp_path / "none.spool").read() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_does_not_stop_a_step() -> None:
    """DESIGN, promise 5: telemetry can neither kill nor lie."""
    writer = SpoolWriter(Path("/dev/full"), RUN, 1)
    writer.append(1, {"train/loss": 1.0})
    writer.append(2, {"train/loss": 0.5})
    writer.close()
