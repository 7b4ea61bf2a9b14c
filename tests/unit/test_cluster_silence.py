"""A process that has been stopped or hangs answers nothing: it is noticed, killed, and told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.errors import from_status
from finemesh.chassis.s3 import S3Config
from finemesh.cluster import crew, supervisor, warm
from finemesh.cluster.config import Site
from finemesh.cluster.crew import Crew
from finemesh.cluster.reaper import Holding
from finemesh.cluster.worker import Ending, Status
from finemesh.core.attempts import Phase
from finemesh.core.errors import FinemeshError
from finemesh.v1 import attempt_pb2
from google.rpc.status_pb2 import Status as RpcStatus
from ray.exceptions import ActorUnavailableError

from tests.support.servers import PATIENCE_SECONDS

STORE = S3Config(endpoint="http://s3", access_key="a", secret_key=Secret("s"), bucket="b")
AT_STEP_12 = Status(phase=Phase.RUNNING, step=12, total_steps=100)


async def never(*_: object) -> Any:
    await asyncio.Event().wait()


def actor(**methods: Callable[..., Any]) -> Any:
    """Stands for a handle of Ray's: what it is asked is awaited."""

    def ask(method: Callable[..., Any]) -> Any:
        async def remote(*given: object) -> Any:
            answer = method(*given)
            return await answer if asyncio.iscoroutine(answer) else answer

        return SimpleNamespace(remote=remote)

    return SimpleNamespace(**{name: ask(method) for name, method in methods.items()})


def worker(**methods: Callable[..., Any]) -> Any:
    there: dict[str, Any] = {"is_there": lambda: True, "status": lambda _: AT_STEP_12, "run": never}
    return actor(**{**there, "meet": lambda: "x", "lineage": lambda: b"", "stop": lambda: None, **methods})


class Crewed(Crew):
    """Of actors that are given."""

    def __init__(self, *actors: Any) -> None:
        self.actors = list(actors)
        self.leader = actors[0]
        self.is_killed = False

    async def holdings(self) -> list[Holding]:
        return [Holding(100 + rank, 0.0, "f" * 56, "here") for rank in range(len(self.actors))]

    def kill(self) -> None:
        self.is_killed = True


def supervise(monkeypatch: pytest.MonkeyPatch, crewed: Crewed, seconds: float) -> supervisor.Supervisor:
    monkeypatch.setattr(supervisor, "configure_logging", lambda *_: None)
    site = Site(cluster="c", data_dir=Path(), addresses={}, s3=STORE, worker_timeout_seconds=seconds)
    command = attempt_pb2.Command(resource="projects/p/trainingJobs/j", attempt=2)
    made = supervisor.Supervisor(site, command.SerializeToString())
    made._crew = crewed
    return made


async def error_of(crewed: Crewed, monkeypatch: pytest.MonkeyPatch, seconds: float) -> FinemeshError:
    """What an attempt of this crew ends with."""
    made = supervise(monkeypatch, crewed, seconds)

    async def placed() -> bool:
        return True

    monkeypatch.setattr(made, "_placed", placed)
    monkeypatch.setattr(supervisor, "Crew", lambda *_: crewed)
    async with asyncio.timeout(PATIENCE_SECONDS):
        ending = await made._work(cast("Any", None))
    return from_status(RpcStatus.FromString(ending.error))


@pytest.mark.parametrize("rank", [0, 1])
async def test_a_worker_that_does_not_answer_is_killed_and_told(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def once(token: str) -> Status:
        asked.append(token)
        return AT_STEP_12 if len(asked) == 1 else await never()

    hung = worker(is_there=never, status=once)
    crewed = Crewed(*(hung if each == rank else worker() for each in range(2)))
    made = supervise(monkeypatch, crewed, 0.05)
    with pytest.raises(FinemeshError) as told:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await made._attend(cast("Any", None), crewed)
    assert (told.value.reason, told.value.retryable) == ("WORKER_SILENT", True)
    assert crewed.is_killed
    said = str(told.value)
    assert said.startswith(f"process {100 + rank} of attempt 2, on node {'f' * 12}, has not answered since ")
    assert "for 0.05 s, and was killed: it had been stopped, or hung, at step 12 of 100" in said
    assert "finemesh train logs" in said
    assert "FINEMESH_WORKER_TIMEOUT_SECONDS" in said


async def test_one_that_is_told_to_stop_and_does_not_answer_is_killed_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = asyncio.Event()

    class Killed(Crewed):
        def kill(self) -> None:
            ended.set()

        async def run(self) -> Ending:
            await ended.wait()
            return Ending(result=b"killed")

    crewed = Killed(worker(stop=never))
    made = supervise(monkeypatch, crewed, 600)
    made._lease.stop_by = time.monotonic() + 0.1
    made._lease.told_to_stop.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        ending = await made._attend(cast("Any", None), crewed)
    assert ending.result == b"killed"
    assert not made._is_stopping  # nobody said that it stops


async def test_one_that_is_slow_to_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    enough, answers = asyncio.Event(), 0

    async def late() -> bool:
        nonlocal answers
        await asyncio.sleep(0.02)
        answers += 1
        if answers == 3:
            enough.set()
        return True

    monkeypatch.setattr(crew, "_LISTEN_SECONDS", 0.0)
    listening = asyncio.create_task(Crewed(worker(is_there=late)).first_silent(PATIENCE_SECONDS))
    await asyncio.wait_for(enough.wait(), PATIENCE_SECONDS)
    assert not listening.done()
    listening.cancel()


async def test_an_error_that_says_it_ends_as_one_that_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = await error_of(Crewed(worker(is_there=never, status=never)), monkeypatch, 0.01)
    assert (error.reason, error.retryable) == ("WORKER_SILENT", True)
    assert "at starting a worker" in str(error)


async def test_one_that_ray_cannot_reach_is_killed_before_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(_: str) -> Status:
        raise ActorUnavailableError("keepalive", None)

    crewed = Crewed(worker(status=unreachable))
    assert (await error_of(crewed, monkeypatch, 600)).reason == "WORKER_SILENT"
    assert crewed.is_killed


async def test_a_warm_worker_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_TAKE_SECONDS", 0.01)
    warmth = warm.Warmth(worker(take=never), psutil.Process(), "n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert not await warmth._takes(attempt_pb2.Command(), None)
