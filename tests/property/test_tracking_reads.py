"""Points are read as they were appended, wherever they lie in the file and however many at once."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from finemesh.tracking import curves, point_reads
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


@settings(deadline=None, max_examples=25)
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
