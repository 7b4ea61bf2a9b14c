"""Reading points: of many runs at once, at one instant, as a curve per run and metric."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from finemesh.tracking.domain import MAX_STEP, Curve

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
        self,
        runs: Sequence[str],
        keys: Iterable[str] | None = None,
        first: int = 0,
        last: int = MAX_STEP,
        at_most: int | None = None,
    ) -> Curves | None:
        """Points from step `first` to `last` of `keys`, or of all metrics, in the order of their coming.

        None if they are more than `at_most`.
        """
        wanted = {self._runs[run]: run for run in runs if run in self._runs}
        condition = self._condition(wanted, keys, first, last)
        query = f"SELECT run_key, metric_key, attempt, step, time, value FROM everything WHERE {condition}"  # noqa: S608
        if at_most is not None:
            query += f" LIMIT {at_most + 1}"
        table = self._cursor.sql(query).to_arrow_table()
        if at_most is not None and table.num_rows > at_most:
            return None
        columns = {name: table[name].to_numpy() for name in table.column_names}
        names = {metric_key: key for key, metric_key in self._metrics.items()}
        return _by_curve(columns, wanted, names)

    def read(
        self, run: str, keys: Iterable[str] | None = None, first: int = 0, last: int = MAX_STEP
    ) -> dict[str, Curve]:
        """The same of one run, however many they are."""
        return (self.curves([run], keys, first, last) or {}).get(run, {})

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

    def sizes(
        self, runs: Sequence[str], keys: Iterable[str] | None = None, first: int = 0, last: int = MAX_STEP
    ) -> dict[str, int]:
        """Points of each run that has any from step `first` to `last`, of `keys` or of all metrics."""
        wanted = {self._runs[run]: run for run in runs if run in self._runs}
        condition = self._condition(wanted, keys, first, last)
        query = f"SELECT run_key, count(*) FROM everything WHERE {condition} GROUP BY run_key"  # noqa: S608
        return {wanted[run_key]: count for run_key, count in self._cursor.execute(query).fetchall()}

    def starts(self, runs: Sequence[str]) -> dict[str, int]:
        """When the first point of each run was measured, in microseconds since 1970 UTC."""
        wanted = {self._runs[run]: run for run in runs if run in self._runs}
        condition = _one_of("run_key", wanted)
        query = f"SELECT run_key, epoch_us(min(time)) FROM everything WHERE {condition} GROUP BY run_key"  # noqa: S608
        return {wanted[run_key]: start for run_key, start in self._cursor.execute(query).fetchall()}

    def marks(self, run: str) -> dict[int, int]:
        """Per attempt of a run, the last durable batch."""
        query = "SELECT attempt, sequence FROM marks WHERE run_key = ?"
        return dict(self._cursor.execute(query, [self._runs.get(run)]).fetchall())

    def thinned(self, runs: Sequence[str]) -> dict[str, int]:
        """Points that the senders left out, of each run where they did."""
        wanted = {self._runs[run]: run for run in runs if run in self._runs}
        query = f"SELECT run_key, thinned FROM marks WHERE thinned > 0 AND {_one_of('run_key', wanted)}"  # noqa: S608
        found: dict[str, int] = {}
        for run_key, count in self._cursor.execute(query).fetchall():
            found[wanted[run_key]] = found.get(wanted[run_key], 0) + count
        return found

    def _condition(self, runs: Mapping[int, str], keys: Iterable[str] | None, first: int, last: int) -> str:
        condition = _one_of("run_key", runs)
        if keys is not None:
            known = [self._metrics[key] for key in keys if key in self._metrics]
            condition += f" AND {_one_of('metric_key', known)}"
        if first > 0:
            condition += f" AND step >= {first}"
        if last < MAX_STEP:
            condition += f" AND step <= {last}"
        return condition


def _one_of(column: str, keys: Iterable[int]) -> str:
    return f"{column} IN ({', '.join(str(key) for key in keys) or 'NULL'})"


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
