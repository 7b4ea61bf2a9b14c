"""What people, programs and attempts may say of a run, and what stays when its job says something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from finemesh.chassis.auth import Role
from finemesh.chassis.bus import NatsEventBus
from finemesh.core.errors import (
    FencedError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
)
from finemesh.v1 import lineage_pb2, run_pb2
from finemesh.v1 import tracking_service_pb2 as pb

from tests.support.tracking import Client, batch, job_event, until_run

pytestmark = pytest.mark.integration

Clients = Callable[..., Client]


async def update(client: Client, name: str, *paths: str, **fields: Any) -> run_pb2.Run:
    request = pb.UpdateRunRequest(run=run_pb2.Run(name=name, **fields))
    request.update_mask.paths.extend(paths or fields)
    return await client.call("UpdateRun", request)


async def test_what_people_say_is_kept_and_found(clients: Clients) -> None:
    client = clients(projects=("said",))
    run = (
        await client.create("a", project="said", params={"lr": "1"}, tags=["x", "y", "x"], notes="old")
    ).name
    await client.create("b", project="said", experiment="e")
    changed = await update(
        client,
        run,
        notes="# new",
        tags=["best of all", "y"],
        experiment="e",
        parent_run="projects/said/runs/b",
    )
    assert (changed.notes, list(changed.tags), changed.experiment) == ("# new", ["best of all", "y"], "e")
    assert dict(changed.params) == {"lr": "1"}
    assert (await update(client, run, "notes")).notes == ""
    seeded = await update(client, run, lineage=lineage_pb2.Lineage(seed=0, dataset="d"))
    assert seeded.lineage.HasField("seed")
    for text, wanted in {
        'tags:"best of all"': ["a"],
        "tags:x": [],
        'experiment = "e"': ["a", "b"],
        'parent_run = "projects/said/runs/b" AND experiment = "e"': ["a"],
    }.items():
        request = pb.ListRunsRequest(parent="projects/said", filter=text, order_by="name")
        found = (await client.call("ListRuns", request)).runs
        assert [each.name.rpartition("/")[2] for each in found] == wanted, text


async def test_an_update_is_refused_where_it_makes_no_sense(clients: Clients) -> None:
    client = clients()
    run = (await client.create("refuses")).name
    for paths in (("state",), ("name", "notes"), ()):
        with pytest.raises(InvalidError, match="experiment"):
            await client.call(
                "UpdateRun", pb.UpdateRunRequest(run=run_pb2.Run(name=run), update_mask={"paths": paths})
            )
    wrong: list[dict[str, Any]] = [
        {"tags": ["a\nb"]},
        {"tags": ["x" * 201]},
        {"tags": [str(each) for each in range(101)]},
        {"notes": "x" * 65_537},
        {"experiment": "x" * 201},
        {"parent_run": run},
        {"parent_run": "projects/q/runs/a"},
        {"parent_run": "b"},
        {"params": {"a": "x" * 4097}},
    ]
    for fields in wrong:
        with pytest.raises(InvalidError) as refused:
            await update(client, run, **fields)
        assert refused.value.reason == "INVALID_RUN"
        assert str(refused.value).count(f"run.{next(iter(fields))}") == 1
    with pytest.raises(PermissionDeniedError):
        await update(clients(Role.VIEWER), run, notes="x")
    with pytest.raises(PermissionDeniedError):
        await update(clients(projects=("q",)), run, notes="x")
    with pytest.raises(NotFoundError):
        await update(client, "projects/p/runs/none", notes="x")


async def test_a_run_of_a_job_hears_its_attempts_and_keeps_what_people_say(
    clients: Clients, bus: NatsEventBus
) -> None:
    job, run = "projects/p/trainingJobs/told", "projects/p/runs/told"
    operator, first = clients(), clients(job=job, attempt=1, fence=1)
    code = lineage_pb2.Lineage(code=lineage_pb2.Code(commit="1f0c", dirty=True), dataset_digest="00ff")
    early = await update(first, run, lineage=code)  # before any event about the job has arrived
    assert (early.training_job, early.lineage.code.commit) == (job, "1f0c")
    await bus.publish(job_event("queued", job).message())
    told = await until_run(operator, run, lambda each: bool(each.params))
    assert (told.lineage.dataset, told.lineage.code.dirty, told.display_name) == (
        "projects/p/datasets/d",
        True,
        "A job",
    )
    await update(operator, run, display_name="mine", labels={"who": "me"}, tags=["t"])
    with pytest.raises(PreconditionError) as refused:
        await update(operator, run, params={"lr": "2"})
    assert refused.value.reason == "RUN_OF_JOB"
    with pytest.raises(PermissionDeniedError):
        await update(first, run, notes="an attempt has no opinion")
    await clients(job=job, attempt=2, fence=2).log(batch(run, 1, [1], attempt=2))
    with pytest.raises(FencedError):
        await update(first, run, lineage=code)
    await bus.publish(job_event("succeeded", job, attempt=2).message())
    ended = await until_run(operator, run, lambda each: each.HasField("end_time"))
    assert (ended.display_name, dict(ended.labels), list(ended.tags)) == ("mine", {"who": "me"}, ["t"])
