"""The DuckDB file that holds every point, and how far each attempt's batches are in it.

Points are appended and have no index. A commit carries points, dictionaries and marks together, so a batch is
either in the file with its mark or not at all, and a replay is recognised after any crash. Columns go in and
out as arrays: no row ever becomes a Python object. What moves points on is `finemesh.tracking.segments`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from finemesh.core.errors import PreconditionError, UnavailableError
from finemesh.tracking.domain import Batch, RunPoints
from finemesh.tracking.point_reads import Snapshot
from finemesh.tracking.point_schema import COLUMNS, POINT_TABLES, prepare

# A registered NaN arrives as NULL.
_INSERT_POINTS: Final = f"""
INSERT INTO tail
SELECT {COLUMNS.removesuffix("value")} coalesce(value, 'nan'::DOUBLE) FROM new_points
"""  # noqa: S608  constants
_UPDATE_MARKS: Final = """
UPDATE marks SET sequence = new_marks.sequence, thinned = new_marks.thinned FROM new_marks
WHERE marks.run_key = new_marks.run_key AND marks.attempt = new_marks.attempt
"""

# More in the tail than this would leave holes in the file as large; commits wait for the next cut.
MAX_TAIL_POINTS: Final = 1_500_000
_ROOM_SECONDS: Final = 5.0
# A reader that a slow client holds up must not hold up those who write.
_LEAVE_SECONDS: Final = 5.0

AttemptKey = tuple[str, int]  # run, attempt
Mark = tuple[int, int]  # the last durable batch, and how many points the sender left out up to it


class PointFile:
    """One process owns the file. Any thread may read; changes wait for one another."""

    def __init__(self, path: Path, *, memory_bytes: int, threads: int) -> None:
        self.path = path
        self.moving = threading.Lock()  # held by whoever moves or deletes points that lie in the file
        self._changing = threading.RLock()
        self._leaving = threading.Condition()
        self._cursors = 0
        self._room = threading.Condition()
        self._tail_points = 0
        self._settings: dict[str, Any] = {"memory_limit": f"{memory_bytes // 2**20}MiB", "threads": threads}
        self._run_keys: dict[str, int] = {}
        self._metric_keys: dict[str, int] = {}
        self._marks: dict[AttemptKey, Mark] = {}
        self._connection: Any = None
        self.open()

    def open(self) -> None:
        """Open the file, also after an error that made it unusable, and read dictionaries and marks.

        Raises:
            PreconditionError: POINTS_IN_USE or POINTS_TOO_NEW.
            UnavailableError: POINTS_UNAVAILABLE, the file cannot be read.
        """
        with self._changing:
            self.close()
            # DuckDB waits for the last instance of a file to be gone, and would for ever if one of our
            # threads let go of it meanwhile.
            with self._leaving:
                self._leaving.wait_for(lambda: not self._cursors, _LEAVE_SECONDS)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._connection = duckdb.connect(str(self.path), config=self._settings)
                prepare(self._connection, str(self.path))
                self._load()
            except duckdb.Error as error:
                self.close()
                if "lock" in str(error):
                    raise PreconditionError(
                        f"{self.path} is in use: stop the other Tracking service of this data directory",
                        reason="POINTS_IN_USE",
                    ) from error
                raise unavailable(error) from error

    @property
    def _is_closed(self) -> bool:
        return self._connection is None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(duckdb.Error):
                connection.close()

    def heal(self) -> None:
        """Open the file anew if an error made it unusable. Raises UnavailableError while it stays so."""
        with self._changing:
            try:
                if not self._is_closed:
                    self._connection.execute("SELECT version FROM schema_version").fetchall()
                    return
            except duckdb.Error:
                pass
            self.open()

    def mark(self, run: str, attempt: int) -> int:
        """The last durable batch of an attempt; 0 if there is none."""
        return self._marks.get((run, attempt), (0, 0))[0]

    def thinned(self, run: str, attempt: int) -> int:
        """Points that the sender of an attempt left out."""
        return self._marks.get((run, attempt), (0, 0))[1]

    def marks(self) -> dict[str, dict[int, int]]:
        """Per run and attempt, the last durable batch."""
        by_run: dict[str, dict[int, int]] = {}
        for (run, attempt), (sequence, _) in list(self._marks.items()):
            by_run.setdefault(run, {})[attempt] = sequence
        return by_run

    def append(self, batches: Sequence[Batch]) -> None:
        """Make batches durable, in one transaction; those of an attempt in the order of their numbers.

        Raises UnavailableError, reason POINTS_UNAVAILABLE: none of them is durable.
        """
        runs = _missing((batch.run for batch in batches), self._run_keys)
        metrics = _missing((key for batch in batches for key in batch.keys), self._metric_keys)
        run_keys, metric_keys = self._run_keys | runs, self._metric_keys | metrics
        marks = self._moved(batches)
        with self._transaction():
            self._insert("runs", list(runs.values()), list(runs))
            self._insert("metrics", list(metrics.values()), list(metrics))
            self._insert_points(batches, run_keys, metric_keys)
            self._write_marks(marks, run_keys)
        self._run_keys, self._metric_keys = run_keys, metric_keys
        self._marks |= marks
        with self._room:
            self._tail_points += sum(len(batch) for batch in batches)

    def note_cut(self, points: int) -> None:
        """So many points have left the tail."""
        with self._room:
            self._tail_points -= points
            self._room.notify_all()

    def reclaim(self) -> None:
        """Give the room of points that have moved on back to the file, while nothing is being committed."""
        with self._changing, contextlib.suppress(UnavailableError), self.cursor() as cursor:
            cursor.execute("CHECKPOINT")

    def wait_for_room(self) -> None:
        """Until the tail has room, or so long that it seems that nobody cuts it."""
        with self._room:
            self._room.wait_for(lambda: self._tail_points < MAX_TAIL_POINTS, _ROOM_SECONDS)

    def delete(self, run: str) -> None:
        """Remove a run's points and marks. Raises UnavailableError."""
        run_key = self._run_keys.get(run)
        if run_key is None:
            return
        with self.moving:
            with self._transaction():
                for table in (*POINT_TABLES, "marks", "runs"):
                    self._connection.execute(f"DELETE FROM {table} WHERE run_key = ?", [run_key])  # noqa: S608
                self._connection.execute("INSERT INTO deleted VALUES (?)", [run])
            self._run_keys = {name: key for name, key in self._run_keys.items() if name != run}
            self._marks = {key: mark for key, mark in self._marks.items() if key[0] != run}

    def read(self, run: str, keys: Iterable[str] | None = None) -> RunPoints:
        """The points of a run, of `keys` or of all metrics, with the marks of the same instant.

        Raises UnavailableError.
        """
        with self.snapshot() as snapshot:
            return RunPoints(snapshot.read(run, keys), snapshot.marks(run))

    @contextlib.contextmanager
    def snapshot(self) -> Generator[Snapshot]:
        """The file as it is now, for one thread. Raises UnavailableError."""
        with self.cursor() as cursor:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            # The first query settles which instant it is; dictionaries only grow.
            cursor.execute("SELECT version FROM schema_version").fetchall()
            yield Snapshot(cursor, self._run_keys, self._metric_keys)

    @contextlib.contextmanager
    def cursor(self) -> Generator[Any]:
        """A connection of its own to the file. Raises UnavailableError for any error of it or the disk."""
        with self._leaving:
            if self._is_closed:
                raise unavailable(FileNotFoundError("it is closed"))
            cursor = self._connection.cursor()
            self._cursors += 1
        try:
            with cursor:
                yield cursor
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise unavailable(error) from error
        finally:
            del cursor
            with self._leaving:
                self._cursors -= 1
                self._leaving.notify_all()

    def _load(self) -> None:
        rows = self._connection.execute
        self._run_keys = {run: key for key, run in rows("SELECT run_key, run FROM runs").fetchall()}
        self._metric_keys = {
            name: key for key, name in rows("SELECT metric_key, key FROM metrics").fetchall()
        }
        query = "SELECT run, attempt, sequence, thinned FROM marks JOIN runs USING (run_key)"
        self._marks = {
            (run, attempt): (last, thinned) for run, attempt, last, thinned in rows(query).fetchall()
        }

        [(self._tail_points,)] = rows("SELECT count(*) FROM tail").fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        """All or nothing. After an error the file is opened anew, which restores what is true."""
        with self._changing:
            try:
                if self._is_closed:
                    self.open()
                self._connection.begin()
                yield
                self._connection.commit()
            except Exception as error:
                self.open()
                raise unavailable(error) from error

    def _moved(self, batches: Sequence[Batch]) -> dict[AttemptKey, Mark]:
        """The marks of the attempts of these batches, once they are durable."""
        marks: dict[AttemptKey, Mark] = {}
        for batch in batches:
            key = (batch.run, batch.attempt)
            _, thinned = marks.get(key) or self._marks.get(key, (0, 0))
            marks[key] = (batch.sequence, thinned + batch.thinned_points)
        return marks

    def _insert(self, table: str, *columns: Sequence[Any]) -> None:
        """One statement for all rows: DuckDB takes half a millisecond for each."""
        if columns and columns[0]:
            lists = ", ".join("unnest(?)" for _ in columns)
            self._connection.execute(f"INSERT INTO {table} SELECT {lists}", columns)

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

    def _write_marks(self, marks: dict[AttemptKey, Mark], run_keys: dict[str, int]) -> None:
        rows = {key: (run_keys[key[0]], key[1], *mark) for key, mark in marks.items()}
        fresh = [row for key, row in rows.items() if key not in self._marks]
        moved = [row for key, row in rows.items() if key in self._marks]
        self._insert("marks", *(list(column) for column in zip(*fresh, strict=True)))
        if moved:
            names = ("run_key", "attempt", "sequence", "thinned")
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


def unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(
        f"the points file did not take or give the points ({type(error).__name__}: {error}): nothing is lost,"
        " send them again; see that the disk is neither full nor read-only",
        reason="POINTS_UNAVAILABLE",
    )
