"""How long the nodes that the service has chosen are insisted on. Ray gives no room there in these tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.s3 import S3Config
from finemesh.cluster import supervisor
from finemesh.cluster.config import Site
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
