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
VIEWS: Final = (
    "runs",
    "params",
    "labels",
    "tags",
    "summaries",
    "metrics",
    "points",
    "evaluations",
    "artifacts",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nats: NatsServer) -> Generator[ServiceProcess]:
    """With limits that a test can reach."""
    limits = {"FINEMESH_SQL_CPU_SECONDS": "2", "FINEMESH_SQL_MEMORY_BYTES": str(96 << 20)}
    limits["FINEMESH_SQL_TIMEOUT_SECONDS"] = "110"  # on a machine that is very busy, too
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
        return [part async for part in client.stub.QuerySql(request, timeout=115)]
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


# One of each kind: all that DuckDB and the system refuse is in tests/unit/test_tracking_sandbox.py.
REFUSED: Final = {
    "COPY runs TO '{file}'": "SQL_NOT_ALLOWED",
    "SELECT * FROM read_text('{file}')": "SQL_NOT_ALLOWED",
    "SELECT * FROM order": "SQL_INVALID",
    "": "SQL_INVALID",
    "SELECT * FROM range(20000)": "SQL_RESULT_TOO_LARGE",
    "SELECT list(range) FROM range(1000000000)": "SQL_OUT_OF_MEMORY",
    "SELECT repeat('x', 10000000) FROM range(900)": "SQL_OUT_OF_MEMORY",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) SELECT count(*) FROM r": "SQL_TIMEOUT",
}


async def test_what_asks_too_much_is_refused(reader: Client, tmp_path: Path) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("name\nsecret\n")

    async def reason(query: str) -> str:
        try:
            return f"answered: {await ask(reader, query.format(file=file))}"
        except FinemeshError as error:
            return error.reason if len(error.message) > 20 else error.message

    assert dict(zip(REFUSED, await asyncio.gather(*map(reason, REFUSED)), strict=True)) == REFUSED
    assert file.read_text() == "name\nsecret\n"


async def test_other_projects_are_not_there(reader: Client) -> None:
    tables = [*VIEWS, "internal.point_runs"]
    everything = " UNION ALL ".join(f"SELECT each::VARCHAR FROM {table} AS each" for table in tables)
    found = str(await rows(reader, everything))
    assert "projects/p/runs/b" in found
    assert "secret" not in found
    with pytest.raises(PermissionDeniedError):
        await ask(reader, "SELECT 1", parent="projects/secret")
    with pytest.raises(FinemeshError):
        await ask(reader, "SELECT * FROM points", runs=["projects/secret/runs/hidden"])
