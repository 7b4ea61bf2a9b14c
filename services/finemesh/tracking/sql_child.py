"""The process that answers one query of SQL, and can do nothing else. sql_process.py starts it as a script.

It is told the query and given rows on stdin, and holds them in a DuckDB in memory: there is nothing else in
this process that a query could find. DuckDB is told to open no file or connection and to take no setting, and
a transaction that only reads is begun. What DuckDB might still do is bounded by the system: processor time,
memory, and, once the rows are here, not one file or socket can be opened any more.

stdin: a line of JSON, then an Arrow IPC stream for each of its `tables`, in that order.
stdout: frames of a kind (one byte), a length (4 bytes, little endian) and a payload:
`A` bytes of one Arrow IPC stream; `C` columns and `R` rows as JSON; `D` done; `E` an error as JSON.
"""

from __future__ import annotations

import json
import math
import resource
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import duckdb
import pyarrow as pa

BATCH_ROWS: Final = 4_096
_SAFE_INTEGER: Final = 2**53  # beyond it, readers of JSON differ
# What JSON has a word for; everything else is sent as DuckDB writes it.
_PLAIN: Final = frozenset(
    {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
    | {"FLOAT", "DOUBLE", "VARCHAR"}
)
SETTINGS: Final[dict[str, Any]] = {
    "enable_external_access": "false",
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # else a name in a query may mean a variable of this module
    "temp_directory": "",
    "threads": 1,
}
_READING: Final = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


class RefusedError(Exception):
    """Why a query is not answered; `kind` is one of those that sql_process.py knows."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Answers:
    """Frames on stdout; also the file that Arrow writes to."""

    closed = False

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._arrow = bytearray()

    def send(self, kind: bytes, payload: bytes) -> None:
        self._out.write(kind + struct.pack("<I", len(payload)) + payload)
        self._out.flush()

    def send_json(self, kind: bytes, value: Any) -> None:
        self.send(kind, json.dumps(value, allow_nan=False).encode())

    def write(self, data: bytes) -> int:
        self._arrow += data
        return len(data)

    def flush(self) -> None:
        """Arrow flushes when it pleases; `send_arrow` sends."""

    def send_arrow(self) -> None:
        self.send(b"A", bytes(self._arrow))
        self._arrow.clear()


def answer(requests: BinaryIO, answers: Answers) -> None:
    """Answer the one order on stdin. Raises RefusedError and what DuckDB raises."""
    order: Mapping[str, Any] = json.loads(requests.readline())
    # A signal of its own comes before the kill.
    _limit(resource.RLIMIT_CPU, order["cpu_seconds"], order["cpu_seconds"] + 1)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    with duckdb.connect(":memory:", config=SETTINGS) as connection:
        # Libraries and stacks of threads that are mapped by now do not count.
        _limit(resource.RLIMIT_AS, _mapped_bytes() + 2 * order["memory_bytes"])
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET memory_limit = '{order['memory_bytes'] // 2**20}MiB'")
        connection.execute("CREATE SCHEMA internal")
        for table in order["tables"]:
            connection.register("incoming", pa.ipc.open_stream(requests))
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM incoming")  # noqa: S608  a name of ours
            connection.unregister("incoming")
        for view, definition in order["views"].items():
            connection.execute(f"CREATE VIEW {view} AS {definition}")
        confine(connection)
        _open_nothing_more()
        result = asked(connection, order["query"])
        if order["as_rows"]:
            _send_rows(result, answers, order["max_rows"])
        else:
            _send_arrow(result, answers, order["max_rows"])
    answers.send(b"D", b"")


def confine(connection: duckdb.DuckDBPyConnection) -> None:
    """From here on no setting is taken, and nothing is changed."""
    connection.execute("SET lock_configuration = true")
    connection.execute("BEGIN TRANSACTION READ ONLY")


def asked(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyRelation:
    """The query, not run yet. Raises RefusedError for anything but one statement that reads."""
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise RefusedError("not_allowed", f"it holds {len(statements)} statements: send one SELECT")
    [statement] = statements
    kind = _kind(statement)
    if kind is duckdb.StatementType.MULTI:  # such as a PIVOT, which looks for its columns first
        raise RefusedError("not_allowed", "it is several statements in one: name the columns, PIVOT … IN (…)")
    if kind not in _READING:
        name = kind.name if kind else "such a statement"
        name = {"LOAD": "INSTALL or LOAD"}.get(name, name)  # one kind to DuckDB
        raise RefusedError("not_allowed", f"{name} is not allowed: only SELECT and EXPLAIN are")
    result = connection.sql(query)
    if result is None:  # pyright: ignore[reportUnnecessaryComparison]  a statement may have no result
        raise RefusedError("not_allowed", "it has no result: send one SELECT")
    return result


def _kind(statement: duckdb.Statement) -> duckdb.StatementType | None:
    """None for kinds that DuckDB has no name for in Python, such as UPDATE EXTENSIONS."""
    try:
        return statement.type
    except ValueError:
        return None


def _batches(reader: pa.RecordBatchReader, max_rows: int) -> Iterator[pa.RecordBatch]:
    """Rows as they are found."""
    count = 0
    for batch in reader:
        count += len(batch)
        if count > max_rows:
            raise RefusedError("too_many_rows", f"the result has more than {max_rows} rows")
        if len(batch):
            yield batch


def _send_arrow(result: duckdb.DuckDBPyRelation, answers: Answers, max_rows: int) -> None:
    reader = result.to_arrow_reader(BATCH_ROWS)
    with pa.ipc.new_stream(pa.PythonFile(answers, mode="w"), reader.schema) as writer:
        for batch in _batches(reader, max_rows):
            writer.write_batch(batch)
            answers.send_arrow()
    answers.send_arrow()


def _send_rows(result: duckdb.DuckDBPyRelation, answers: Answers, max_rows: int) -> None:
    types = [str(each) for each in result.types]
    columns = [{"name": name, "type": kind} for name, kind in zip(result.columns, types, strict=True)]
    answers.send_json(b"C", columns)
    # By place: the names of a result may come twice.
    places = [
        f"#{place}" if kind in _PLAIN else f"CAST(#{place} AS VARCHAR)" for place, kind in enumerate(types, 1)
    ]
    named = ", ".join(f"{place} AS c{number}" for number, place in enumerate(places))
    for batch in _batches(result.project(named).to_arrow_reader(BATCH_ROWS), max_rows):
        values = [[_plain(value) for value in column.to_pylist()] for column in batch.columns]
        answers.send_json(b"R", list(zip(*values, strict=True)))


def _plain(value: Any) -> Any:
    """A value that JSON has, written as protobuf's JSON writes numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _SAFE_INTEGER:
        return str(value)
    return value


def _open_nothing_more() -> None:
    """No file, socket, thread or process from here on; pipes that are open stay open."""
    _limit(resource.RLIMIT_NOFILE, 0)
    _limit(resource.RLIMIT_NPROC, 0)


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    _, present = resource.getrlimit(what)
    most = sys.maxsize if present == resource.RLIM_INFINITY else present
    resource.setrlimit(what, (min(soft, most), min(soft if hard is None else hard, most)))


def _mapped_bytes() -> int:
    """Of this process; 0 where the system does not say, which then does not bound what is mapped either."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def refused(error: Exception) -> tuple[str, str]:
    """Kind and words of what ended a query."""
    if isinstance(error, RefusedError):
        return error.kind, str(error)
    words = str(error).partition("\n\n")[0][:700]
    if isinstance(error, (MemoryError, duckdb.OutOfMemoryException)) or "Out of Memory" in words:
        return "out_of_memory", words
    if isinstance(error, duckdb.PermissionException) or "read-only mode" in words:
        return "not_allowed", words
    return ("invalid", words) if isinstance(error, duckdb.Error) else ("failed", repr(error)[:700])


if __name__ == "__main__":
    told = Answers(sys.stdout.buffer)
    try:
        answer(sys.stdin.buffer, told)
    except Exception as error:
        kind, words = refused(error)
        told.send_json(b"E", {"kind": kind, "message": words})
