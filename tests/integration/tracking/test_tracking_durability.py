"""What a Tracking process has acknowledged outlives it; what it cannot take it refuses clearly."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finemesh.chassis.auth import Role
from finemesh.core.errors import (
    InvalidError,
    PreconditionError,
)
from finemesh.v1 import metric_pb2
from finemesh.v1 import tracking_service_pb2 as pb
from grpc.aio import AioRpcError

from tests.support.servers import NatsServer, free_ports
from tests.support.services import ServiceProcess
from tests.support.tracking import Client, batch, tracking_process

pytestmark = pytest.mark.integration

Clients = Callable[..., Client]


async def test_kill_in_mid_stream_loses_and_doubles_nothing(own: ServiceProcess) -> None:
    own.start()
    token = own.key.mint("tester", Role.OPERATOR, ["p"], 600)
    client = Client(own, token)
    run = (await client.create("killed")).name
    batches = [batch(run, number, range(number * 100, number * 100 + 100)) for number in range(1, 301)]
    acknowledged = 0

    async def all_but_the_last() -> AsyncIterator[pb.LogMetricsRequest]:
        for each in batches[:-1]:
            yield pb.LogMetricsRequest(batch=each)
        await asyncio.get_running_loop().create_future()  # the stream is open when the process dies

    async def log_and_kill() -> None:
        nonlocal acknowledged
        async for response in client.stub.LogMetrics(all_but_the_last()):
            acknowledged = response.durable_sequence
            if acknowledged >= 40:
                own.kill()

    with pytest.raises(AioRpcError):
        await log_and_kill()
    assert 40 <= acknowledged < 300
    await client.channel.close()

    own.start()
    client = Client(own, token)
    try:
        # The client knows less than the disk: what it sends again is recognised.
        replies = [durable async for durable in client.stream(batches[max(0, acknowledged - 10) :])]
        assert replies[-1] == 300
        series = await client.curve(run, "train/loss", max_points=20_000)
        assert series.total_points == 30_000
        steps = [step for each in batches for step in each.steps]
        parts = [
            await client.curve(run, "train/loss", max_points=20_000, min_step=low, max_step=low + 9_999)
            for low in (100, 10_100, 20_100)
        ]
        assert [step for part in parts for step in part.steps] == steps
        found = [value for part in parts for value in part.values]
        assert found == [value for each in batches for value in each.values]
        [summary] = (await client.get(run)).metrics
        assert (summary.point_count, summary.last_step, summary.best_step) == (30_000, 30_099, 30_099)
    finally:
        await client.channel.close()


async def test_summaries_that_a_kill_left_behind_are_caught_up(own: ServiceProcess) -> None:
    own.settings["FINEMESH_SUMMARY_INTERVAL_SECONDS"] = "60"
    own.start()
    token = own.key.mint("tester", Role.OPERATOR, ["p"], 600)
    client = Client(own, token)
    run = (await client.create("behind")).name
    assert await client.log(batch(run, 1, range(1, 101))) == 1
    own.kill()
    await client.channel.close()
    own.start()
    client = Client(own, token)
    [summary] = (await client.get(run)).metrics
    assert (summary.point_count, summary.last_step) == (100, 100)
    await client.channel.close()


async def test_a_gap_is_refused_and_names_what_to_send(clients: Clients) -> None:
    client = clients()
    run = (await client.create("gap")).name
    assert await client.log(batch(run, 1, [1])) == 1
    with pytest.raises(PreconditionError) as refusal:
        await client.log(batch(run, 3, [3]))
    assert refusal.value.reason == "SEQUENCE_GAP"
    assert refusal.value.metadata["durable_sequence"] == "1"
    assert await client.log(batch(run, 1, [1])) == 1
    assert (await client.get(run)).metrics[0].point_count == 1


async def test_batches_before_a_refused_one_are_acknowledged(clients: Clients) -> None:
    client = clients()
    run = (await client.create("refused-late")).name
    replies: list[int] = []
    with pytest.raises(PreconditionError):
        await client.log_all([batch(run, n, [n]) for n in (1, 2, 4)], replies)
    assert replies[-1] == 2


async def test_non_finite_values_are_kept(clients: Clients) -> None:
    client = clients()
    run = (await client.create("diverged")).name
    odd = batch(run, 1, [1, 2, 3, 4])
    odd.values[:] = [0.5, math.nan, math.inf, -math.inf]
    await client.log(odd)
    values = list((await client.curve(run, "train/loss")).values)
    assert values[0] == 0.5
    assert math.isnan(values[1])
    assert values[2:] == [math.inf, -math.inf]
    [summary] = (await client.get(run)).metrics
    assert (summary.best_value, summary.last_value) == (0.5, -math.inf)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"steps": [1, 2]}, "batch.steps"),
        ({"steps": [-1]}, "batch.steps"),
        ({"key_indices": [7]}, "batch.key_indices"),
        ({"keys": ["a", "a"]}, "batch.keys"),
        ({"keys": [""]}, "batch.keys"),
        ({"attempt": 0}, "batch.attempt"),
        ({"sequence": 0}, "batch.sequence"),
        ({"times_us": [-5]}, "batch.times_us"),
        ({"run": "projects/p/jobs/x"}, "batch.run"),
    ],
)
async def test_a_malformed_batch_is_refused_by_field(
    clients: Clients, change: dict[str, Any], field: str
) -> None:
    fields: dict[str, Any] = {
        "run": "projects/p/runs/malformed",
        "attempt": 1,
        "sequence": 1,
        "keys": ["loss"],
        "key_indices": [0],
        "steps": [1],
        "values": [1.0],
        "times_us": [1],
    }
    with pytest.raises(InvalidError) as refusal:
        await clients().log(metric_pb2.MetricBatch(**{**fields, **change}))
    assert field in [each.field for each in refusal.value.violations]


async def test_points_are_taken_while_nats_is_away(tmp_path: Path, clients: Clients) -> None:
    absent = NatsServer(tmp_path / "nats", port=1)
    process = tracking_process(tmp_path / "tracking", absent)
    try:
        process.start(ready=False)
        assert process.health() == "NOT_SERVING"
        client = clients(of=process)
        run = (await client.create("offline")).name
        assert await client.log(batch(run, 1, [1, 2])) == 1
        assert (await client.get(run)).metrics[0].point_count == 2
    finally:
        process.stop()


async def test_a_second_process_on_the_same_points_says_so(service: ServiceProcess, tmp_path: Path) -> None:
    second = replace(service, port=free_ports(1)[0], folder=tmp_path, _process=None)
    try:
        with pytest.raises(AssertionError):
            second.start(ready=False)
        assert "POINTS_IN_USE" in second.log_path.read_text()
    finally:
        second.stop()
