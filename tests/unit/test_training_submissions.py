"""Jobs that are submitted at once: written together, each with its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import pytest
from finemesh.core.errors import AlreadyExistsError, UnavailableError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.training.domain import TrainingJob
from finemesh.training.history import Kind
from sqlalchemy import event

from tests.support.training_world import World

SPEC = FineTuneSpec(Task.LANGUAGE, "base", "projects/p/datasets/d")


@pytest.fixture
def world() -> Generator[World]:
    made = World()
    yield made
    made.close()


def test_submissions_that_arrive_together_share_a_transaction(world: World) -> None:
    commits = _commits(world)
    answers = _submit(world, *((_job(f"j{number}"), None) for number in range(20)))
    assert [answer.name.id for answer in answers] == [f"j{number}" for number in range(20)]
    assert len(commits) == 1
    assert all(_history(world, f"j{number}") == [Kind.SUBMITTED] for number in range(20))


def test_each_submission_has_its_own_answer(world: World) -> None:
    """An id that is taken, a repeated request and a reused one change nothing for the others."""
    taken, first = _submit(world, (_job("taken"), None), (_job("first"), _key("r1", "a")))
    answers = _submit(
        world,
        (_job("new1"), None),
        (_job("taken"), _key("r2", "b")),
        (_job("again"), _key("r1", "a")),
        (_job("other"), _key("r1", "c")),
        (_job("twin"), _key("r3", "d")),
        (_job("twin2"), _key("r3", "d")),
        (_job("new2"), _key("r2", "e")),  # what was refused has used up no request id
    )
    new1, refused, repeated, reused, twin, twin2, new2 = answers
    assert (new1.name.id, new2.name.id, repeated) == ("new1", "new2", first)
    assert (refused.reason, reused.reason) == ("TRAINING_JOB_EXISTS", "REQUEST_ID_REUSED")
    assert isinstance(refused, AlreadyExistsError)
    assert twin == twin2
    assert _get(world, "taken") == taken
    assert {job.name.id for job in _listed(world)} == {"taken", "first", "new1", "twin", "new2"}


def test_one_that_gives_up_takes_nobody_with_it(world: World) -> None:
    async def act() -> None:
        async with world.db.begin():  # so that all three wait
            tasks = [asyncio.create_task(world.service.create(_job(name), None)) for name in ("a", "b", "c")]
            await asyncio.sleep(0)
            tasks[0].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert [job.name.id for job in done[1:] if isinstance(job, TrainingJob)] == ["b", "c"]

    world.run(act())
    assert {"b", "c"} <= {job.name.id for job in _listed(world)}


def test_everybody_hears_that_the_database_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: object) -> None:
        raise UnavailableError("away", reason="DATABASE_UNAVAILABLE")

    with monkeypatch.context() as patch:
        patch.setattr(world.db, "begin", away)
        answers = _submit(world, (_job("a"), None), (_job("b"), None))
    assert [answer.reason for answer in answers] == ["DATABASE_UNAVAILABLE"] * 2
    assert [answer.name.id for answer in _submit(world, (_job("a"), None))] == ["a"]


def _job(id_: str) -> TrainingJob:
    now = datetime.now(UTC)
    return TrainingJob(Name("p", "trainingJobs", id_), SPEC, "", "", now, now)


def _key(request_id: str, fingerprint: str) -> RequestKey:
    return RequestKey("p", "CreateTrainingJob", request_id, fingerprint)


def _submit(world: World, *asked: tuple[TrainingJob, RequestKey | None]) -> list[Any]:
    """What each got at the same time as the others: the job, or an error."""

    async def act() -> list[Any]:
        return await asyncio.gather(
            *(world.service.create(job, key) for job, key in asked), return_exceptions=True
        )

    return world.run(act())


def _commits(world: World) -> list[object]:
    made: list[object] = []
    event.listen(world.db.engine.sync_engine, "commit", made.append)
    return made


def _get(world: World, id_: str) -> TrainingJob:
    return world.run(world.service.get(Name("p", "trainingJobs", id_)))


def _listed(world: World) -> list[TrainingJob]:
    return world.run(world.service.list("p", PageRequest(100)))[0]


def _history(world: World, id_: str) -> list[Kind]:
    name = Name("p", "trainingJobs", id_)
    return [entry.kind for entry in world.run(world.service.list_history(name, PageRequest(100)))[0]]
