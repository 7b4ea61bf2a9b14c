"""Evaluations of items, kept once and for good, whatever is killed."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Callable, Generator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.client_channel import channel
from finemesh.chassis.errors import from_rpc_error
from finemesh.cluster.evaluations import evaluations_of, ship_evaluations, write_evaluation
from finemesh.core.errors import FinemeshError
from finemesh.v1 import evaluation_service_pb2 as pb
from finemesh.v1.evaluation_pb2 import Evaluation, EvaluationItems, ItemMetric
from finemesh.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from finemesh.v1.tracking_service_pb2 import CompareRunsRequest, DeleteRunRequest, FinishRunRequest
from grpc.aio import AioRpcError

from tests.support.servers import PATIENCE_SECONDS, NatsServer, S3Server
from tests.support.services import ServiceProcess
from tests.support.tracking import Client, batch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def with_store(tmp_path_factory: pytest.TempPathFactory, nats: NatsServer) -> Generator[ServiceProcess]:
    """A Tracking service with an object store."""
    folder = tmp_path_factory.mktemp("evaluations")
    s3 = S3Server(folder / "s3").start()
    process = ServiceProcess("tracking", folder, nats, s3, {"FINEMESH_DATA_DIR": str(folder / "data")})
    objects = process.object_store()
    asyncio.run(objects.ensure_bucket())
    objects.close()
    yield process.start()
    process.stop()
    s3.kill()


class Evaluations:
    """A caller of the service."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._stub = EvaluationServiceStub(client.channel)

    async def call(self, method: str, request: object) -> object:
        try:
            return await getattr(self._stub, method)(request, timeout=PATIENCE_SECONDS)
        except AioRpcError as error:
            raise from_rpc_error(error) from None

    async def log(self, request: pb.LogEvaluationRequest) -> Evaluation:
        found = await self.call("LogEvaluation", request)
        assert isinstance(found, Evaluation)
        return found

    async def listed(self, run: str, where: str = "") -> list[str]:
        page = await self.call("ListEvaluations", pb.ListEvaluationsRequest(parent=run, filter=where))
        assert isinstance(page, pb.ListEvaluationsResponse)
        return [each.name.rpartition("/")[2] for each in page.evaluations]

    async def read(self, name: str, page_size: int = 0) -> EvaluationItems:
        items, token = EvaluationItems(), ""
        while True:
            request = pb.ReadEvaluationRequest(name=name, page_size=page_size, page_token=token)
            page = await self.call("ReadEvaluation", request)
            assert isinstance(page, pb.ReadEvaluationResponse)
            if not items.metrics:
                items.MergeFrom(page.items)
            else:
                items.ids.extend(page.items.ids)
                for whole, part in zip(items.metrics, page.items.metrics, strict=True):
                    whole.values.extend(part.values)
            token = page.next_page_token
            if not token:
                return items


@pytest.fixture
async def caller(with_store: ServiceProcess, clients: Callable[..., Client]) -> Evaluations:
    return Evaluations(clients(of=with_store))


def logged(run: str, items: int = 5, shift: float = 0.0, **about: object) -> pb.LogEvaluationRequest:
    """Losses and decisions of some items, the last of them without a decision."""
    right = [float(index % 2) for index in range(items - 1)] + [math.nan]
    losses = [shift + index for index in range(items)]
    return pb.LogEvaluationRequest(
        parent=run,
        evaluation=Evaluation(**{"split": "test", "step": 7, **about}),  # pyright: ignore[reportArgumentType]
        items=EvaluationItems(
            ids=[f"i{index}" for index in range(items)],
            digests=[f"d{index}" for index in range(items)],
            groups=[f"v{index // 2}" for index in range(items)],
            metrics=[
                ItemMetric(key="loss", values=losses, weights=[1.0 + index for index in range(items)]),
                ItemMetric(key="accuracy", values=right),
            ],
        ),
    )


async def test_an_evaluation_is_read_back_as_it_was_logged(
    caller: Evaluations, with_store: ServiceProcess
) -> None:
    run = (await caller.client.create("read")).name
    request = logged(run, items=7, variant="untrained", dataset="d", dataset_digest="sha256:1")
    found = await caller.log(request)
    assert found.name == f"{run}/evaluations/test-untrained-s7-a1"
    assert (found.metrics, found.item_count) == (["loss", "accuracy"], 7)
    shown = f"SELECT name, variant, step, metrics, item_count FROM evaluations WHERE run = '{run}'"
    assert await caller.client.sql(shown) == [[found.name, "untrained", 7, "[loss, accuracy]", 7]]
    items = await caller.read(found.name, page_size=3)
    assert items.ids == request.items.ids
    assert items.metrics[0].values == request.items.metrics[0].values
    assert math.isnan(items.metrics[1].values[-1])
    whole = await caller.read(found.name)
    assert (whole.digests, whole.groups) == (request.items.digests, request.items.groups)
    assert whole.metrics[0].weights == request.items.metrics[0].weights
    objects = with_store.object_store()
    try:  # another program reads the file
        key = found.uri.removeprefix(f"s3://{with_store.s3.bucket}/")
        table = pq.read_table(io.BytesIO(await objects.get_bytes(key, max_bytes=1 << 20)))
    finally:
        objects.close()
    assert table["item_id"].to_pylist() == list(request.items.ids)
    assert table["value/loss"].to_pylist() == list(request.items.metrics[0].values)


async def test_what_comes_again_changes_nothing_and_what_differs_is_refused(caller: Evaluations) -> None:
    run = (await caller.client.create("again")).name
    first = await caller.log(logged(run))
    assert await caller.log(logged(run)) == first
    with pytest.raises(FinemeshError) as refused:
        await caller.log(logged(run, shift=1.0))
    assert refused.value.reason == "EVALUATION_EXISTS"
    await caller.log(logged(run, shift=1.0, attempt=2))
    await caller.client.call("FinishRun", FinishRunRequest(name=run))
    await caller.log(logged(run, step=9))  # models are evaluated afterwards, too
    assert await caller.listed(run) == ["test-s9-a1", "test-s7-a2", "test-s7-a1"]
    assert await caller.listed(run, "attempt = 2") == ["test-s7-a2"]
    assert (await caller.read(first.name)).metrics[0].values[0] == 0.0


async def test_an_evaluation_of_as_many_items_as_may_be_is_taken_whole(caller: Evaluations) -> None:
    run = (await caller.client.create("large")).name
    request = logged(run, items=200_000)
    request.items.digests[:] = [f"{index:064x}" for index in range(200_000)]
    assert request.ByteSize() > 16 << 20
    found = await caller.log(request)
    assert (await caller.read(found.name)).ids == request.items.ids


async def test_what_makes_no_sense_is_refused_by_field(caller: Evaluations) -> None:
    run = (await caller.client.create("wrong")).name
    request = logged(run)
    request.items.ids[1] = "i0"
    request.items.metrics[0].weights[0] = -1
    request.items.groups.pop()
    with pytest.raises(FinemeshError, match="names an item twice") as refused:
        await caller.log(request)
    assert refused.value.reason == "MALFORMED_EVALUATION"
    assert "groups" in refused.value.message
    assert "negative" in refused.value.message
    with pytest.raises(FinemeshError) as unknown:
        await caller.call("GetEvaluation", pb.GetEvaluationRequest(name=f"{run}/evaluations/test-s1-a1"))
    assert unknown.value.reason == "EVALUATION_NOT_FOUND"


async def test_runs_are_compared_by_the_items_that_all_have(caller: Evaluations) -> None:
    names: list[str] = []
    for run_id, rank, shift in (("cmp-a1", "4", 0.0), ("cmp-a2", "4", 0.01), ("cmp-b1", "8", -0.5)):
        seed = run_id[-1]
        run = (await caller.client.create(run_id, params={"rank": rank, "optimization.seed": seed})).name
        await caller.client.log(batch(run, 1, [1, 2], key="test/loss"))
        request = logged(run, items=40, shift=shift)
        # Every run has its own first item beside those that all have.
        request.items.ids[0] = run_id
        await caller.log(request)
        names.append(run)
    found = await caller.client.call(
        "CompareRuns",
        CompareRunsRequest(
            parent="projects/p", runs=names, metric="test/loss", baseline=names[1], price_per_device_hour=3.0
        ),
    )
    assert found.items_problem == ""
    assert (found.items.item_count, found.items.left_out_count, found.items.cluster_count) == (39, 3, 20)
    assert [list(group.runs) for group in found.items.groups] == [names[:2], names[2:]]
    [difference] = found.items.differences
    assert difference.estimate == pytest.approx(0.505)
    assert (found.better_run, found.conclusive) == (names[2], difference.conclusive)
    assert [cost.gain for cost in found.costs] == pytest.approx([0.01, 0.0, 0.51])
    assert [each.field for each in found.config_differences] == ["optimization.seed", "rank"]
    assert found.recommendations
    [metric] = [each for each in found.metrics if each.key == "test/loss"]
    assert metric.last_differences == [0.0, 0.0, 0.0]
    without = CompareRunsRequest(parent="projects/p", runs=names, metric="test/loss")
    without.runs.append((await caller.client.create("cmp-none", params={"rank": "1"})).name)
    answer = await caller.client.call("CompareRuns", without)
    assert answer.items_problem == "without an evaluation of the items of test: cmp-none"


async def test_runs_that_have_logged_items_alone_are_compared_by_their_mean(caller: Evaluations) -> None:
    names: list[str] = []
    for run_id, shift in (("alone-a", 0.0), ("alone-b", -0.5)):
        names.append((await caller.client.create(run_id, params={"shift": str(shift)})).name)
        await caller.log(logged(names[-1], items=40, shift=shift))
    question = CompareRunsRequest(parent="projects/p", runs=names, metric="test/loss")
    found = await caller.client.call("CompareRuns", question)
    [metric] = found.metrics
    means = [group.mean for group in found.items.groups]
    assert [each.last_value for each in metric.summaries] == pytest.approx(means)
    assert found.better_run == names[1]
    question.metric = "test/f1"
    with pytest.raises(FinemeshError) as refused:
        await caller.client.call("CompareRuns", question)
    assert refused.value.reason == "METRIC_NOT_LOGGED"


async def test_others_neither_read_nor_log(
    caller: Evaluations, clients: Callable[..., Client], with_store: ServiceProcess
) -> None:
    run = (await caller.client.create("mine")).name
    found = await caller.log(logged(run))
    stranger = Evaluations(clients(projects=("q",), of=with_store))
    with pytest.raises(FinemeshError) as hidden:
        await stranger.read(found.name)
    assert hidden.value.reason == "PROJECT_DENIED"
    viewer = Evaluations(clients(Role.VIEWER, of=with_store))
    assert (await viewer.read(found.name)).ids
    with pytest.raises(FinemeshError) as denied:
        await viewer.log(logged(run, step=8))
    assert denied.value.reason == "ROLE_DENIED"


async def test_files_go_with_their_run(caller: Evaluations, with_store: ServiceProcess) -> None:
    run = (await caller.client.create("gone")).name
    await caller.log(logged(run))
    await caller.client.call("FinishRun", FinishRunRequest(name=run))
    await caller.client.call("DeleteRun", DeleteRunRequest(name=run))
    objects = with_store.object_store()
    try:
        assert await objects.list("tracking/p/gone/") == []
    finally:
        objects.close()


async def test_attempts_and_kills_leave_each_evaluation_once(
    with_store: ServiceProcess, clients: Callable[..., Client], tmp_path: Path
) -> None:
    """An attempt dies with evaluations on its disk; the next one brings them, over a kill of Tracking."""
    job = "projects/p/trainingJobs/killed"
    run = "projects/p/runs/killed"
    for attempt, steps in ((1, (1, 2)), (2, (2, 3))):
        for step in steps:
            content = logged(run, step=step, split="val", attempt=attempt).SerializeToString()
            write_evaluation(tmp_path / f"{attempt:06d}-{step:012d}-val-0.evaluation", content)
    (tmp_path / "000002-000000000004-val-0.partial").write_bytes(b"torn")
    token = with_store.key.mint_attempt(resource=job, attempt=2, fence=2, project="p", ttl_seconds=600)
    tracking = channel(with_store.address, lambda: token)
    complete = asyncio.Event()
    shipping = asyncio.create_task(ship_evaluations(tracking, tmp_path, complete.is_set))
    await clients(job=job, attempt=2, fence=2, of=with_store).log(batch(run, 1, [1], attempt=2))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(evaluations_of(tmp_path)) == 4:  # noqa: ASYNC110  files tell of no event
            await asyncio.sleep(0.01)
        with_store.kill()
        with_store.start()
        complete.set()
        await shipping
    # An export asks with the token of an attempt, too: which checkpoint was tested.
    listed = await EvaluationServiceStub(tracking).ListEvaluations(pb.ListEvaluationsRequest(parent=run))
    assert len(listed.evaluations) == 4
    await tracking.close()
    caller = Evaluations(clients(of=with_store))
    assert evaluations_of(tmp_path) == []
    names = ["val-s3-a2", "val-s2-a2", "val-s2-a1", "val-s1-a1"]
    assert await caller.listed(run) == names
    for name in names:
        assert (await caller.read(f"{run}/evaluations/{name}")).ids
