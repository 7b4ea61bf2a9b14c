"""The life of a run, from events and from calls; lists, watching, comparison."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.bus import NatsEventBus
from finemesh.chassis.events import Delivery, Event, event_subject, parse_event
from finemesh.core.errors import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    PreconditionError,
)
from finemesh.events.v1 import run_events_pb2
from finemesh.v1 import run_pb2
from finemesh.v1 import tracking_service_pb2 as pb

from tests.support.servers import PATIENCE_SECONDS
from tests.support.tracking import Client, batch, job_event, until_run

pytestmark = pytest.mark.integration

Clients = Callable[..., Client]


async def test_events_make_a_run_once_and_end_it(clients: Clients, bus: NatsEventBus) -> None:
    job, run = "projects/p/trainingJobs/eventful", "projects/p/runs/eventful"
    reader = clients(Role.VIEWER)
    queued = job_event("queued", job, rank=16).message()
    for delivery in ("first", "second"):  # two messages to the broker, one event to us
        await bus.publish(replace(queued, id=f"{queued.id}-{delivery}"))
    created = await until_run(reader, run, lambda each: bool(each.params))
    assert created.params["method"] == "lora"
    assert created.params["method.lora.rank"] == "16"
    assert created.params["method.lora.train_connector"] == "false"
    assert created.spec.lora.rank == 16
    assert (created.display_name, dict(created.labels)) == ("A job", {"team": "vision"})
    started = job_event("started", job, attempt=1)
    await bus.publish(started.message())
    await bus.publish(job_event("succeeded", job, attempt=1).message())
    # A late second delivery must not open the run again, or change anything.
    await bus.publish(replace(started.message(), id=f"{started.id}-again"))
    ended = await until_run(reader, run, lambda each: each.HasField("end_time"))
    assert ended.state == run_pb2.Run.STATE_FINISHED
    assert ended.attempt == 1
    sentinel = "projects/p/trainingJobs/sentinel"
    await bus.publish(job_event("queued", sentinel).message())
    await until_run(reader, "projects/p/runs/sentinel", lambda _: True)
    assert await reader.get(run) == ended


async def test_a_request_id_makes_one_run(clients: Clients) -> None:
    client = clients()
    request = pb.CreateRunRequest(parent="projects/p", run=run_pb2.Run(display_name="once"), request_id="abc")
    made = await client.call("CreateRun", request)
    assert await client.call("CreateRun", request) == made
    request.run.display_name = "twice"
    with pytest.raises(AlreadyExistsError):
        await client.call("CreateRun", request)
    with pytest.raises(AlreadyExistsError) as taken:
        await client.create(made.name.split("/")[3])
    assert taken.value.reason == "RUN_EXISTS"


async def test_lists_filter_order_and_page(clients: Clients) -> None:
    client = clients(projects=("listed",))
    for index in range(5):
        run = await client.create(f"r{index}", project="listed", display_name=f"run {index}")
        if index % 2:
            await client.call("FinishRun", pb.FinishRunRequest(name=run.name))
    request = pb.ListRunsRequest(
        parent="projects/listed", page_size=2, filter='state = "RUNNING"', order_by="display_name desc"
    )
    first = await client.call("ListRuns", request)
    assert [each.display_name for each in first.runs] == ["run 4", "run 2"]
    request.page_token = first.next_page_token
    second = await client.call("ListRuns", request)
    assert [each.display_name for each in second.runs] == ["run 0"]
    assert second.next_page_token == ""
    with pytest.raises(InvalidError):
        await client.call("ListRuns", pb.ListRunsRequest(parent="projects/listed", filter="colour = red"))


async def test_watchers_get_each_point_once_and_end_with_the_run(clients: Clients) -> None:
    client, watcher = clients(), clients(Role.VIEWER)
    run = (await client.create("watched")).name
    await client.log(batch(run, 1, range(10)))
    stream = watcher.stub.WatchMetrics(pb.WatchMetricsRequest(run=run, keys=["train/loss"]))
    seen: list[int] = []
    responses = aiter(stream)
    past = await anext(responses)
    seen += past.series[0].steps
    assert seen == list(range(10))
    for number in range(2, 8):
        await client.log(batch(run, number, range(number * 10, number * 10 + 10)))
        await client.log(batch(run, number, range(number * 10, number * 10 + 10)))
        await client.log(batch(run, 1, range(10)))
    await client.call("FinishRun", pb.FinishRunRequest(name=run))
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for response in responses:
            [series] = response.series
            seen += series.steps
    assert seen == [*range(10), *range(20, 80)]


async def test_deleting_needs_an_end_and_takes_the_points(clients: Clients) -> None:
    client = clients()
    run = (await client.create("deleted")).name
    await client.log(batch(run, 1, [1]))
    with pytest.raises(PreconditionError) as refusal:
        await client.call("DeleteRun", pb.DeleteRunRequest(name=run))
    assert refusal.value.reason == "RUN_NOT_ENDED"
    await client.call("FinishRun", pb.FinishRunRequest(name=run, state=run_pb2.Run.STATE_FAILED))
    with pytest.raises(PreconditionError):
        await client.log(batch(run, 2, [2]))
    await client.call("DeleteRun", pb.DeleteRunRequest(name=run))
    for method, request in (
        ("GetRun", pb.GetRunRequest(name=run)),
        ("QueryMetrics", pb.QueryMetricsRequest(parent="projects/p", runs=[run])),
        ("LogMetricBatch", pb.LogMetricBatchRequest(batch=batch(run, 2, [2]))),
    ):
        with pytest.raises(NotFoundError):
            await client.call(method, request)
    again = (await client.create("deleted")).name
    assert await client.log(batch(again, 1, [7])) == 1
    assert list((await client.curve(again, "train/loss")).steps) == [7]


async def test_runs_of_jobs_end_with_their_jobs_alone(clients: Clients) -> None:
    run = "projects/p/runs/not-finished"
    await clients(job="projects/p/trainingJobs/not-finished", attempt=1, fence=1).log(batch(run, 1, [1]))
    with pytest.raises(PreconditionError) as refusal:
        await clients().call("FinishRun", pb.FinishRunRequest(name=run))
    assert refusal.value.reason == "RUN_OF_JOB"


async def test_comparison_and_its_events(clients: Clients, bus: NatsEventBus) -> None:
    client = clients(projects=("compared",))
    names: list[str] = []
    figures = {"a": (0.91, 0.87, 0.94), "b": (0.953, 0.92, 0.98)}
    for run_id, (value, low, high) in figures.items():
        run = await client.create(run_id, project="compared", params={"rank": "4" if run_id == "a" else "16"})
        names.append(run.name)
        keys = ["test/accuracy", "test/accuracy_low", "test/accuracy_high", "train/loss"]
        message = batch(run.name, 1, [10] * 4)
        message.keys[:], message.key_indices[:], message.values[:] = (
            keys,
            range(4),
            [value, low, high, 1 - value],
        )
        await client.log(message)
    result = await client.call("CompareRuns", pb.CompareRunsRequest(parent="projects/compared", runs=names))
    assert (result.metric, result.better_run, result.conclusive) == ("test/accuracy", names[1], False)
    assert result.verdict.startswith("run b is better on test/accuracy: 0.953 [0.92, 0.98] against 0.91")
    [difference] = result.config_differences
    assert (difference.field, list(difference.values)) == ("rank", ["4", "16"])
    with pytest.raises(InvalidError):
        await client.call("CompareRuns", pb.CompareRunsRequest(parent="projects/compared", runs=names[:1]))

    compared: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    best: dict[str, Event] = {}

    async def collect(delivery: Delivery) -> None:
        event = parse_event(delivery)
        if event.fact == "compared":
            compared.set_result(event)
        else:
            best[event.resource] = event

    reading = asyncio.create_task(
        bus.consume("test-compared", event_subject("run", "*", "compared", "*"), collect)
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        event = await compared
        while set(best) != set(names):  # noqa: ASYNC110  events about two runs come in any order
            await asyncio.sleep(0.01)
    reading.cancel()
    payload = run_events_pb2.RunCompared.FromString(event.payload)
    assert (payload.better_run, payload.verdict, event.resource) == (names[1], result.verdict, names[1])
    logged = run_events_pb2.RunBestLogged.FromString(best[names[0]].payload)
    assert (logged.metric.key, logged.run) == ("train/loss", names[0])


async def test_a_deleted_run_of_a_job_stays_deleted(clients: Clients, bus: NatsEventBus) -> None:
    job, run = "projects/p/trainingJobs/gone", "projects/p/runs/gone"
    attempt = clients(job=job, attempt=1, fence=1)
    assert await attempt.log(batch(run, 1, [1])) == 1
    await bus.publish(job_event("failed", job, attempt=1).message())
    await until_run(clients(), run, lambda each: each.state == run_pb2.Run.STATE_FAILED)
    await clients().call("DeleteRun", pb.DeleteRunRequest(name=run))
    for late in (attempt, clients(Role.SERVICE, ("*",))):
        with pytest.raises(NotFoundError):
            await late.log(batch(run, 2, [2]))
    await bus.publish(job_event("failed", job, attempt=1).message())
    await bus.publish(job_event("queued", "projects/p/trainingJobs/after").message())
    await until_run(clients(), "projects/p/runs/after", lambda _: True)
    with pytest.raises(NotFoundError):
        await clients().get(run)
