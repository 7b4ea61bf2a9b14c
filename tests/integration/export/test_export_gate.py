"""What the service makes of what the gate found: it tells the evidence; drift passes where that was asked."""

from __future__ import annotations

import pytest
from finemesh.chassis.auth import Role
from finemesh.core.errors import PermissionDeniedError
from finemesh.events.v1.export_events_pb2 import ExportRejected
from finemesh.v1 import attempt_pb2, export_pb2, fine_tune_spec_pb2

from tests.support.export_client import ExportClient, State
from tests.support.packages import result
from tests.support.scripted_cluster import ScriptedCluster
from tests.support.scripted_dataprep import ScriptedDataPrep
from tests.support.scripted_training import ScriptedTraining
from tests.support.services import ServiceProcess
from tests.support.training_client import FactLog

pytestmark = pytest.mark.integration

WHY = "raw outputs: largest difference of any output is 2.5, the limit is 0.001"


def drifted() -> attempt_pb2.AttemptResult:
    """A package that runs, and differs."""
    made = result(passed=False, difference=2.5)
    parity = made.export.parity
    parity.reasons.append(WHY)
    parity.checks.add(kind="raw outputs", what="largest difference", value=2.5, limit=0.001, at_most=True)
    parity.differences.add(row_id="r7", tokens_equal=True, difference=float("inf"), agreement=0.5)
    parity.metric.CopyFrom(export_pb2.ParityMetric(name="accuracy", trained=0.9, package=0.4))
    return made


async def test_a_rejected_export_tells_what_differed_item_by_item(
    client: ExportClient, cluster: ScriptedCluster, job: str, facts: FactLog
) -> None:
    export = await client.create(job)
    attempt = await cluster.next_attempt()
    assert not attempt.command.export_work.allow_drift
    await attempt.renew("VERIFYING")
    await attempt.complete(drifted())
    found = (await client.until(export.name, "REJECTED")).parity
    expected = drifted().export.parity
    assert found == expected
    event = (await facts.until("rejected"))[-1]
    assert ExportRejected.FromString(event.payload).export.parity == expected


async def test_drift_that_is_allowed_is_released_and_shown(
    client: ExportClient, cluster: ScriptedCluster, job: str
) -> None:
    """It is another package than the same without: nobody is given it who has not asked for that."""
    export = await client.create(job, allow_drift=True)
    attempt = await cluster.next_attempt()
    assert attempt.command.export_work.allow_drift
    await attempt.renew("VERIFYING")
    await attempt.complete(drifted())
    released = await client.until(export.name, "SUCCEEDED")
    assert (released.allow_drift, released.parity.passed) == (True, False)
    assert list(released.parity.reasons) == [WHY]
    assert (await client.create(job)).state == State.STATE_QUEUED


async def test_what_does_not_run_is_rejected_though_drift_is_allowed(
    client: ExportClient, cluster: ScriptedCluster, job: str
) -> None:
    export = await client.create(job, allow_drift=True)
    broken = attempt_pb2.AttemptResult(export=attempt_pb2.ExportResult(parity={"reasons": ["no"]}))
    attempt = await cluster.next_attempt()
    await attempt.renew("VERIFYING")
    await attempt.complete(broken)
    assert (await client.until(export.name, "REJECTED")).manifest_sha256 == ""


async def test_a_licence_is_overridden_by_admins_alone_and_that_is_recorded(
    client: ExportClient, service: ServiceProcess, cluster: ScriptedCluster, job: str
) -> None:
    with pytest.raises(PermissionDeniedError) as refused:
        await client.create(job, licence_override="we asked")
    assert refused.value.reason == "ROLE_DENIED"
    admin = ExportClient(service.address, service.key, client.project, Role.ADMIN)
    export = await admin.create(job, licence_override=" permission of 2026-03-01 ")
    await admin.channel.close()
    assert (export.licence_override, export.licence_override_subject) == (
        "permission of 2026-03-01",
        "tester",
    )
    work = (await cluster.next_attempt()).command.export_work
    assert work.licence_override == "permission of 2026-03-01"
    assert work.lineage["licence_override"] == "tester: permission of 2026-03-01"


async def test_models_that_see_are_exported_too(
    client: ExportClient, training: ScriptedTraining, dataprep: ScriptedDataPrep, cluster: ScriptedCluster
) -> None:
    dataset = dataprep.add_trainable(client.project)
    sees = fine_tune_spec_pb2.FineTuneSpec(
        task="TASK_SEMANTIC_SEGMENTATION", base_model="m", dataset=dataset, full={}
    )
    job = training.add(client.project, "sees", dataset, spec=sees)
    await client.create(job, format="EXPORT_FORMAT_MERGED_BF16")
    assert (await cluster.next_attempt()).command.export_work.format == export_pb2.EXPORT_FORMAT_MERGED_BF16
