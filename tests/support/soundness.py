"""What has to hold for a job once it has ended, whatever was done to it and around it meanwhile."""

from __future__ import annotations

from typing import Any

from finemesh.chassis.objects import read_manifest
from finemesh.v1 import tracking_service_pb2 as tracking_pb
from finemesh.v1 import training_service_pb2 as training_pb

from tests.support.fault_mesh import Entry, FaultMesh, Job, State


async def assert_sound(
    site: FaultMesh, name: str, state: State.ValueType, alone: dict[str, Any] | None = None
) -> Job:
    """The right state; every point once; checkpoints that are there; a whole history; nothing held any more.

    With `alone`, what an undisturbed run of the same spec came to, losses are compared bit for bit.
    """
    job = await site.ended(name)
    assert job.state == state, (State.Name(job.state), job.error)
    assert all(certificate.matches for certificate in job.resume_certificates)
    await _assert_nothing_lost(site, job)
    await _assert_history_whole(site, job)
    if alone is not None:
        last = job.latest_checkpoint
        assert (last.step, last.sample_hash, last.loss_digest) == (
            *(alone["step"], alone["sample_hash"], alone["loss_digest"]),
        )
    await site.until(site.is_free, "all that Ray gives away back")
    await site.until(lambda: not site.at_work_on(name), "the processes that worked on it to go")
    await site.until(lambda: not site.leftovers(name), "spools and scratch folders to go")
    return job


async def _assert_nothing_lost(site: FaultMesh, job: Job) -> None:
    request = training_pb.ListCheckpointsRequest(parent=job.name)
    listed = (await site.call(site.connection.training.ListCheckpoints, request)).checkpoints
    for checkpoint in listed:
        key = checkpoint.uri.removeprefix(f"s3://{site.mesh.site.config.bucket}/")
        assert (await read_manifest(site.objects, key)).total_bytes == checkpoint.size_bytes
    assert job.latest_checkpoint.step == job.step, "steps that no checkpoint holds"
    if not job.step:
        return
    curve = tracking_pb.QueryMetricsRequest(
        parent=site.connection.parent, runs=[job.run], keys=["train/loss"], max_points=20_000
    )
    (series,) = (await site.call(site.connection.tracking.QueryMetrics, curve)).series
    assert list(series.steps) == list(range(1, job.step + 1)), "a gap or a duplicate in the curve"


async def _assert_history_whole(site: FaultMesh, job: Job) -> None:
    entries = await site.history(job.name)
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    moves = [(entry.from_state, entry.state) for entry in entries if entry.kind == Entry.KIND_STATE]
    assert [left for left, _ in moves[1:]] == [reached for _, reached in moves[:-1]]
    assert moves[-1][1] == job.state
    attempts = {
        kind: [entry.attempt for entry in entries if entry.kind == kind]
        for kind in (Entry.KIND_DISPATCHED, Entry.KIND_ENDED)
    }
    assert attempts[Entry.KIND_DISPATCHED] == list(range(1, job.attempt + 1))
    assert attempts[Entry.KIND_ENDED] == attempts[Entry.KIND_DISPATCHED], entries
    saved = [entry.step for entry in entries if entry.kind == Entry.KIND_CHECKPOINT]
    assert saved == sorted(saved)
    assert saved[-1:] == ([job.latest_checkpoint.step] if job.step else [])
