"""Files of runs, and all points of a run as a file; read by others than who wrote them."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.errors import from_rpc_error
from finemesh.client.transfer import fetch_page
from finemesh.core.errors import (
    FinemeshError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
)
from finemesh.v1 import metric_pb2
from finemesh.v1 import tracking_service_pb2 as pb
from finemesh.v1.run_artifact_pb2 import RunArtifact
from tensorboard.backend.event_processing import event_accumulator

from tests.support.servers import PATIENCE_SECONDS, NatsServer, S3Server
from tests.support.services import ServiceProcess
from tests.support.tracking import Client, tracking_process

pytestmark = pytest.mark.integration

Clients = Callable[..., Client]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nats: NatsServer) -> Generator[ServiceProcess]:
    """A Tracking service with an object store, in place of the one without."""
    s3 = S3Server(tmp_path_factory.mktemp("s3"))
    process = tracking_process(tmp_path_factory.mktemp("tracking"), nats)
    process.s3 = s3
    s3.start()
    yield process.start()
    process.stop()
    s3.kill()


async def upload(
    client: Client, run: str, content: bytes, parts: Iterable[bytes] = (), **fields: Any
) -> RunArtifact:
    told: dict[str, Any] = {
        "path": "a.bin",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
    }
    first = pb.UploadRunArtifactRequest(run=run, artifact=RunArtifact(**{**told, **fields}))

    async def messages() -> AsyncIterator[pb.UploadRunArtifactRequest]:
        yield first
        for part in parts:
            message = pb.UploadRunArtifactRequest()
            message.chunk.data = part
            yield message

    try:
        return await client.stub.UploadRunArtifact(messages(), timeout=PATIENCE_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


async def listed(client: Client, run: str) -> list[RunArtifact]:
    return list((await client.call("ListRunArtifacts", pb.ListRunArtifactsRequest(parent=run))).artifacts)


async def refusal(call: Any, kind: type[FinemeshError]) -> str:
    with pytest.raises(kind) as refused:
        await call
    return refused.value.reason


async def test_a_content_is_checked_kept_once_and_gone_with_its_last_run(
    clients: Clients, service: ServiceProcess
) -> None:
    client, content = clients(), b"weights" * 300_000
    first, second = (await client.create("keeps-a")).name, (await client.create("keeps-b")).name
    parts = [content[:1_000_000], content[1_000_000:]]
    assert await refusal(upload(client, first, content), PreconditionError) == "ARTIFACT_CONTENT_MISSING"
    assert (
        await refusal(upload(client, first, content, [parts[0], parts[0]]), PreconditionError)
        == "ARTIFACT_CORRUPT"
    )
    assert (
        await refusal(upload(client, first, content, [content, b"more"]), PreconditionError)
        == "ARTIFACT_CORRUPT"
    )
    assert await listed(client, first) == []
    await upload(client, first, content, parts, step=3, media_type="application/x")
    shown = f"SELECT path, size_bytes, step, media_type FROM artifacts WHERE run = '{first}'"
    assert await client.sql(shown) == [["a.bin", len(content), 3, "application/x"]]
    await upload(client, second, content, path="the/same.bin")  # no bytes: the project has them
    [found] = await listed(client, second)
    assert fetch_page(found.url) == content
    store = service.object_store()

    async def kept() -> list[int]:
        return [each.size_bytes for each in await store.list("projects/p/artifacts/")]

    assert await kept() == [len(content)]
    await upload(client, first, b"other", [b"other"])  # the same path again
    assert [(each.path, each.size_bytes) for each in await listed(client, first)] == [("a.bin", 5)]
    for run in (second, first):
        await client.call("FinishRun", pb.FinishRunRequest(name=run))
        await client.call("DeleteRun", pb.DeleteRunRequest(name=run))
    assert await kept() == []
    store.close()


async def test_files_are_for_those_who_may(clients: Clients) -> None:
    client = clients()
    run = (await client.create("guarded")).name
    await upload(client, run, b"", size_bytes=0)
    assert (
        await refusal(upload(clients(Role.VIEWER), run, b"x", [b"x"]), PermissionDeniedError) == "ROLE_DENIED"
    )
    stranger = clients(projects=("q",))
    assert await refusal(upload(stranger, run, b"x", [b"x"]), PermissionDeniedError) == "PROJECT_DENIED"
    assert await refusal(listed(stranger, run), PermissionDeniedError) == "PROJECT_DENIED"
    other_job = clients(job="projects/p/trainingJobs/other", attempt=1, fence=1)
    assert await refusal(upload(other_job, run, b"x", [b"x"]), PermissionDeniedError) == "RESOURCE_DENIED"
    assert (
        await refusal(upload(client, "projects/p/runs/none", b"x", [b"x"]), NotFoundError) == "RUN_NOT_FOUND"
    )
    wrong: dict[str, list[Any]] = {
        "path": ["../up", "/abs", "a/", "a\nb", "x" * 600],
        "sha256": ["", "0" * 63],
        "size_bytes": [-1],
    }
    for name, values in wrong.items():
        for value in values:
            assert (
                await refusal(upload(client, run, b"x", [b"x"], **{name: value}), InvalidError)
                == "INVALID_ARTIFACT"
            )


async def downloaded(client: Client, run: str, form: str, **fields: Any) -> bytes:
    request = pb.DownloadRunMetricsRequest(name=run, format=f"FORMAT_{form}", **fields)
    return b"".join([body.data async for body in client.stub.DownloadRunMetrics(request)])


async def test_all_points_come_out_in_forms_that_others_read(clients: Clients, tmp_path: Path) -> None:
    client = clients()
    run = (await client.create("exported", display_name="x")).name
    values = [1.5, math.nan, math.inf, 0.1, 0.2, 0.3]
    steps, attempts = [1, 2, 3, 4, 3, 4], [1, 1, 1, 1, 2, 2]
    for attempt in (1, 2):
        chosen = [index for index in range(6) if attempts[index] == attempt]
        await client.log(
            metric_pb2.MetricBatch(
                run=run,
                attempt=attempt,
                sequence=1,
                keys=["val/loss, é"],
                key_indices=[0] * len(chosen),
                steps=[steps[index] for index in chosen],
                values=[values[index] for index in chosen],
                times_us=[10**15 + index for index in chosen],
            )
        )
    resolved = [(1, 1.5, 1), (2, math.nan, 1), (3, 0.2, 2), (4, 0.3, 2)]
    rows = list(csv.DictReader(io.StringIO((await downloaded(client, run, "CSV")).decode())))
    found = [(int(row["step"]), float(row["value"]), int(row["attempt"])) for row in rows]
    assert repr(found) == repr(resolved)
    assert {(row["run"], row["key"]) for row in rows} == {(run, "val/loss, é")}
    for table in (
        pa.ipc.open_stream(await downloaded(client, run, "ARROW")).read_all(),
        pq.read_table(io.BytesIO(await downloaded(client, run, "PARQUET"))),
    ):
        columns = (table[name].to_pylist() for name in ("step", "value", "attempt"))
        assert repr(list(zip(*columns, strict=True))) == repr(resolved)
        assert table["time"].cast(pa.int64()).to_pylist() == [10**15, 10**15 + 1, 10**15 + 4, 10**15 + 5]
    everything = pq.read_table(io.BytesIO(await downloaded(client, run, "PARQUET", all_attempts=True)))
    assert repr(sorted(everything["value"].to_pylist(), key=repr)) == repr(sorted(values, key=repr))
    path = tmp_path / "events.out.tfevents.0.finemesh"
    path.write_bytes(await downloaded(client, run, "TENSORBOARD"))
    reader: Any = event_accumulator.EventAccumulator(str(path)).Reload()
    scalars = [(each.step, each.value) for each in reader.Scalars("val/loss, é")]
    assert repr(scalars) == repr([(step, float(np.float32(value))) for step, value, _ in resolved])
    assert (
        await downloaded(client, run, "CSV", keys=["none"])
        == b'"run","key","step","time","value","attempt"\n'
    )
    with pytest.raises(grpc.aio.AioRpcError, match="FORMAT_CSV"):
        await downloaded(client, run, "UNSPECIFIED")
