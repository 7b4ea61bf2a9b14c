"""What the supervisor brings to a run beside its points."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from finemesh.cluster import telemetry
from finemesh.v1.lineage_pb2 import Lineage
from ray.exceptions import RayActorError

from tests.support.servers import PATIENCE_SECONDS


def actor(**methods: Callable[..., Any]) -> Any:
    """Answers as Ray's actors do: `actor.method.remote(...)` is awaited."""

    def remote(method: Callable[..., Any]) -> Any:
        async def call(*arguments: Any) -> Any:
            return method(*arguments)

        return SimpleNamespace(remote=call)

    return SimpleNamespace(**{name: remote(method) for name, method in methods.items()})


async def test_every_rank_is_measured_and_rank_0_logs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[dict[str, float]]] = []
    enough = asyncio.Event()

    def log_system(others: list[dict[str, float]]) -> bool:
        heard.append(others)
        if len(heard) == 3:
            enough.set()
        return len(heard) > 1

    pauses: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(telemetry.asyncio, "sleep", pause)
    ranks = [actor(sample=lambda rank=rank: {f"system/rank-{rank}/x": 1.0}) for rank in (1, 2)]
    sampling = asyncio.create_task(telemetry.sample([actor(log_system=log_system), *ranks]))
    await asyncio.wait_for(enough.wait(), PATIENCE_SECONDS)
    sampling.cancel()
    assert heard[0] == [{"system/rank-1/x": 1.0}, {"system/rank-2/x": 1.0}]
    assert pauses[0] < pauses[1] == telemetry.SAMPLE_SECONDS


async def test_a_rank_that_dies_ends_the_measuring_alone() -> None:
    def dead() -> None:
        raise RayActorError

    async with asyncio.timeout(PATIENCE_SECONDS):
        await telemetry.sample([actor(log_system=lambda _: True), actor(sample=dead)])


def test_lineage_alone_is_told() -> None:
    request = telemetry.lineage_request("projects/p/runs/r", Lineage(seed=0).SerializeToString())
    assert list(request.update_mask.paths) == ["lineage"]
    assert request.run.lineage.HasField("seed")
