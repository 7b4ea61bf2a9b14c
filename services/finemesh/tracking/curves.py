"""From stored points to series that can be sent: resolved, cut to a range of steps, downsampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from finemesh.tracking.domain import Batch, Curve, Series, resolve
from finemesh.tracking.downsample import downsample

MAX_MESSAGE_POINTS: Final = 50_000


def series_of(
    run: str,
    curves: Mapping[str, Curve],
    *,
    max_points: int | None = None,
    min_step: int = 0,
    max_step: int = 0,
) -> list[Series]:
    """One series per metric that has points from `min_step` up to `max_step` (0: no limit), by key."""
    found: list[Series] = []
    for key in sorted(curves):
        curve = _between(resolve(curves[key]), min_step, max_step)
        if len(curve):
            drawn = curve if max_points is None else downsample(curve, max_points)
            found.append(Series(run, key, drawn, len(curve)))
    return found


def gathered(batches: Sequence[Batch], keys: Sequence[str]) -> dict[str, Curve]:
    """The points of batches of one run by metric, in the order they came; all metrics if `keys` is empty."""
    parts: dict[str, list[Curve]] = {}
    for batch in batches:
        for index, key in enumerate(batch.keys):
            chosen = np.flatnonzero(batch.key_indices == index)
            if len(chosen) and (not keys or key in keys):
                attempts = np.full(len(batch), batch.attempt, np.int16)
                whole = Curve(batch.steps, batch.values, batch.times_us, attempts)
                parts.setdefault(key, []).append(whole.take(chosen))
    return {key: _joined(curves) for key, curves in parts.items()}


def in_messages(series: Series) -> Iterator[Series]:
    """A series in parts that fit into a message."""
    for start in range(0, len(series.curve), MAX_MESSAGE_POINTS):
        part = series.curve.take(slice(start, start + MAX_MESSAGE_POINTS))
        yield Series(series.run, series.key, part, len(part))


def _between(curve: Curve, min_step: int, max_step: int) -> Curve:
    start = int(np.searchsorted(curve.steps, min_step, side="left"))
    end = int(np.searchsorted(curve.steps, max_step, side="right")) if max_step else len(curve)
    return curve.take(slice(start, end))


def _joined(curves: Sequence[Curve]) -> Curve:
    return Curve(
        np.concatenate([each.steps for each in curves]),
        np.concatenate([each.values for each in curves]),
        np.concatenate([each.times_us for each in curves]),
        np.concatenate([each.attempts for each in curves]),
    )
