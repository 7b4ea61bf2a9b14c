"""The Tracking service as a process, with real NATS, SQLite and DuckDB, over gRPC."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.client_channel import channel
from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.events import Delivery, Event, event_subject, parse_event
from finemesh.core.errors import (
    AlreadyExistsError,
    FencedError,
    FinemeshError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
)
from finemesh.events.v1 import run_events_pb2, training_job_events_pb2
from finemesh.v1 import fine_tune_spec_pb2, metric_pb2, run_pb2, training_job_pb2
from finemesh.v1 import tracking_service_pb2 as pb
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub

from tests.support.servers import NatsServer, S3Server
from tests.support.services import ServiceProcess

pytestmark = pytest.mark.integration


def tracking(folder: Path, nats: NatsServer) -> ServiceProcess:
    """Not started. Tracking needs no S3: the one it is told of does not exist."""
    settings = {"FINEMESH_DATA_DIR": str(folder / "data")}
    return ServiceProcess("tracking", folder, nats, S3Server(folder / "s3"), settings)


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Generator[NatsServer]:
    """A broker of our own: every Tracking service reads under the same durable name."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server.start()
    server.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, nats: NatsServer) -> Generator[ServiceProcess]:
    process = tracking(tmp_path_factory.mktemp("tracking"), nats)
    yield process.start()
    process.stop()


@pytest.fixture
def own(tmp_path: Path, nats: NatsServer) -> Generator[ServiceProcess]:
    """A process that a test starts and may kill."""
    process = tracking(tmp_path, nats)
    yield process
    process.kill()


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncGenerator[NatsEventBus]:
    bus = NatsEventBus(BusConfig(servers=(nats.url,), client_name="test"))
    await bus.start()
    async with asyncio.timeout(10):
        while True:
            try:
                await bus.check_ready()
                break
            except UnavailableError:
                await asyncio.sleep(0.05)
    yield bus
    await bus.close()


class Client:
    """A caller with one token."""

    def __init__(self, service: ServiceProcess, token: str) -> None:
        self.channel = channel(service.address, lambda: token)
        self.stub: Any = TrackingServiceStub(self.channel)

    async def call(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self.stub, method)(request, timeout=20)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def get(self, name: str) -> run_pb2.Run:
        return await self.call("GetRun", pb.GetRunRequest(name=name))

    async def create(self, run_id: str, project: str = "p", **fields: Any) -> run_pb2.Run:
        run = run_pb2.Run(**fields)
        request = pb.CreateRunRequest(parent=f"projects/{project}", run_id=run_id, run=run)
        return await self.call("CreateRun", request)

    async def log(self, batch: metric_pb2.MetricBatch) -> int:
        response = await self.call("LogMetricBatch", pb.LogMetricBatchRequest(batch=batch))
        return response.durable_sequence

    async def stream(self, batches: Iterable[metric_pb2.MetricBatch]) -> AsyncIterator[int]:
        """Durable sequences as they are acknowledged. Raises what ends the stream."""
        requests = (pb.LogMetricsRequest(batch=batch) for batch in batches)
        try:
            async for response in self.stub.LogMetrics(requests):
                yield response.durable_sequence
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def curve(self, run: str, key: str, **fields: Any) -> metric_pb2.MetricSeries:
        parent = "/".join(run.split("/")[:2])
        request = pb.QueryMetricsRequest(parent=parent, runs=[run], keys=[key], **fields)
        [series] = (await self.call("QueryMetrics", request)).series
        return series


@pytest.fixture
async def clients(service: ServiceProcess) -> AsyncGenerator[Any]:
    """Makes callers of the module's service: `clients(role, projects)` or `clients(job=…, attempt=…, fence=…)`."""
    opened: list[Client] = []

    def make(
        role: Role = Role.OPERATOR,
        projects: tuple[str, ...] = ("p",),
        *,
        job: str = "",
        attempt: int = 0,
        fence: int = 0,
        ttl_seconds: float = 600,
        of: ServiceProcess = service,
    ) -> Client:
        if job:
            token = of.key.mint_attempt(
                resource=job,
                attempt=attempt,
                fence=fence,
                project=job.split("/")[1],
                ttl_seconds=ttl_seconds,
            )
        else:
            token = of.key.mint("tester", role, projects, ttl_seconds)
        opened.append(Client(of, token))
        return opened[-1]

    yield make
    for client in opened:
        await client.channel.close()


def batch(
    run: str, sequence: int, steps: Iterable[int], attempt: int = 1, key: str = "train/loss"
) -> metric_pb2.MetricBatch:
    """Points whose value is `1/(1+step)`, shifted by the attempt, measured now."""
    steps = list(steps)
    now_us = time.time_ns() // 1000
    return metric_pb2.MetricBatch(
        run=run,
        attempt=attempt,
        sequence=sequence,
        keys=[key],
        key_indices=[0] * len(steps),
        steps=steps,
        values=[attempt - 1 + 1 / (1 + step) for step in steps],
        times_us=[now_us + step for step in steps],
    )


def job_event(fact: str, name: str, *, attempt: int = 0, rank: int = 8) -> Event:
    spec = fine_tune_spec_pb2.FineTuneSpec(
        task=fine_tune_spec_pb2.FineTuneSpec.TASK_LANGUAGE,
        base_model="tiny",
        dataset="projects/p/datasets/d",
        lora=fine_tune_spec_pb2.LoraMethod(rank=rank),
    )
    job = training_job_pb2.TrainingJob(
        name=name, display_name="A job", labels={"team": "vision"}, spec=spec, attempt=attempt
    )
    payload = getattr(training_job_events_pb2, f"TrainingJob{fact.title()}")(training_job=job)
    return Event.of("training_job", fact, name, payload, source="finemesh/training", time=datetime.now(UTC))


async def until_run(client: Client, name: str, wanted: Any, timeout_seconds: float = 15) -> run_pb2.Run:
    """Wait until the run is there and `wanted` holds of it."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            try:
                async for run in client.stub.WatchRun(pb.WatchRunRequest(name=name)):
                    if wanted(run):
                        return run
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
            await asyncio.sleep(0.05)


async def test_kill_in_mid_stream_loses_and_doubles_nothing(own: ServiceProcess) -> None:
    own.start()
    token = own.key.mint("tester", Role.OPERATOR, ["p"], 600)
    client = Client(own, token)
    run = (await client.create("killed")).name
    batches = [batch(run, number, range(number * 100, number * 100 + 100)) for number in range(1, 301)]
    acknowledged = 0
    with pytest.raises(FinemeshError):
        async for durable in client.stream(batches):
            acknowledged = durable
            if acknowledged >= 40 and own.health():
                own.kill()
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


async def test_a_gap_is_refused_and_names_what_to_send(clients: Any) -> None:
    client = clients()
    run = (await client.create("gap")).name
    assert await client.log(batch(run, 1, [1])) == 1
    with pytest.raises(PreconditionError) as refusal:
        await client.log(batch(run, 3, [3]))
    assert refusal.value.reason == "SEQUENCE_GAP"
    assert refusal.value.metadata["durable_sequence"] == "1"
    assert await client.log(batch(run, 1, [1])) == 1
    assert (await client.get(run)).metrics[0].point_count == 1


async def test_batches_before_a_refused_one_are_acknowledged(clients: Any) -> None:
    client = clients()
    run = (await client.create("refused-late")).name
    replies: list[int] = []
    with pytest.raises(PreconditionError):
        async for durable in client.stream([batch(run, n, [n]) for n in (1, 2, 4)]):
            replies.append(durable)
    assert replies[-1] == 2


async def test_a_superseded_attempt_can_log_nothing_more(clients: Any) -> None:
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
        async for _ in first.stream([batch(run, 2, [5])]):
            pass
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


async def test_an_event_about_a_later_attempt_fences_the_earlier(clients: Any, bus: NatsEventBus) -> None:
    job, run = "projects/p/trainingJobs/restarted", "projects/p/runs/restarted"
    first = clients(job=job, attempt=1, fence=1)
    assert await first.log(batch(run, 1, [1])) == 1
    await bus.publish(job_event("resumed", job, attempt=2).message())
    await until_run(clients(), run, lambda each: each.attempt == 2)
    with pytest.raises(FencedError):
        await first.log(batch(run, 2, [2]))


async def test_an_attempt_logs_to_its_own_run_alone(clients: Any) -> None:
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


async def test_the_agent_drains_old_spools(clients: Any) -> None:
    job, run = "projects/p/trainingJobs/drained", "projects/p/runs/drained"
    agent = clients(Role.SERVICE, ("*",))
    with pytest.raises(NotFoundError):
        await agent.log(batch(run, 1, [1]))
    await clients(job=job, attempt=2, fence=2).log(batch(run, 1, [5], attempt=2))
    assert await agent.log(batch(run, 1, [1, 2])) == 1
    with pytest.raises(UnavailableError) as error:
        await agent.log(batch(run, 1, [9], attempt=3))
    assert error.value.reason == "ATTEMPT_UNKNOWN"


async def test_an_open_stream_ends_with_its_token(clients: Any) -> None:
    job, run = "projects/p/trainingJobs/expired", "projects/p/runs/expired"
    attempt = clients(job=job, attempt=1, fence=1, ttl_seconds=0.5)

    async def requests() -> AsyncIterator[pb.LogMetricsRequest]:
        for number in range(1, 100):
            yield pb.LogMetricsRequest(batch=batch(run, number, [number]))
            await asyncio.sleep(0.1)

    replies: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for response in attempt.stub.LogMetrics(requests()):
            replies.append(response.durable_sequence)
    assert isinstance(from_rpc_error(error.value), UnauthenticatedError)
    assert replies
    assert replies[-1] < 99


async def test_events_make_a_run_once_and_end_it(clients: Any, bus: NatsEventBus) -> None:
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


async def test_runs_of_other_projects_do_not_exist(clients: Any) -> None:
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


async def test_a_request_id_makes_one_run(clients: Any) -> None:
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


async def test_lists_filter_order_and_page(clients: Any) -> None:
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


async def test_watchers_get_each_point_once_and_end_with_the_run(clients: Any) -> None:
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
    async with asyncio.timeout(10):
        async for response in responses:
            [series] = response.series
            seen += series.steps
    assert seen == [*range(10), *range(20, 80)]


async def test_deleting_needs_an_end_and_takes_the_points(clients: Any) -> None:
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


async def test_runs_of_jobs_end_with_their_jobs_alone(clients: Any) -> None:
    run = "projects/p/runs/not-finished"
    await clients(job="projects/p/trainingJobs/not-finished", attempt=1, fence=1).log(batch(run, 1, [1]))
    with pytest.raises(PreconditionError) as refusal:
        await clients().call("FinishRun", pb.FinishRunRequest(name=run))
    assert refusal.value.reason == "RUN_OF_JOB"


async def test_non_finite_values_are_kept(clients: Any) -> None:
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


async def test_comparison_and_its_events(clients: Any, bus: NatsEventBus) -> None:
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
    async with asyncio.timeout(15):
        event = await compared
    reading.cancel()
    payload = run_events_pb2.RunCompared.FromString(event.payload)
    assert (payload.better_run, payload.verdict, event.resource) == (names[1], result.verdict, names[1])
    assert set(best) == set(names)
    logged = run_events_pb2.RunBestLogged.FromString(best[names[0]].payload)
    assert (logged.metric.key, logged.run) == ("train/loss", names[0])


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
async def test_a_malformed_batch_is_refused_by_field(clients: Any, change: Any, field: str) -> None:
    fields = {
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


async def test_points_are_taken_while_nats_is_away(tmp_path: Path, clients: Any) -> None:
    absent = NatsServer(tmp_path / "nats", port=1)
    process = tracking(tmp_path / "tracking", absent)
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
    second = replace(service, port=service.port + 1, folder=tmp_path, _process=None)
    try:
        with pytest.raises(AssertionError):
            second.start(ready=False)
        assert "POINTS_IN_USE" in second.log_path.read_text()
    finally:
        second.stop()
