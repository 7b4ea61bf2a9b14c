"""The process that answers SQL is attacked: by statements that DuckDB must refuse, and by what the system
must refuse should DuckDB not.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final, cast

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from finemesh.chassis.auth import Principal, Role
from finemesh.core.errors import ResourceExhaustedError
from finemesh.tracking import sql_child
from finemesh.tracking.domain import Batch
from finemesh.tracking.points import PointFile
from finemesh.tracking.sql_process import CHILD, SqlLimits
from finemesh.tracking.sql_query import SqlQueries, SqlQuery
from finemesh.tracking.sql_views import TABLES
from finemesh.tracking.summarizer import Summarizer

ESCAPES: Final = {
    "COPY runs TO '{file}'": "not_allowed",
    "COPY (SELECT 1) TO '/dev/stdout'": "not_allowed",
    "COPY runs FROM '{file}'": "not_allowed",
    "EXPORT DATABASE '{folder}/out'": "not_allowed",
    "IMPORT DATABASE '{folder}'": "not_allowed",
    "ATTACH '{file}' AS other": "not_allowed",
    "ATTACH ':memory:' AS other": "not_allowed",
    "INSTALL httpfs": "not_allowed",
    "UPDATE EXTENSIONS": "not_allowed",
    "LOAD httpfs": "not_allowed",
    "LOAD '{file}'": "not_allowed",
    "PRAGMA database_list": "not_allowed",
    "PRAGMA enable_profiling": "not_allowed",
    "CALL pragma_version()": "not_allowed",
    "SET memory_limit = '64GB'": "not_allowed",
    "SET GLOBAL enable_external_access = true": "not_allowed",
    "RESET lock_configuration": "not_allowed",
    "SET VARIABLE a = 1": "not_allowed",
    "CREATE TABLE t AS SELECT 1": "not_allowed",
    "CREATE SECRET (TYPE s3)": "not_allowed",
    "INSERT INTO params VALUES ('x', 'y', 'z')": "not_allowed",
    "DELETE FROM runs": "not_allowed",
    "DROP TABLE runs": "not_allowed",
    "BEGIN": "not_allowed",
    "ROLLBACK": "not_allowed",
    "PREPARE p AS SELECT 1": "not_allowed",
    "SELECT 1; SELECT 2": "not_allowed",
    "SELECT 1; SET threads = 64": "not_allowed",
    "WITH gone AS (DELETE FROM runs RETURNING *) SELECT * FROM gone": "not_allowed",
    "SELECT * FROM read_csv('{file}')": "not_allowed",
    "SELECT * FROM read_parquet('{file}')": "not_allowed",
    "SELECT * FROM read_json('http://127.0.0.1:1/')": "not_allowed",
    "SELECT * FROM read_parquet('s3://bucket/key')": "not_allowed",
    "SELECT * FROM read_text('{file}')": "not_allowed",
    "SELECT * FROM read_blob('/proc/self/environ')": "not_allowed",
    "SELECT * FROM sniff_csv('{file}')": "not_allowed",
    "SELECT * FROM parquet_metadata('{file}')": "not_allowed",
    "SELECT * FROM glob('{folder}/*')": "not_allowed",
    "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')": "not_allowed",
    "EXPLAIN ANALYZE SELECT * FROM read_text('{file}')": "not_allowed",
    "SELECT * FROM duckdb_secrets()": "not_allowed",
    "SELECT * FROM '{file}'": "not_allowed",
    "SELECT getenv('HOME')": "invalid",
    "SELECT * FROM order": "invalid",
    "SELECT * FROM _SETTINGS": "invalid",
    "SELECT * FROM connection": "invalid",
    "SELEC 1": "invalid",
}


@pytest.mark.parametrize("query", ESCAPES)
def test_a_query_reads_nothing_but_tables(tmp_path: Path, query: str) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("name\nsecret\n")
    secret = "secret of this function"
    with duckdb.connect(":memory:", config=sql_child.SETTINGS) as connection:
        connection.execute("CREATE TABLE runs AS SELECT 1 AS run")
        connection.execute("CREATE TABLE params AS SELECT 'a' AS run, 'b' AS name, 'c' AS value")
        sql_child.confine(connection)
        with pytest.raises((duckdb.Error, sql_child.RefusedError)) as error:
            sql_child.asked(connection, query.format(file=file, folder=tmp_path)).fetchall()
    kind, words = sql_child.refused(error.value)
    assert (kind, secret in words) == (ESCAPES[query], False), words
    assert [each.name for each in tmp_path.iterdir()] == ["secret.csv"]


def test_a_refusal_names_what_was_asked_for() -> None:
    with duckdb.connect(":memory:") as connection, pytest.raises(sql_child.RefusedError, match="INSTALL or"):
        sql_child.asked(connection, "INSTALL httpfs")


# The child as it is, but for one thing that it relies on.
_WEAKENED: Final = """
import runpy, sys
child = runpy.run_path({child!r})
child["SETTINGS"].update({settings!r})
try:
    child["answer"](sys.stdin.buffer, child["Answers"](sys.stdout.buffer))
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('{file}')",
        "COPY (SELECT 1) TO '{file}'",
        "SELECT * FROM read_text('/proc/self/environ')",
        "ATTACH '{file}.db' AS other",
    ],
)
def test_the_system_refuses_what_duckdb_might_not(tmp_path: Path, query: str) -> None:
    """External access is on, and the statement goes round the look at its type."""
    file = tmp_path / "secret.csv"
    file.write_text("hush")
    code = _WEAKENED.format(child=str(CHILD), settings={"enable_external_access": "true"})
    code = code.replace("try:", "child['answer'].__globals__['asked'] = lambda db, text: db.sql(text)\ntry:")
    order = {
        "query": query.format(file=file),
        "max_rows": 10,
        "as_rows": True,
        "tables": [],
        "views": {},
        "memory_bytes": 128 << 20,
        "cpu_seconds": 20,
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(order).encode() + b"\n",
        capture_output=True,
        check=False,
        cwd=tmp_path,
    )
    assert b"hush" not in done.stdout
    assert b"open files" in done.stdout, done
    assert file.read_text() == "hush"
    assert [each.name for each in tmp_path.iterdir()] == ["secret.csv"]


class Rows:
    """A project with one run, and a summarizer that is never behind."""

    async def table(self, name: str, project: str, runs: Collection[str]) -> pa.Table:
        return TABLES[name].empty_table()

    async def names(self, project: str, runs: Collection[str]) -> list[str]:
        return ["projects/p/runs/r"]

    async def settle(self) -> None:
        return


async def test_more_points_than_fit_are_refused_before_they_are_there(tmp_path: Path) -> None:
    file = PointFile(tmp_path / "points.duckdb", memory_bytes=64 << 20, threads=1)
    steps = np.arange(11)
    keys = np.zeros(11, np.int64)
    file.append([Batch("projects/p/runs/r", 1, 1, ("loss",), keys, steps, steps / 2.0, steps)])
    rows = Rows()
    queries = SqlQueries(rows, file, cast("Summarizer", rows), SqlLimits(points=10))
    reader = Principal("reader", Role.VIEWER, frozenset({"p"}), math.inf)
    try:
        with pytest.raises(ResourceExhaustedError, match="say by `runs` and `keys`") as refused:
            async for _ in queries.query(reader, "p", SqlQuery(text="SELECT * FROM points")):
                pass
        assert refused.value.reason == "SQL_TOO_MANY_POINTS"
        few = SqlQuery(text="SELECT count(*) FROM points", keys=["other"], as_rows=True)
        parts = [part async for part in queries.query(reader, "p", few)]
        assert [row for part in parts for row in part.rows] == [[0]]
    finally:
        queries.close()
        file.close()
