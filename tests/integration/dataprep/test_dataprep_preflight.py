"""A preflight as a resource of its own, from the request to its end; the cluster is scripted."""

from __future__ import annotations

import asyncio

import pytest
from finemesh.core.errors import InvalidError, NotFoundError, PreconditionError
from finemesh.v1 import attempt_pb2, dataset_pb2, preflight_pb2
from finemesh.v1 import dataprep_service_pb2 as pb
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec, SequenceSpec
from google.rpc import code_pb2

from tests.support.dataprep_client import DataPrepClient
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.training_client import FactLog

pytestmark = pytest.mark.integration
Report = preflight_pb2.PreflightReport

SPEC = FineTuneSpec(base_model="/models/llama", sequence=SequenceSpec(max_tokens=99))
SEGMENT = preflight_pb2.TokenSegment(turn=0, role="user", count=2, ids=[5, 6], texts=["a", " b"])
RESULT = preflight_pb2.PreflightResult(
    verdict="VERDICT_PASSED_WITH_WARNINGS",
    model=preflight_pb2.PreflightModel(task="LANGUAGE", vocab_size=512),
    splits=[preflight_pb2.PreflightSplit(split="train", rows=1 << 40, by_reason={"NO_LOSS_TOKENS": 3})],
    longest=[preflight_pb2.PreflightRow(row_id="a", outcome="OUTCOME_TRUNCATED", tokens=120)],
    shown=[preflight_pb2.ShownRow(segments=[SEGMENT])],
)


async def complete_dataset(
    client: DataPrepClient, cluster: ScriptedCluster, *, form: str = "DATASET_FORMAT_CANONICAL"
) -> dataset_pb2.Dataset:
    dataset = await client.import_upload(await client.uploaded())
    attempt = await cluster.next_attempt()
    summary = dataset_pb2.DatasetSummary(digest="sha256:" + "ab" * 32, row_count=1)
    await attempt.renew()
    await attempt.complete(attempt_pb2.AttemptResult(dataset=summary))
    if form == "DATASET_FORMAT_CANONICAL":
        return await client.get(dataset.name)
    origin = dataset_pb2.ConvertOrigin(dataset=dataset.name, format=form)
    converted = await client.create(dataset_pb2.Dataset(converted_from=origin))
    attempt = await cluster.next_attempt()
    await attempt.renew()
    await attempt.complete(attempt_pb2.AttemptResult(dataset=summary))
    return converted


async def start(client: DataPrepClient, dataset: str, spec: FineTuneSpec = SPEC, **fields: object) -> Report:
    request = pb.PreflightDatasetRequest(name=dataset, spec=spec, **fields)  # type: ignore[arg-type]
    return await client.call("PreflightDataset", request)


async def test_a_preflight_goes_from_the_request_to_its_result(
    client: DataPrepClient, cluster: ScriptedCluster, facts: FactLog
) -> None:
    dataset = await complete_dataset(client, cluster)
    made = await start(client, dataset.name, options=preflight_pb2.PreflightOptions(shown_rows=2))
    assert (made.state, made.spec.task) == (Report.STATE_QUEUED, FineTuneSpec.TASK_UNSPECIFIED)
    assert (made.options.shown_rows, made.options.max_masked_fraction) == (2, 0.05)

    attempt = await cluster.next_attempt()
    work = attempt.command.preflight_work
    assert attempt.command.resource == made.name
    assert (work.spec.dataset, work.spec.sequence.max_tokens) == (dataset.name, 99)
    assert (work.source_uri, work.output_uri) == (
        f"s3://finemesh-test/{dataset.name}",
        f"s3://finemesh-test/{made.name}",
    )
    versions = client.stub.WatchPreflightReport(pb.WatchPreflightReportRequest(name=made.name))
    await attempt.renew(fraction=0.5)
    await attempt.complete(attempt_pb2.AttemptResult(preflight=RESULT))
    seen = [version async for version in versions]
    assert seen[-1].state == Report.STATE_SUCCEEDED
    assert seen[-1].result == RESULT
    assert "report.html" in seen[-1].html_url
    assert "report.json" in seen[-1].json_url
    assert await facts.names_until("preflighted") == ["imported", "preflighted"]

    listed = await client.call("ListPreflightReports", pb.ListPreflightReportsRequest(parent=dataset.name))
    [summary] = listed.preflight_reports
    assert summary.result.splits == RESULT.splits
    assert not summary.result.shown
    await client.call("DeleteDataset", pb.DeleteDatasetRequest(name=dataset.name))
    with pytest.raises(NotFoundError) as error:
        await client.call("GetPreflightReport", pb.GetPreflightReportRequest(name=made.name))
    assert error.value.reason == "PREFLIGHT_REPORT_NOT_FOUND"


async def test_one_request_starts_one_preflight_and_cancel_stops_it(
    client: DataPrepClient, cluster: ScriptedCluster, facts: FactLog
) -> None:
    dataset = await complete_dataset(client, cluster)
    both = await asyncio.gather(*(start(client, dataset.name, request_id="r-1") for _ in range(2)))
    assert both[0].name == both[1].name
    attempt = await cluster.next_attempt()
    await attempt.renew()
    with pytest.raises(PreconditionError) as error:
        await client.call("DeleteDataset", pb.DeleteDatasetRequest(name=dataset.name))
    assert error.value.reason == "DATASET_LIVE"
    await client.call("CancelPreflightReport", pb.CancelPreflightReportRequest(name=both[0].name))
    assert await attempt.renew() == "CANCEL"
    await attempt.stop()
    assert await facts.names_until("cancelled") == ["imported", "cancelled"]


async def test_an_error_of_the_look_is_the_reports_state(
    client: DataPrepClient, cluster: ScriptedCluster
) -> None:
    dataset = await complete_dataset(client, cluster)
    made = await start(client, dataset.name)
    attempt = await cluster.next_attempt()
    await attempt.fail(code_pb2.NOT_FOUND, "there is no folder /models/llama on this node")
    failed = await client.call("GetPreflightReport", pb.GetPreflightReportRequest(name=made.name))
    assert failed.state == Report.STATE_FAILED
    assert failed.error.message == "there is no folder /models/llama on this node"
    assert not failed.html_url


async def test_what_cannot_be_looked_at_is_refused(client: DataPrepClient, cluster: ScriptedCluster) -> None:
    dataset = await complete_dataset(client, cluster)
    for spec, field in (
        (FineTuneSpec(), "spec.base_model"),
        (FineTuneSpec(base_model="m", dataset="projects/a/datasets/other"), "spec.dataset"),
        (FineTuneSpec(base_model="m", sequence=SequenceSpec(max_tokens=1)), "spec.sequence.max_tokens"),
    ):
        with pytest.raises(InvalidError) as error:
            await start(client, dataset.name, spec)
        assert (error.value.reason, error.value.violations[0].field) == ("INVALID_SPEC", field)
    with pytest.raises(InvalidError) as error:
        await start(client, dataset.name, options=preflight_pb2.PreflightOptions(shown_rows=1000))
    assert error.value.violations[0].field == "options.shown_rows"
    exported = await complete_dataset(client, cluster, form="DATASET_FORMAT_LLAVA")
    with pytest.raises(PreconditionError) as refused:
        await start(client, exported.name)
    assert refused.value.reason == "DATASET_NOT_CANONICAL"
