"""Reading points: of many runs at once, at one instant, as a curve per run and metric."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from finemesh.tracking.domain import MAX_STEP, Curve, RunPoints

# What is read at once: about 70 MB while it is being sorted into curves.
MAX_READ_POINTS: Final = 1_000_000

Curves = dict[str, dict[str, Curve]]
"""By run and metric."""


class Extent(NamedTuple):
    """Points of a curve, repeated steps included, and its first and last step."""

    points: int
    first_step: int
    last_step: int


class Snapshot:
    """The file at one instant, for one thread. Made by `PointFile.snapshot`."""

    def __init__(self, cursor: Any, runs: Mapping[str, int], metrics: Mapping[str, int]) -> None:
        self._cursor = cursor
        self._runs = runs
        self._metrics = metrics

    def curves(
        self, runs: Sequence[str], keys: Iterable[str] | None = None, first: int = 0, last: int = MAX_STEP
    ) -> Curves:
        """Points from step `first` to `last` of `keys`, or of all metrics, as they were appended."""
        wanted = {self._runs[run]: run for run in runs if run in self._runs}
        condition = self._condition(wanted, keys, first, last)
        query = f"SELECT run_key, metric_key, attempt, step, time, value FROM everything WHERE {condition}"  # noqa: S608
        table = self._cursor.sql(query).to_arrow_table()
        columns = {name: table[name].to_numpy() for name in table.column_names}
        names = {metric_key: key for key, metric_key in self._metrics.items()}
        return _by_curve(columns, wanted, names)

    def extents(self, run: str, keys: Iterable[str] | None, first: int, last: int) -> dict[str, Extent]:
        """Per metric that has points from step `first` to `last`, how far they go."""
        wanted = {self._runs[run]: run} if run in self._runs else {}
        condition = self._condition(wanted, keys, first, last)
        query = (
            "SELECT key, count(*), min(step), max(step) FROM everything JOIN metrics USING (metric_key)"  # noqa: S608
            f" WHERE {condition} GROUP BY key ORDER BY key"
        )
        rows = self._cursor.execute(query).fetchall()
        return {key: Extent(*numbers) for key, *numbers in rows}

    def keys(self, run: str) -> list[str]:
        """The metrics of a run."""
        return list(self.extents(run, None, 0, MAX_STEP))

    def marks(self, run: str) -> tuple[dict[int, int], int]:
        """Per attempt the last durable batch, and how many points the senders left out."""
        query = "SELECT attempt, sequence, thinned FROM marks WHERE run_key = ?"
        rows = self._cursor.execute(query, [self._runs.get(run)]).fetchall()
        return {attempt: sequence for attempt, sequence, _ in rows}, sum(row[2] for row in rows)

    def read(self, run: str, keys: Iterable[str] | None = None) -> RunPoints:
        """All points of a run, of `keys` or of all metrics."""
        return RunPoints(self.curves([run], keys).get(run, {}), *self.marks(run))

    def _condition(self, runs: Mapping[int, str], keys: Iterable[str] | None, first: int, last: int) -> str:
        condition = f"run_key IN ({_listed(runs)})"
        if keys is not None:
            known = [self._metrics[key] for key in keys if key in self._metrics]
            condition += f" AND metric_key IN ({_listed(known)})"
        if first > 0:
            condition += f" AND step >= {first}"
        if last < MAX_STEP:
            condition += f" AND step <= {last}"
        return condition


def _listed(keys: Iterable[int]) -> str:
    return ", ".join(str(key) for key in keys) or "NULL"


def _by_curve(columns: dict[str, Any], runs: Mapping[int, str], names: Mapping[int, str]) -> Curves:
    """Columns of many curves, one by one, each in the order its points were appended."""
    curves: Curves = {run: {} for run in runs.values()}
    count = len(columns["step"])
    if not count:
        return curves
    numbers = _numbers(columns["run_key"], list(runs)).astype(np.int64) * len(names)
    numbers += _numbers(columns["metric_key"], list(names))
    few = len(runs) * len(names) < 2**16  # numpy sorts two bytes by radix
    order = np.argsort(numbers.astype(np.uint16) if few else numbers, kind="stable")
    whole = Curve(columns["step"], columns["value"], columns["time"].view(np.int64), columns["attempt"])
    numbers, whole = numbers[order], whole.take(order)
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), count]
    run_names, metric_names = list(runs.values()), list(names.values())
    for start, end in itertools.pairwise(bounds):
        run, metric = divmod(int(numbers[start]), len(names))
        curves[run_names[run]][metric_names[metric]] = whole.take(slice(start, end))
    return {run: dict(sorted(found.items())) for run, found in curves.items()}


def _numbers(column: npt.NDArray[np.int32], known: Sequence[int]) -> npt.NDArray[np.int32]:
    """For each key its place in `known`."""
    places = np.zeros(max(known) + 1, np.int32)
    places[list(known)] = np.arange(len(known), dtype=np.int32)
    return places[column]
