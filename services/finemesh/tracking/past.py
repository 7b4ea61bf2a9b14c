"""The points that a watcher is sent before the new ones, in parts that memory holds, each point once.

Each part, a metric or a range of its steps, is read at an instant of its own, so that a slow watcher holds
no state of the points file open. What has come since the first part was read may be in a later one, and in
the batches that follow: marks tell, part by part, which batches of each attempt it holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from finemesh.tracking.domain import MAX_STEP, Batch, Curve, Int64s, joined
from finemesh.tracking.point_reads import MAX_READ_POINTS
from finemesh.tracking.ports import PointReader

Marks = Mapping[int, int]


class Past:
    """The past of one run, and what of later batches it does not hold. `keys` empty means all metrics."""

    def __init__(self, points: PointReader, run: str, keys: Sequence[str]) -> None:
        self._points = points
        self._run = run
        self._keys = keys
        self._first: Marks = {}  # as of when the metrics were listed, for those that there were none of
        self._parts: dict[str, list[tuple[int, Marks]]] = {}  # by metric: from which step on, up to where

    def parts(self) -> Generator[Mapping[str, Curve]]:
        """At most MAX_READ_POINTS at once where steps are spread evenly. Blocks. Raises UnavailableError."""
        with self._points.snapshot() as snapshot:
            self._first = snapshot.marks(self._run)
            extents = snapshot.extents(self._run, self._keys or None, 0, MAX_STEP)
        for key, extent in extents.items():
            count = -(-extent.points // MAX_READ_POINTS)
            inner = np.linspace(extent.first_step, extent.last_step + 1, count + 1, dtype=np.int64)[1:-1]
            starts = [0, *inner.tolist(), MAX_STEP + 1]
            for start, end in itertools.pairwise(starts):
                with self._points.snapshot() as snapshot:
                    self._parts.setdefault(key, []).append((start, snapshot.marks(self._run)))
                    curves = snapshot.read(self._run, [key], start, end - 1)
                yield curves

    def later(self, batches: Sequence[Batch]) -> dict[str, Curve]:
        """The points of committed batches that no part holds, by metric, in the order they came."""
        return gathered(batches, self._keys, self)

    def lacks(self, key: str, batch: Batch, steps: Int64s) -> npt.NDArray[np.bool_]:
        """Which of a metric's points of a batch, by their steps, no part holds."""
        lacking = np.full(len(steps), batch.sequence > self._first.get(batch.attempt, 0))
        for start, marks in self._parts.get(key, ()):
            lacking[steps >= start] = batch.sequence > marks.get(batch.attempt, 0)
        return lacking


def gathered(
    batches: Sequence[Batch], keys: Sequence[str] = (), past: Past | None = None
) -> dict[str, Curve]:
    """The points of batches of one run by metric, in the order they came; all metrics if `keys` is empty.

    Without those that `past` holds.
    """
    parts: dict[str, list[Curve]] = {}
    for batch in batches:
        for index, key in enumerate(batch.keys):
            chosen = np.flatnonzero(batch.key_indices == index)
            if past is not None:
                chosen = chosen[past.lacks(key, batch, batch.steps[chosen])]
            if len(chosen) and (not keys or key in keys):
                attempts = np.full(len(batch), batch.attempt, np.int16)
                whole = Curve(batch.steps, batch.values, batch.times_us, attempts)
                parts.setdefault(key, []).append(whole.take(chosen))
    return {key: joined(curves) for key, curves in parts.items()}
