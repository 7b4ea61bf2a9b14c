"""How long the nodes that the service has chosen are insisted on, without room there; what a worker is told
before it begins.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.s3 import S3Config
from finemesh.cluster import supervisor
from finemesh.cluster.config import Site
from finemesh.cluster.worker import Ending, Status
from finemesh.v1 import attempt_pb2

STORE = S3Config(endpoint="http://s3", access_key="a", secret_key=Secret("s"), bucket="b")
SITE = Site(cluster="c", data_dir=Path(), addresses={}, s3=STORE)


@dataclass
class Group:
    """A placement group that has its room once it names no node."""

    nodes: list[str]

    def wait(self, seconds: float) -> bool:
        return not self.nodes


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[Group]:
    """The groups that were given back."""
    given_back: list[Group] = []
    monkeypatch.setattr(supervisor, "configure_logging", lambda *_: None)
    monkeypatch.setattr(supervisor, "reserve", lambda command, near: Group(list(command.nodes)))
    monkeypatch.setattr(supervisor, "remove_placement_group", given_back.append)
    return given_back


def waiting() -> supervisor.Supervisor:
    command = attempt_pb2.Command(resource="projects/p/trainingJobs/j", attempt=1, nodes=["busy", "gone"])
    made = supervisor.Supervisor(SITE, command.SerializeToString())
    made._reserve()
    return made


async def test_nodes_without_room_are_given_up_in_time(
    removed: list[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_NODES_SECONDS", 0.0)
    made = waiting()
    assert await made._placed()
    assert [each.nodes for each in removed] == [["busy", "gone"]]
    assert made._group.nodes == []


async def test_one_that_is_told_to_stop_waits_no_longer(removed: list[Group]) -> None:
    made = waiting()
    made._lease.told_to_stop.set()
    assert not await made._placed()
    assert not removed


async def test_a_worker_has_the_newest_token_before_it_begins(removed: list[Group]) -> None:
    """It may have waited for room for longer than the first one lasts."""
    told: list[str] = []

    class Call:
        def __init__(self, answer: Any) -> None:
            self._answer = answer

        async def remote(self, *given: str) -> Any:
            told.extend(given)
            return self._answer

    class Actors:
        leader = SimpleNamespace(status=Call(Status()))

        async def holdings(self) -> list[Any]:
            return []

        async def first_silent(self, seconds: float) -> int:
            return await asyncio.Future()

        async def run(self) -> Ending:
            return Ending(result=" ".join(told).encode())

    made = waiting()
    made._lease.token = "renewed"
    ending = await made._attend(cast("Any", None), cast("Any", Actors()))
    assert ending.result == b"renewed"
