"""Reading points: of many runs at once, at one instant, as a curve per run and metric."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from finemesh.tracking.domain import MAX_STEP, Curve, Int64s, joined

# What is read at once: about 70 MB while it is being sorted into curves.
MAX_READ_POINTS: Final = 1_000_000
# What DuckDB hands over at once, small enough for the caches of a processor.
_BATCH_POINTS: Final = 100_000

Int32s = npt.NDArray[np.int32]
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
        sorter = _Sorter(wanted, {metric_key: key for key, metric_key in self._metrics.items()})
        with self._cursor.sql(query).to_arrow_reader(_BATCH_POINTS) as reader:
            for batch in reader:
                sorter.add({name: batch.column(name).to_numpy() for name in reader.schema.names})
                if at_most is not None and sorter.points > at_most:
                    return None
        return sorter.curves()

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


class _Sorter:
    """Sorts columns of many curves, given part by part, into curves; each keeps the order of its points."""

    def __init__(self, runs: Mapping[int, str], metrics: Mapping[int, str]) -> None:
        self.points = 0
        self._runs = list(runs.values())
        self._metrics = list(metrics.values())
        self._run_places, self._metric_places = _places(runs), _places(metrics)
        self._parts: dict[int, list[Curve]] = {}

    def add(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        run_keys, metric_keys = columns["run_key"], columns["metric_key"]
        whole = Curve(columns["step"], columns["value"], columns["time"].view(np.int64), columns["attempt"])
        changes = (run_keys[1:] != run_keys[:-1]) | (metric_keys[1:] != metric_keys[:-1])
        bounds = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(run_keys)]])
        numbers = self._numbers(run_keys[bounds[:-1]], metric_keys[bounds[:-1]])
        if np.any(numbers[1:] < numbers[:-1]):
            each = np.repeat(numbers, np.diff(bounds))
            order = np.argsort(each, kind="stable")
            whole = whole.take(order)
            numbers, firsts = np.unique(each[order], return_index=True)
            bounds = np.append(firsts, len(each))
        for number, (start, end) in zip(numbers.tolist(), itertools.pairwise(bounds.tolist()), strict=True):
            self._parts.setdefault(number, []).append(whole.take(slice(start, end)))
        self.points += len(run_keys)

    def _numbers(self, run_keys: Int32s, metric_keys: Int32s) -> npt.NDArray[Any]:
        """One for each curve; of two bytes where they suffice, which numpy sorts by radix."""
        numbers = self._run_places[run_keys] * len(self._metrics) + self._metric_places[metric_keys]
        return numbers.astype(np.uint16 if len(self._runs) * len(self._metrics) < 2**16 else np.int64)

    def curves(self) -> Curves:
        found: Curves = {run: {} for run in self._runs}
        for number, parts in self._parts.items():
            run, metric = divmod(number, len(self._metrics))
            found[self._runs[run]][self._metrics[metric]] = joined(parts)
        return {run: dict(sorted(curves.items())) for run, curves in found.items()}


def _places(keys: Iterable[int]) -> Int64s:
    """For each key its place among them."""
    known = list(keys)
    places = np.zeros(max(known, default=0) + 1, np.int64)
    places[known] = np.arange(len(known))
    return places
