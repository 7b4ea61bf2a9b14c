"""Datasets from the upload to the ledger, and the ways in which they do not come to be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finemesh.chassis.objects import upload_directory
from finemesh.core.errors import (
    AlreadyExistsError,
    FencedError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from finemesh.core.spec.data.split_options import MAX_ASSIGNMENT_BYTES
from finemesh.v1 import attempt_pb2, dataset_pb2, ledger_pb2, validation_report_pb2
from finemesh.v1 import dataprep_service_pb2 as pb
from google.rpc import code_pb2

from tests.support.dataprep_client import DataPrepClient, put
from tests.support.scripted_cluster import ScriptedCluster, translated
from tests.support.services import ServiceProcess
from tests.support.training_client import FactLog

pytestmark = pytest.mark.integration
State = dataset_pb2.Dataset.State

LEDGER = {
    "row_id": ["a", "b", "c", "d'; --"],
    "disposition": ["kept", "quarantined", "kept", "dropped"],
    "reason": ["", "MASK_SIZE_MISMATCH", "", "INVISIBLE"],
    "message": ["", "64x48 is not 320x240", "", "hidden"],
    "field": ["", "masklet[1][0].size", "", ""],
    "children": [["x"], [], ["y", "z"], []],
}


def result(*, class_names: bool = True) -> attempt_pb2.AttemptResult:
    ledger = ledger_pb2.LedgerSummary(
        inputs=4, kept=2, quarantined=1, dropped=1, by_reason={"MASK_SIZE_MISMATCH": 1, "INVISIBLE": 1}
    )
    summary = dataset_pb2.DatasetSummary(
        digest="sha256:" + "ab" * 32,
        row_count=3,
        size_bytes=99,
        splits=[dataset_pb2.SplitCount(split="train", rows=3)],
        has_class_names=class_names,
        ledger=ledger,
        warnings=["video missing: frames rendered from masks"],
        class_splits=[
            dataset_pb2.ClassSplitCount(class_name="dog", split="train", objects=4, rows=3),
            dataset_pb2.ClassSplitCount(class_name="indoors", split="train", rows=2),
        ],
        leakage_shares=dataset_pb2.LeakageShares(by_video=0.5, by_similar=0.0),
    )
    return attempt_pb2.AttemptResult(dataset=summary)


async def publish(service: ServiceProcess, name: str, folder: Path) -> None:
    """What a cluster would have written for a dataset: here its ledger."""
    (folder / "ledger").mkdir(parents=True)
    pq.write_table(pa.table(LEDGER), folder / "ledger/part-00000.parquet")
    store = service.object_store()
    try:
        await upload_directory(store, folder, name)
    finally:
        store.close()


async def complete_dataset(client: DataPrepClient, cluster: ScriptedCluster) -> dataset_pb2.Dataset:
    dataset = await client.import_upload(await client.uploaded())
    attempt = await cluster.next_attempt()
    await attempt.renew()
    await attempt.complete(result())
    return await client.get(dataset.name)


async def test_an_upload_becomes_a_dataset(
    service: ServiceProcess, client: DataPrepClient, cluster: ScriptedCluster, facts: FactLog, tmp_path: Path
) -> None:
    upload = await client.uploaded(b"some annotations")
    dataset = await client.import_upload(upload, dataset_id="raw")
    assert (dataset.name, dataset.state) == (f"{client.parent}/datasets/raw", State.STATE_QUEUED)

    attempt = await cluster.next_attempt()
    work = attempt.command.import_work
    assert work.upload.name == upload
    assert work.upload.size_bytes == 16
    assert work.output_uri == f"s3://finemesh-test/{dataset.name}"
    await attempt.renew("STARTING")
    assert (await client.get(dataset.name)).state == State.STATE_QUEUED
    await attempt.renew(fraction=0.5)
    running = await client.get(dataset.name)
    assert (running.state, running.progress.fraction, running.attempt) == (State.STATE_RUNNING, 0.5, 1)

    await publish(service, dataset.name, tmp_path / "out")
    await attempt.complete(result())
    made = await client.get(dataset.name)
    assert made.state == State.STATE_SUCCEEDED
    assert made.summary == result().dataset
    assert await facts.names_until("imported") == ["imported"]

    files = (await client.call("ListDatasetFiles", pb.ListDatasetFilesRequest(parent=dataset.name))).files
    assert [file.path for file in files] == ["ledger/part-00000.parquet"]


async def test_a_ledger_that_does_not_add_up_makes_no_dataset(
    client: DataPrepClient, cluster: ScriptedCluster
) -> None:
    dataset = await client.import_upload(await client.uploaded())
    attempt = await cluster.next_attempt()
    await attempt.renew()
    lossy = result()
    lossy.dataset.ledger.inputs += 1  # a row of which nobody says what became of it
    with pytest.raises(PreconditionError) as refusal:
        await attempt.complete(lossy)
    assert refusal.value.reason == "LEDGER_UNBALANCED"
    assert (await client.get(dataset.name)).state == State.STATE_RUNNING


async def test_the_ledger_can_be_asked(
    service: ServiceProcess, client: DataPrepClient, cluster: ScriptedCluster, tmp_path: Path
) -> None:
    dataset = await complete_dataset(client, cluster)
    await publish(service, dataset.name, tmp_path / "out")

    async def ask(**fields: Any) -> pb.ListLedgerEntriesResponse:
        return await client.call(
            "ListLedgerEntries", pb.ListLedgerEntriesRequest(parent=dataset.name, **fields)
        )

    first = await ask(page_size=3)
    rest = await ask(page_size=3, page_token=first.next_page_token)
    entries = [*first.ledger_entries, *rest.ledger_entries]
    assert [each.row_id for each in entries] == LEDGER["row_id"]
    assert [list(each.children) for each in entries] == LEDGER["children"]
    assert not rest.next_page_token
    faulty = await ask(filter='disposition = "QUARANTINED"')
    assert [(e.row_id, e.reason, e.field) for e in faulty.ledger_entries] == [
        ("b", "MASK_SIZE_MISMATCH", "masklet[1][0].size")
    ]
    quoted = await ask(filter='row_id = "d\'; --"')
    assert [each.row_id for each in quoted.ledger_entries] == ["d'; --"]
    with pytest.raises(InvalidError) as error:
        await ask(filter="children = 3")
    assert error.value.reason == "INVALID_FILTER"


async def test_a_stream_serves_as_upload_too(client: DataPrepClient) -> None:
    content = bytes(range(256)) * 5000
    upload = await client.announce(content)

    async def pieces():  # noqa: ANN202
        for at in range(0, len(content), 1 << 19):
            message = pb.UploadArchiveRequest(name=upload.name)
            message.chunk.data = content[at : at + (1 << 19)]
            yield message

    with translated():
        await client.stub.UploadArchive(pieces())
    await client.import_upload(upload.name, validate_only=True)

    other = await client.announce(b"expected")

    async def wrong():  # noqa: ANN202
        message = pb.UploadArchiveRequest(name=other.name)
        message.chunk.data = b"tampered"
        yield message

    with pytest.raises(PreconditionError) as error, translated():
        await client.stub.UploadArchive(wrong())
    assert error.value.reason == "UPLOAD_CORRUPT"


async def test_an_upload_without_its_bytes_is_refused(client: DataPrepClient) -> None:
    upload = await client.announce(b"promised")
    with pytest.raises(PreconditionError) as error:
        await client.import_upload(upload.name)
    assert error.value.reason == "UPLOAD_INCOMPLETE"
    assert put(upload.url, b"another length") == 403


async def test_one_request_makes_one_dataset(client: DataPrepClient, cluster: ScriptedCluster) -> None:
    upload = await client.uploaded()
    both = await asyncio.gather(*(client.import_upload(upload, request_id="r-1") for _ in range(2)))
    assert both[0].name == both[1].name
    await cluster.next_attempt()
    assert cluster.commands.empty()
    with pytest.raises(AlreadyExistsError) as error:
        await client.import_upload(await client.uploaded(), request_id="r-1")
    assert error.value.reason == "REQUEST_ID_REUSED"


async def test_a_lost_attempt_is_followed_by_another(
    client: DataPrepClient, cluster: ScriptedCluster
) -> None:
    dataset = await client.import_upload(await client.uploaded())
    first = await cluster.next_attempt()
    await first.renew()
    second = await cluster.next_attempt()  # the first one's lease ran out
    assert second.command.attempt == 2
    assert second.command.fence > first.command.fence
    with pytest.raises((FencedError, UnauthenticatedError)):  # its token ends with its lease
        await first.complete(result())
    await second.renew()
    await second.complete(result())
    assert (await client.get(dataset.name)).state == State.STATE_SUCCEEDED


async def test_an_error_that_blames_the_source_is_final(
    client: DataPrepClient, cluster: ScriptedCluster, facts: FactLog
) -> None:
    dataset = await client.import_upload(await client.uploaded())
    attempt = await cluster.next_attempt()
    await attempt.renew()
    await attempt.fail(code_pb2.INVALID_ARGUMENT, "the archive leaves its folder")
    failed = await client.get(dataset.name)
    assert (failed.state, failed.error.message) == (State.STATE_FAILED, "the archive leaves its folder")
    assert await facts.names_until("failed") == ["failed"]
    with pytest.raises(PreconditionError) as error:
        await client.call("ValidateDataset", pb.ValidateDatasetRequest(name=dataset.name))
    assert error.value.reason == "DATASET_NOT_READY"
    assert error.value.message.endswith("is FAILED: make it again")


async def test_cancel_stops_at_once_or_when_the_work_does(
    client: DataPrepClient, cluster: ScriptedCluster, facts: FactLog
) -> None:
    dataset = await client.import_upload(await client.uploaded())
    attempt = await cluster.next_attempt()
    await attempt.renew()
    cancel = pb.CancelDatasetRequest(name=dataset.name)
    assert (await client.call("CancelDataset", cancel)).state == State.STATE_CANCELLING
    assert await attempt.renew() == "CANCEL"
    await attempt.stop()
    assert (await client.get(dataset.name)).state == State.STATE_CANCELLED
    assert await facts.names_until("cancelled") == ["cancelled"]
    await client.call("DeleteDataset", pb.DeleteDatasetRequest(name=dataset.name))
    with pytest.raises(NotFoundError):
        await client.get(dataset.name)


async def test_a_split_needs_a_complete_parent_of_its_project(
    service: ServiceProcess, client: DataPrepClient, cluster: ScriptedCluster
) -> None:
    parent = await complete_dataset(client, cluster)
    split = dataset_pb2.Dataset(split_from=dataset_pb2.SplitOrigin(dataset=parent.name, gap_frames=3))
    await client.create(split)
    attempt = await cluster.next_attempt()
    assert attempt.command.split_work.source_uri == f"s3://finemesh-test/{parent.name}"
    assert attempt.command.split_work.origin.gap_frames == 3

    stranger = DataPrepClient(service.address, service.key, "stranger")
    try:
        with pytest.raises(PermissionDeniedError):
            await stranger.get(parent.name)
        with pytest.raises(InvalidError) as error:
            await stranger.create(split)
        assert error.value.violations[0].field == "dataset.split_from.dataset"
    finally:
        await stranger.channel.close()


async def test_lists_of_a_split_reach_the_cluster_but_no_list_or_event(
    client: DataPrepClient, cluster: ScriptedCluster, facts: FactLog
) -> None:
    parent = await complete_dataset(client, cluster)
    assert await facts.names_until("imported") == ["imported"]
    lists = {f"{number:05d}": "val" for number in range(MAX_ASSIGNMENT_BYTES // 16)}  # as much as fits
    origin = dataset_pb2.SplitOrigin(
        dataset=parent.name, strategy="SPLIT_STRATEGY_PREDEFINED", assignments=lists
    )
    split = await client.create(dataset_pb2.Dataset(split_from=origin))
    attempt = await cluster.next_attempt()
    assert attempt.command.split_work.origin.assignments == lists
    await attempt.renew()
    await attempt.complete(result())
    made = await client.get(split.name)
    assert made.split_from.assignments == lists
    assert made.summary.class_splits == result().dataset.class_splits
    assert await facts.names_until("split") == ["split"]
    listed = await client.call("ListDatasets", pb.ListDatasetsRequest(parent=client.parent))
    [found] = [each for each in listed.datasets if each.name == split.name]
    assert not found.split_from.assignments
    assert found.summary.row_count == 3
    assert not found.summary.class_splits

    origin.assignments["one more"] = "train"
    with pytest.raises(InvalidError) as error:
        await client.create(dataset_pb2.Dataset(split_from=origin))
    assert error.value.violations[0].field == "dataset.split_from.assignments"


@pytest.mark.parametrize(
    ("dataset", "field"),
    [
        (dataset_pb2.Dataset(), "dataset.origin"),
        (
            dataset_pb2.Dataset(imported_from=dataset_pb2.ImportOrigin(upload="nonsense")),
            "dataset.imported_from.upload",
        ),
        (
            dataset_pb2.Dataset(converted_from=dataset_pb2.ConvertOrigin(dataset="x")),
            "dataset.converted_from.format",
        ),
        (
            dataset_pb2.Dataset(split_from=dataset_pb2.SplitOrigin(dataset="x", test_ratio=1)),
            "dataset.split_from.train_ratio",
        ),
    ],
)
async def test_what_is_wrong_is_named(
    client: DataPrepClient, dataset: dataset_pb2.Dataset, field: str
) -> None:
    with pytest.raises(InvalidError) as error:
        await client.create(dataset)
    assert error.value.violations[0].field == field


async def test_a_validation_is_a_resource_of_its_own(
    client: DataPrepClient, cluster: ScriptedCluster, facts: FactLog
) -> None:
    dataset = await complete_dataset(client, cluster)
    report = await client.call("ValidateDataset", pb.ValidateDatasetRequest(name=dataset.name))
    attempt = await cluster.next_attempt()
    assert attempt.command.resource == report.name
    await attempt.renew()
    finding = validation_report_pb2.Finding(id="LONG_TAIL", severity="SEVERITY_WARNING", evidence="2 of 900")
    measures = validation_report_pb2.ValidationMeasures(
        picture_count=3, similar_pair_count=0, picture_sizes=[{"width": 4, "height": 2, "count": 3}]
    )
    found = attempt_pb2.ValidationResult(
        verdict="VERDICT_PASSED_WITH_WARNINGS",
        row_count=3,
        finding_counts={"LONG_TAIL": 1},
        findings=[finding],
        measures=measures,
    )
    await attempt.complete(attempt_pb2.AttemptResult(validation=found))
    done = await client.call("GetValidationReport", pb.GetValidationReportRequest(name=report.name))
    assert done.verdict == validation_report_pb2.ValidationReport.VERDICT_PASSED_WITH_WARNINGS
    assert list(done.findings) == [finding]
    assert done.measures == measures
    assert "report.html" in done.html_url
    assert await facts.names_until("validated") == ["imported", "validated"]
    listed = await client.call("ListValidationReports", pb.ListValidationReportsRequest(parent=dataset.name))
    assert [each.name for each in listed.validation_reports] == [report.name]
