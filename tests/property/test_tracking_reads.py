"""Points are read as they were appended, wherever they lie in the file and however many at once."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from finemesh.tracking import curves, past, point_reads
from finemesh.tracking.curves import drawn, series_of
from finemesh.tracking.domain import Batch
from finemesh.tracking.points import PointFile
from hypothesis import given, settings
from hypothesis import strategies as st

RUNS = ("projects/p/runs/a", "projects/p/runs/b", "projects/p/runs/c")
KEYS = ("loss", "speed")
VALUES = st.sampled_from([0.0, 1.5, -2.0, math.nan, math.inf, -math.inf])
# Run, attempt, and (key, step, value) of each point: steps come late, again, and in any order.
POINTS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 300) | st.integers(0, 12), VALUES), max_size=12)
BATCHES = st.lists(st.tuples(st.sampled_from(RUNS), st.integers(1, 3), POINTS), max_size=12)
Model = dict[tuple[str, str], dict[int, tuple[int, float]]]  # run, key -> step -> attempt, value


def batches_of(drawn_batches: Sequence[tuple[str, int, list[tuple[int, int, float]]]]) -> list[Batch]:
    numbers: dict[tuple[str, int], int] = {}
    made: list[Batch] = []
    for run, attempt, points in drawn_batches:
        number = numbers[run, attempt] = numbers.get((run, attempt), 0) + 1
        made.append(
            Batch(
                run=run,
                attempt=attempt,
                sequence=number,
                keys=KEYS,
                key_indices=np.array([key for key, _, _ in points], np.int64),
                steps=np.array([step for _, step, _ in points], np.int64),
                values=np.array([value for _, _, value in points], np.float64),
                times_us=np.array([step * 7 for _, step, _ in points], np.int64),
            )
        )
    return made


def model_of(batches: Sequence[Batch]) -> Model:
    """One curve per metric: of a step the highest attempt counts, and of that what came last."""
    model: Model = {}
    for each in batches:
        for key, step, value in zip(each.key_indices, each.steps, each.values, strict=True):
            curve = model.setdefault((each.run, KEYS[key]), {})
            if each.attempt >= curve.get(int(step), (0, 0.0))[0]:
                curve[int(step)] = each.attempt, float(value)
    return model


@settings(deadline=None, max_examples=15)
@given(made=BATCHES.map(batches_of), at_once=st.integers(1, 40))
def test_late_and_resumed_points_resolve_to_one_curve_however_they_are_read(
    made: list[Batch], at_once: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = PointFile(Path(folder) / "points.duckdb", memory_bytes=64 << 20, threads=1)
        for each in made:
            file.append([each])
        whole = [s for run in RUNS for s in series_of(run, file.read(run).curves, max_points=60)]
        everything = drawn(file, RUNS, None, max_points=10_000)
        patch.setattr(curves, "MAX_READ_POINTS", at_once)
        patch.setattr(point_reads, "MAX_READ_POINTS", at_once)
        pieces = drawn(file, RUNS, None, max_points=60)
        file.close()
    found: Model = {
        (each.run, each.key): {
            step: (attempt, value)
            for step, attempt, value in zip(
                each.curve.steps.tolist(),
                each.curve.attempts.tolist(),
                each.curve.values.tolist(),
                strict=True,
            )
        }
        for each in everything
    }
    assert repr(found) == repr({key: dict(sorted(model_of(made)[key].items())) for key in found})
    assert found.keys() == model_of(made).keys()
    for small, large in zip(pieces, whole, strict=True):
        assert (small.run, small.key, small.total_points) == (large.run, large.key, large.total_points)
        for ours, theirs in zip(columns(small.curve), columns(large.curve), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def columns(curve: curves.Curve) -> tuple[np.ndarray, ...]:
    return curve.steps, curve.values, curve.times_us, curve.attempts


@settings(deadline=None, max_examples=15)
@given(made=BATCHES.map(batches_of), before=st.integers(0, 12), at_once=st.integers(1, 40))
def test_a_watcher_gets_each_point_once_whatever_comes_meanwhile(
    made: list[Batch], before: int, at_once: int
) -> None:
    late = iter(made[before:])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "MAX_READ_POINTS", at_once)
        file = PointFile(Path(folder) / "points.duckdb", memory_bytes=64 << 20, threads=1)
        for each in made[:before]:
            file.append([each])
        watched = past.Past(file, RUNS[0], ())
        seen: list[Mapping[str, curves.Curve]] = []
        for part in watched.parts():
            seen.append(part)
            append_one(file, late)
        while append_one(file, late):
            pass
        seen.append(watched.later([each for each in made[before:] if each.run == RUNS[0]]))
        file.close()
    got = [(key, *row) for part in seen for key, curve in part.items() for row in rows_of(curve)]
    given_points = [
        (KEYS[key], step, repr(value), each.attempt)
        for each in made
        if each.run == RUNS[0]
        for key, step, value in zip(each.key_indices, each.steps, each.values.tolist(), strict=True)
    ]
    assert sorted(got) == sorted(given_points)


def append_one(file: PointFile, late: Iterator[Batch]) -> bool:
    for each in late:
        file.append([each])
        return True
    return False


def rows_of(curve: curves.Curve) -> list[tuple[int, str, int]]:
    values = map(repr, curve.values.tolist())
    return list(zip(curve.steps.tolist(), values, curve.attempts.tolist(), strict=True))


def test_points_that_come_mixed_are_sorted_into_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_reads, "_BATCH_POINTS", 2048)
    rng, count = np.random.default_rng(0), 9_000
    file = PointFile(tmp_path / "points.duckdb", memory_bytes=64 << 20, threads=1)
    key_indices, steps = rng.integers(0, 2, count), rng.integers(0, 50, count)
    for run in RUNS[:2]:
        file.append([Batch(run, 1, 1, KEYS, key_indices, steps, np.arange(count) / 2, steps * 7)])
    with file.snapshot() as snapshot:
        found = snapshot.curves(RUNS)
        assert snapshot.curves(RUNS, at_most=2 * count) is not None
        assert snapshot.curves(RUNS, at_most=2 * count - 1) is None
    file.close()
    assert found is not None
    for run in RUNS[:2]:
        for index, key in enumerate(KEYS):
            of_key = key_indices == index
            np.testing.assert_array_equal(found[run][key].steps, steps[of_key])
            np.testing.assert_array_equal(found[run][key].values, np.arange(count)[of_key] / 2)
