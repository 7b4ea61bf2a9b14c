"""Idempotent creates, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from finemesh.chassis.requests import Requests, request_key
from finemesh.chassis.sql import Database
from finemesh.chassis.tables import ChassisTables
from finemesh.core.clock import ManualClock
from finemesh.core.errors import AlreadyExistsError, InvalidError
from finemesh.core.requests import RequestKey
from finemesh.v1 import training_service_pb2 as pb

pytestmark = pytest.mark.integration

METHOD = "CreateTrainingJob"


def request(request_id: str = "r-1", display_name: str = "mine") -> pb.CreateTrainingJobRequest:
    message = pb.CreateTrainingJobRequest(parent="projects/a", request_id=request_id)
    message.training_job.display_name = display_name
    message.training_job.labels.update({"b": "2", "a": "1"})
    return message


def key(request_id: str = "r-1", display_name: str = "mine") -> RequestKey | None:
    return request_key("a", METHOD, request(request_id, display_name))


async def claim(db: Database, requests: Requests, wanted: RequestKey | None, resource: str) -> str | None:
    async with db.begin() as tx:
        return await requests.claim(tx, wanted, resource)


async def test_the_second_request_gets_the_resource_of_the_first(
    database: Database, tables: ChassisTables
) -> None:
    requests = Requests(tables)
    assert await claim(database, requests, key(), "jobs/1") is None
    assert await claim(database, requests, key(), "jobs/2") == "jobs/1"
    assert await claim(database, requests, key("r-2"), "jobs/3") is None
    assert await claim(database, requests, request_key("b", METHOD, request()), "jobs/4") is None


async def test_an_id_for_another_request_is_refused(database: Database, tables: ChassisTables) -> None:
    requests = Requests(tables)
    await claim(database, requests, key(), "jobs/1")
    with pytest.raises(AlreadyExistsError) as caught:
        await claim(database, requests, key(display_name="another"), "jobs/2")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert caught.value.metadata == {"request_id": "r-1", "resource": "jobs/1"}


async def test_a_create_that_is_rolled_back_may_be_repeated(
    database: Database, tables: ChassisTables
) -> None:
    requests = Requests(tables)

    async def fail() -> None:
        async with database.begin() as tx:
            await requests.claim(tx, key(), "jobs/1")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await claim(database, requests, key(), "jobs/2") is None


async def test_of_concurrent_duplicates_one_creates(
    database: Database, second_database: Callable[[], Database], tables: ChassisTables
) -> None:
    requests = Requests(tables)
    databases = [database, second_database()]
    answers = await asyncio.gather(
        *(claim(databases[number % 2], requests, key(), f"jobs/{number}") for number in range(10))
    )
    created = [number for number, answer in enumerate(answers) if answer is None]
    assert len(created) == 1
    assert {answer for answer in answers if answer} == {f"jobs/{created[0]}"}


async def test_without_an_id_every_request_creates(database: Database, tables: ChassisTables) -> None:
    assert key("") is None
    for _ in range(2):
        assert await claim(database, Requests(tables), None, "jobs/1") is None


async def test_old_requests_are_forgotten(database: Database, tables: ChassisTables) -> None:
    clock = ManualClock()
    requests = Requests(tables, clock)
    await claim(database, requests, key(), "jobs/1")
    clock.advance(100)
    async with database.begin() as tx:
        assert await requests.prune(tx, timedelta(seconds=50)) == 1
    assert await claim(database, requests, key(), "jobs/2") is None


@pytest.mark.parametrize("request_id", ["x" * 129, "with blank", "ümlaut", "line\nbreak"])
def test_a_malformed_id_is_refused(request_id: str) -> None:
    with pytest.raises(InvalidError, match="request_id"):
        key(request_id)
