"""SQL over the runs of a project: what it answers, and that nothing gets out of its process."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import grpc
import pyarrow as pa
import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.errors import from_rpc_error
from finemesh.core.errors import FinemeshError, PermissionDeniedError
from finemesh.v1 import metric_pb2
from finemesh.v1 import run_sql_pb2 as pb

from tests.support.servers import NatsServer
from tests.support.services import ServiceProcess
from tests.support.tracking import Client, batch, tracking_process

pytestmark = pytest.mark.integration

Clients = Callable[..., Client]
ROWS: Final = pb.QuerySqlRequest.FORMAT_ROWS
VIEWS: Final = ("runs", "params", "labels", "tags", "summaries", "metrics", "points")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nats: NatsServer) -> Generator[ServiceProcess]:
    """With limits that a test can reach."""
    limits = {"FINEMESH_SQL_TIMEOUT_SECONDS": "4", "FINEMESH_SQL_MEMORY_BYTES": str(96 << 20)}
    process = tracking_process(tmp_path_factory.mktemp("sql"), nats, **limits)
    yield process.start()
    process.stop()


@pytest.fixture
async def reader(clients: Clients) -> Client:
    """Of project p, where two runs are; another project has one with a secret."""
    writer = clients(projects=("p", "secret"))
    await fill(writer)
    return clients(Role.VIEWER)


async def fill(writer: Client) -> None:
    """The same for every test of the module; a second time changes nothing."""
    for project, run_id, rank in (("p", "a", "8"), ("p", "b", "16"), ("secret", "hidden", "64")):
        try:
            await writer.create(run_id, project, params={"rank": rank}, labels={"team": project}, tags=["t"])
        except FinemeshError:
            continue
        await writer.log(batch(f"projects/{project}/runs/{run_id}", 1, range(100)))
    odd = metric_pb2.MetricBatch(
        run="projects/p/runs/a", attempt=1, sequence=2, keys=["odd"], key_indices=[0, 0], steps=[0, 1]
    )
    odd.values.extend([math.nan, math.inf])
    odd.times_us.extend([0, 1])
    await writer.log(odd)


async def ask(
    client: Client, query: str, parent: str = "projects/p", **fields: Any
) -> list[pb.QuerySqlResponse]:
    request = pb.QuerySqlRequest(parent=parent, query=query, **fields)
    try:
        return [part async for part in client.stub.QuerySql(request, timeout=60)]
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


async def rows(client: Client, query: str, **fields: Any) -> list[list[Any]]:
    parts = await ask(client, query, format=ROWS, **fields)
    return [list(row) for part in parts for row in part.rows]


async def test_views_hold_what_was_logged(reader: Client) -> None:
    joined = "SELECT run, value FROM params WHERE name = 'rank' ORDER BY value::INT"
    assert await rows(reader, joined) == [["projects/p/runs/a", "8"], ["projects/p/runs/b", "16"]]
    points = "SELECT count(*), max(step), sum(value) FROM points JOIN runs USING (run) WHERE id = 'b'"
    [[count, last, total]] = await rows(reader, points)
    assert (count, last) == (100, 99)
    assert total == pytest.approx(sum(1 / (1 + step) for step in range(100)))
    [[best, low, high]] = await rows(
        reader, "SELECT best_value, min_value, max_value FROM summaries WHERE run LIKE '%/b'"
    )
    assert (best, low, high) == (0.01, 0.01, 1)
    odd = "SELECT value FROM points WHERE key = 'odd' ORDER BY step"
    assert await rows(reader, odd) == [["NaN"], ["Infinity"]]
    assert await rows(reader, "SELECT * FROM labels") == [["projects/p/runs/a", "team", "p"]] + [
        ["projects/p/runs/b", "team", "p"]
    ]
    assert await rows(reader, "SELECT DISTINCT tag FROM tags") == [["t"]]
    assert await rows(reader, "SELECT run_count FROM metrics WHERE key = 'train/loss'") == [[2]]
    assert await rows(reader, "SELECT 9007199254740993, 1::BOOL, DATE '2026-01-01', NULL") == [
        ["9007199254740993", True, "2026-01-01", None]
    ]
    shown = [row[0] for row in await rows(reader, "SHOW TABLES")]
    assert sorted(shown) == sorted(VIEWS)
    of_one = await rows(reader, "SELECT count(*) FROM points", runs=["projects/p/runs/b"], keys=["odd"])
    assert of_one == [[0]]


async def test_an_answer_is_one_arrow_stream(reader: Client) -> None:
    parts = await ask(reader, "SELECT step, value FROM points WHERE run LIKE '%/b' ORDER BY step")
    table = pa.ipc.open_stream(io.BytesIO(b"".join(part.arrow for part in parts))).read_all()
    assert table.schema.types == [pa.int64(), pa.float64()]
    assert table["step"].to_pylist() == list(range(100))
    empty = await ask(reader, "SELECT * FROM runs WHERE false")
    assert len(pa.ipc.open_stream(io.BytesIO(b"".join(part.arrow for part in empty))).read_all()) == 0


ESCAPES: Final = {
    "COPY runs TO '{file}'": "SQL_NOT_ALLOWED",
    "COPY (SELECT 1) TO '/dev/stdout'": "SQL_NOT_ALLOWED",
    "COPY runs FROM '{file}'": "SQL_NOT_ALLOWED",
    "EXPORT DATABASE '{folder}/out'": "SQL_NOT_ALLOWED",
    "IMPORT DATABASE '{folder}'": "SQL_NOT_ALLOWED",
    "ATTACH '{file}' AS other": "SQL_NOT_ALLOWED",
    "ATTACH ':memory:' AS other": "SQL_NOT_ALLOWED",
    "INSTALL httpfs": "SQL_NOT_ALLOWED",
    "LOAD httpfs": "SQL_NOT_ALLOWED",
    "LOAD '{file}'": "SQL_NOT_ALLOWED",
    "PRAGMA database_list": "SQL_NOT_ALLOWED",
    "PRAGMA enable_profiling": "SQL_NOT_ALLOWED",
    "CALL pragma_version()": "SQL_NOT_ALLOWED",
    "SET memory_limit = '64GB'": "SQL_NOT_ALLOWED",
    "SET GLOBAL enable_external_access = true": "SQL_NOT_ALLOWED",
    "RESET lock_configuration": "SQL_NOT_ALLOWED",
    "SET VARIABLE a = 1": "SQL_NOT_ALLOWED",
    "CREATE TABLE t AS SELECT 1": "SQL_NOT_ALLOWED",
    "CREATE SECRET (TYPE s3)": "SQL_NOT_ALLOWED",
    "INSERT INTO params VALUES ('x', 'y', 'z')": "SQL_NOT_ALLOWED",
    "DELETE FROM runs": "SQL_NOT_ALLOWED",
    "DROP TABLE runs": "SQL_NOT_ALLOWED",
    "BEGIN": "SQL_NOT_ALLOWED",
    "ROLLBACK": "SQL_NOT_ALLOWED",
    "PREPARE p AS SELECT 1": "SQL_NOT_ALLOWED",
    "SELECT 1; SELECT 2": "SQL_NOT_ALLOWED",
    "SELECT 1; SET threads = 64": "SQL_NOT_ALLOWED",
    "WITH gone AS (DELETE FROM runs RETURNING *) SELECT * FROM gone": "SQL_NOT_ALLOWED",
    "SELECT * FROM read_csv('{file}')": "SQL_NOT_ALLOWED",
    "SELECT * FROM read_parquet('{file}')": "SQL_NOT_ALLOWED",
    "SELECT * FROM read_json('http://127.0.0.1:1/')": "SQL_NOT_ALLOWED",
    "SELECT * FROM read_parquet('s3://bucket/key')": "SQL_NOT_ALLOWED",
    "SELECT * FROM read_text('{file}')": "SQL_NOT_ALLOWED",
    "SELECT * FROM read_blob('/proc/self/environ')": "SQL_NOT_ALLOWED",
    "SELECT * FROM sniff_csv('{file}')": "SQL_NOT_ALLOWED",
    "SELECT * FROM parquet_metadata('{file}')": "SQL_NOT_ALLOWED",
    "SELECT * FROM glob('{folder}/*')": "SQL_NOT_ALLOWED",
    "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')": "SQL_NOT_ALLOWED",
    "EXPLAIN ANALYZE SELECT * FROM read_text('{file}')": "SQL_NOT_ALLOWED",
    "SELECT * FROM duckdb_secrets()": "SQL_NOT_ALLOWED",
    "SELECT * FROM '{file}'": "SQL_NOT_ALLOWED",
    "SELECT getenv('HOME')": "SQL_INVALID",
    "SELECT * FROM order": "SQL_INVALID",
    "SELECT * FROM _SETTINGS": "SQL_INVALID",
    "SELECT * FROM connection": "SQL_INVALID",
    "SELEC 1": "SQL_INVALID",
    "": "SQL_INVALID",
    "SELECT * FROM range(20000)": "SQL_RESULT_TOO_LARGE",
    "SELECT list(range) FROM range(1000000000)": "SQL_OUT_OF_MEMORY",
    "SELECT string_agg(repeat('x', 1000000), '') FROM range(100000)": "SQL_OUT_OF_MEMORY",
    "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE hash(a, b) = 7": "SQL_TIMEOUT",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) SELECT count(*) FROM r": "SQL_TIMEOUT",
}


async def test_what_reads_no_view_is_refused(reader: Client, tmp_path: Path) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("name\nsecret\n")

    async def reason(query: str) -> str:
        try:
            return f"answered: {await ask(reader, query.format(file=file, folder=tmp_path))}"
        except FinemeshError as error:
            return error.reason if len(error.message) > 20 else error.message

    assert dict(zip(ESCAPES, await asyncio.gather(*map(reason, ESCAPES)), strict=True)) == ESCAPES
    assert [each.name for each in tmp_path.iterdir()] == ["secret.csv"]


async def test_other_projects_are_not_there(reader: Client) -> None:
    for view in VIEWS:
        found = await rows(reader, f"SELECT * FROM {view}")
        assert not [row for row in found if any("secret" in str(value) for value in row)]
    everything = "SELECT string_agg(run, ' ') FROM internal.point_runs JOIN points USING (run)"
    assert "secret" not in str(await rows(reader, everything))
    with pytest.raises(PermissionDeniedError):
        await ask(reader, "SELECT 1", parent="projects/secret")
    with pytest.raises(FinemeshError):
        await ask(reader, "SELECT * FROM points", runs=["projects/secret/runs/hidden"])
