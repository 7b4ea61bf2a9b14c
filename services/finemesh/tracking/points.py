"""The DuckDB file that holds every point, and how far each attempt's batches are in it.

`points` is append-only and has no index. A commit carries points, dictionaries and marks together, so a batch
is either in the file with its mark or not at all, and a replay is recognised after any crash. Columns go in
as numpy arrays: no row ever becomes a Python object.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np

from finemesh.core.errors import PreconditionError, UnavailableError
from finemesh.tracking.domain import Batch, Curve, Int64s, RunPoints

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
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
"""
# A registered NaN arrives as NULL.
_INSERT_POINTS: Final = """
INSERT INTO points
SELECT run_key, metric_key, attempt, step, time, coalesce(value, 'nan'::DOUBLE) FROM new_points
"""
_UPDATE_MARKS: Final = """
UPDATE marks SET sequence = new_marks.sequence FROM new_marks
WHERE marks.run_key = new_marks.run_key AND marks.attempt = new_marks.attempt
"""

AttemptKey = tuple[str, int]  # run, attempt


class PointFile:
    """One process owns the file. One thread at a time may change it; any thread may read."""

    def __init__(self, path: Path, *, memory_bytes: int, threads: int) -> None:
        self._path = path
        self._settings: dict[str, Any] = {"memory_limit": f"{memory_bytes // 2**20}MiB", "threads": threads}
        self._run_keys: dict[str, int] = {}
        self._metric_keys: dict[str, int] = {}
        self._marks: dict[AttemptKey, int] = {}
        self._connection: Any = None
        self.open()

    def open(self) -> None:
        """Open the file, also after an error that made it unusable, and read dictionaries and marks.

        Raises:
            PreconditionError: POINTS_IN_USE or POINTS_TOO_NEW.
            UnavailableError: POINTS_UNAVAILABLE, the file cannot be read.
        """
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = duckdb.connect(str(self._path), config=self._settings)
            self._connection.execute(_SCHEMA)
            self._check_version()
            self._load()
        except duckdb.Error as error:
            if "lock" in str(error):
                raise PreconditionError(
                    f"{self._path} is in use: stop the other Tracking service of this data directory",
                    reason="POINTS_IN_USE",
                ) from error
            raise _unavailable(error) from error

    @property
    def _is_closed(self) -> bool:
        return self._connection is None

    def close(self) -> None:
        if not self._is_closed:
            with contextlib.suppress(duckdb.Error):
                self._connection.close()
            self._connection = None

    def mark(self, run: str, attempt: int) -> int:
        """The last durable batch of an attempt; 0 if there is none."""
        return self._marks.get((run, attempt), 0)

    def marks(self) -> dict[str, dict[int, int]]:
        """Per run and attempt, the last durable batch."""
        by_run: dict[str, dict[int, int]] = {}
        for (run, attempt), sequence in list(self._marks.items()):
            by_run.setdefault(run, {})[attempt] = sequence
        return by_run

    def append(self, batches: Sequence[Batch]) -> None:
        """Make batches durable, in one transaction; those of an attempt in the order of their numbers.

        Raises UnavailableError, reason POINTS_UNAVAILABLE: none of them is durable.
        """
        runs = _missing((batch.run for batch in batches), self._run_keys)
        metrics = _missing((key for batch in batches for key in batch.keys), self._metric_keys)
        run_keys, metric_keys = self._run_keys | runs, self._metric_keys | metrics
        marks = {(batch.run, batch.attempt): batch.sequence for batch in batches}
        with self._transaction():
            self._insert("runs", {"run_key": list(runs.values()), "run": list(runs)})
            self._insert("metrics", {"metric_key": list(metrics.values()), "key": list(metrics)})
            self._insert_points(batches, run_keys, metric_keys)
            self._write_marks(marks, run_keys)
        self._run_keys, self._metric_keys = run_keys, metric_keys
        self._marks |= marks

    def delete(self, run: str) -> None:
        """Remove a run's points and marks. Raises UnavailableError."""
        run_key = self._run_keys.get(run)
        if run_key is None:
            return
        with self._transaction():
            for table in ("points", "marks", "runs"):
                self._connection.execute(f"DELETE FROM {table} WHERE run_key = ?", [run_key])  # noqa: S608
        self._run_keys = {name: key for name, key in self._run_keys.items() if name != run}
        self._marks = {key: mark for key, mark in self._marks.items() if key[0] != run}

    def read(self, run: str, keys: Iterable[str] | None = None) -> RunPoints:
        """The points of a run, of `keys` or of all metrics, with the marks of the same instant.

        Raises UnavailableError.
        """
        run_key, known = self._run_keys.get(run), self._metric_keys
        wanted = None if keys is None else [known[key] for key in keys if key in known]
        if run_key is None:
            return RunPoints({}, {})
        query = "SELECT metric_key, step, value, time, attempt FROM points WHERE run_key = ?"
        if wanted is not None:
            query += f" AND metric_key IN ({', '.join(str(key) for key in wanted) or 'NULL'})"
        if self._is_closed:
            raise _unavailable(FileNotFoundError("it is closed"))
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                columns = cursor.execute(query, [run_key]).fetchnumpy()
                marks = cursor.execute("SELECT attempt, sequence FROM marks WHERE run_key = ?", [run_key])
                return RunPoints(_curves(columns, self._names()), dict(marks.fetchall()))
        except duckdb.Error as error:
            raise _unavailable(error) from error

    def _names(self) -> dict[int, str]:
        return {metric_key: key for key, metric_key in self._metric_keys.items()}

    def _check_version(self) -> None:
        row = self._connection.execute("SELECT version FROM schema_version").fetchone()
        if row is None:
            self._connection.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
        elif row[0] > SCHEMA_VERSION:
            raise PreconditionError(
                f"{self._path} has schema {row[0]}, above {SCHEMA_VERSION}: start the release that wrote it",
                reason="POINTS_TOO_NEW",
            )

    def _load(self) -> None:
        rows = self._connection.execute
        self._run_keys = {run: key for key, run in rows("SELECT run_key, run FROM runs").fetchall()}
        self._metric_keys = {
            name: key for key, name in rows("SELECT metric_key, key FROM metrics").fetchall()
        }
        query = "SELECT run, attempt, sequence FROM marks JOIN runs USING (run_key)"
        self._marks = {(run, attempt): sequence for run, attempt, sequence in rows(query).fetchall()}

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        """All or nothing. After an error the file is opened anew, which restores what is true."""
        try:
            if self._is_closed:
                self.open()
            self._connection.begin()
            yield
            self._connection.commit()
        except Exception as error:
            self.open()
            raise _unavailable(error) from error

    def _insert(self, table: str, columns: dict[str, list[Any]]) -> None:
        rows = list(zip(*columns.values(), strict=True))
        if rows:
            places = ", ".join("?" for _ in columns)
            self._connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608

    def _insert_points(
        self, batches: Sequence[Batch], run_keys: dict[str, int], metric_keys: dict[str, int]
    ) -> None:
        filled = [batch for batch in batches if len(batch)]
        if not filled:
            return
        lengths = [len(batch) for batch in filled]
        keys = [np.array([metric_keys[key] for key in batch.keys], np.int32) for batch in filled]
        columns = {
            "run_key": np.repeat(np.array([run_keys[batch.run] for batch in filled], np.int32), lengths),
            "metric_key": np.concatenate([k[b.key_indices] for k, b in zip(keys, filled, strict=True)]),
            "attempt": np.repeat(np.array([batch.attempt for batch in filled], np.int16), lengths),
            "step": np.concatenate([batch.steps for batch in filled]),
            "time": np.concatenate([batch.times_us for batch in filled]).view("datetime64[us]"),
            "value": np.concatenate([batch.values for batch in filled]),
        }
        with self._registered("new_points", columns):
            self._connection.execute(_INSERT_POINTS)

    def _write_marks(self, marks: dict[AttemptKey, int], run_keys: dict[str, int]) -> None:
        fresh = [
            (run_keys[run], attempt, n) for (run, attempt), n in marks.items() if not self.mark(run, attempt)
        ]
        moved = [
            (run_keys[run], attempt, n) for (run, attempt), n in marks.items() if self.mark(run, attempt)
        ]
        if fresh:
            self._connection.executemany("INSERT INTO marks VALUES (?, ?, ?)", fresh)
        if moved:
            names = ("run_key", "attempt", "sequence")
            columns = {
                name: np.array(part) for name, part in zip(names, zip(*moved, strict=True), strict=True)
            }
            with self._registered("new_marks", columns):
                self._connection.execute(_UPDATE_MARKS)

    @contextlib.contextmanager
    def _registered(self, name: str, columns: dict[str, Any]) -> Generator[None]:
        self._connection.register(name, columns)
        yield
        self._connection.unregister(name)


def _missing(names: Iterable[str], known: dict[str, int]) -> dict[str, int]:
    """Keys for the names that have none yet, counting on from the highest."""
    fresh = [name for name in dict.fromkeys(names) if name not in known]
    first = max(known.values(), default=0) + 1
    return {name: first + index for index, name in enumerate(fresh)}


def _curves(columns: dict[str, Any], names: dict[int, str]) -> dict[str, Curve]:
    """Columns of all metrics as a curve per metric, each in the order its points were appended."""
    order = np.argsort(columns["metric_key"], kind="stable")
    metric_keys = columns["metric_key"][order]
    times_us: Int64s = columns["time"].view(np.int64)
    whole = Curve(columns["step"], columns["value"], times_us, columns["attempt"]).take(order)
    bounds = [0, *(np.flatnonzero(np.diff(metric_keys)) + 1).tolist(), len(metric_keys)]
    spans = [(start, end) for start, end in itertools.pairwise(bounds) if end > start]
    curves = {names[int(metric_keys[start])]: whole.take(slice(start, end)) for start, end in spans}
    return dict(sorted(curves.items()))


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(
        f"the points file did not take or give the points ({type(error).__name__}: {error}): nothing is lost,"
        " send them again; see that the disk is neither full nor read-only",
        reason="POINTS_UNAVAILABLE",
    )
