"""Who may log and read what: attempts, their successors, the agent, other projects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.bus import NatsEventBus
from finemesh.chassis.errors import from_rpc_error
from finemesh.core.errors import (
    FencedError,
    InvalidError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from finemesh.v1 import tracking_service_pb2 as pb

from tests.support.tracking import Client, batch, job_event, until_run

pytestmark = pytest.mark.integration

Clients = Callable[..., Client]


async def test_a_superseded_attempt_can_log_nothing_more(clients: Clients) -> None:
    job = "projects/p/trainingJobs/fenced"
    run = "projects/p/runs/fenced"
    first, second = clients(job=job, attempt=1, fence=7), clients(job=job, attempt=2, fence=8)
    assert await first.log(batch(run, 1, [1, 2, 3, 4])) == 1  # the run is there with its first points
    assert await second.log(batch(run, 1, [3, 4, 5], attempt=2)) == 1
    for refused in (batch(run, 2, [5]), batch(run, 1, [1])):
        with pytest.raises(FencedError) as error:
            await first.log(refused)
        assert error.value.reason == "ATTEMPT_FENCED"
    with pytest.raises(FencedError):
        await first.log_all([batch(run, 2, [5])], [])
    # The second drains what the first left in its spool.
    assert await second.log(batch(run, 2, [5, 6])) == 2
    reader = clients(Role.VIEWER)
    series = await reader.curve(run, "train/loss")
    assert list(series.steps) == [1, 2, 3, 4, 5, 6]
    assert list(series.attempts) == [1, 1, 2, 2, 2, 1]
    run_message = await reader.get(run)
    assert run_message.training_job == job
    assert run_message.attempt == 2
    assert run_message.metrics[0].point_count == 6


async def test_an_event_about_a_later_attempt_fences_the_earlier(clients: Clients, bus: NatsEventBus) -> None:
    job, run = "projects/p/trainingJobs/restarted", "projects/p/runs/restarted"
    first = clients(job=job, attempt=1, fence=1)
    assert await first.log(batch(run, 1, [1])) == 1
    await bus.publish(job_event("resumed", job, attempt=2).message())
    await until_run(clients(), run, lambda each: each.attempt == 2)
    with pytest.raises(FencedError):
        await first.log(batch(run, 2, [2]))


async def test_an_attempt_logs_to_its_own_run_alone(clients: Clients) -> None:
    job = "projects/p/trainingJobs/own"
    attempt = clients(job=job, attempt=1, fence=1)
    assert await attempt.log(batch("projects/p/runs/own", 1, [1])) == 1
    with pytest.raises(PermissionDeniedError):
        await attempt.log(batch("projects/p/runs/other", 1, [1]))
    with pytest.raises(PermissionDeniedError):
        await attempt.log(batch("projects/p/runs/own", 1, [1], attempt=2))
    with pytest.raises(PermissionDeniedError):
        await clients().log(batch("projects/p/runs/own", 2, [2]))  # an operator cannot write into a job's run
    with pytest.raises(PermissionDeniedError):
        await attempt.get("projects/p/runs/own")


async def test_the_agent_drains_old_spools(clients: Clients) -> None:
    job, run = "projects/p/trainingJobs/drained", "projects/p/runs/drained"
    agent = clients(Role.SERVICE, ("*",))
    with pytest.raises(UnavailableError) as early:
        await agent.log(batch(run, 1, [1]))
    assert early.value.reason == "RUN_UNKNOWN"
    await clients(job=job, attempt=2, fence=2).log(batch(run, 1, [5], attempt=2))
    assert await agent.log(batch(run, 1, [1, 2])) == 1
    with pytest.raises(UnavailableError) as error:
        await agent.log(batch(run, 1, [9], attempt=3))
    assert error.value.reason == "ATTEMPT_UNKNOWN"


async def test_an_open_stream_ends_with_its_token(clients: Clients) -> None:
    job, run = "projects/p/trainingJobs/expired", "projects/p/runs/expired"
    attempt = clients(job=job, attempt=1, fence=1, ttl_seconds=4)

    async def requests() -> AsyncIterator[pb.LogMetricsRequest]:
        for number in range(1, 200):
            yield pb.LogMetricsRequest(batch=batch(run, number, [number]))
            await asyncio.sleep(0.1)

    replies: list[int] = []

    async def log() -> None:
        async for response in attempt.stub.LogMetrics(requests()):
            replies.append(response.durable_sequence)  # noqa: PERF401  kept when the stream breaks

    with pytest.raises(grpc.aio.AioRpcError) as error:
        await log()
    assert isinstance(from_rpc_error(error.value), UnauthenticatedError)
    assert replies
    assert replies[-1] < 199


async def test_runs_of_other_projects_do_not_exist(clients: Clients) -> None:
    owner, stranger = clients(projects=("q",)), clients(projects=("p",))
    run = (await owner.create("secret", project="q")).name
    await owner.log(batch(run, 1, [1]))
    mine = (await stranger.create("mine")).name
    requests = [
        ("GetRun", pb.GetRunRequest(name=run)),
        ("ListRuns", pb.ListRunsRequest(parent="projects/q")),
        ("FinishRun", pb.FinishRunRequest(name=run)),
        ("DeleteRun", pb.DeleteRunRequest(name=run)),
        ("LogMetricBatch", pb.LogMetricBatchRequest(batch=batch(run, 2, [2]))),
        ("QueryMetrics", pb.QueryMetricsRequest(parent="projects/q", runs=[run])),
        ("QueryMetrics", pb.QueryMetricsRequest(parent="projects/p", runs=[run])),
        ("CompareRuns", pb.CompareRunsRequest(parent="projects/q", runs=[run, mine])),
        ("CompareRuns", pb.CompareRunsRequest(parent="projects/p", runs=[mine, run])),
        ("CreateRun", pb.CreateRunRequest(parent="projects/q", run_id="new")),
    ]
    for method, request in requests:
        with pytest.raises((PermissionDeniedError, InvalidError)):
            await stranger.call(method, request)
    for stream in (
        stranger.stub.WatchRun(pb.WatchRunRequest(name=run)),
        stranger.stub.WatchMetrics(pb.WatchMetricsRequest(run=run)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await anext(aiter(stream))
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    listed = await stranger.call("ListRuns", pb.ListRunsRequest(parent="projects/p", page_size=500))
    assert mine in [each.name for each in listed.runs]
    assert run not in [each.name for each in listed.runs]
