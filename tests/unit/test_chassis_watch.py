"""Watching a resource: woken by commits here, by the timer for commits elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from finemesh.chassis.watch import Notifier, watch
from finemesh.core.errors import NotFoundError

from tests.support.servers import PATIENCE_SECONDS


class Resource:
    """A row with a version; the last version is terminal."""

    def __init__(self) -> None:
        self.version = 0
        self.last = 3
        self.reads = 0

    async def read(self) -> int:
        self.reads += 1
        return self.version

    def watched(self, notifier: Notifier, reread_seconds: float) -> AsyncGenerator[int]:
        return watch(
            notifier,
            "r",
            self.read,
            version=lambda state: state,
            terminal=lambda state: state == self.last,
            reread_seconds=reread_seconds,
        )


async def test_every_change_is_seen_at_once_and_the_last_ends_it() -> None:
    resource, notifier = Resource(), Notifier()
    seen: list[int] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for state in resource.watched(notifier, reread_seconds=3600):
            seen.append(state)
            resource.version += 1
            notifier.notify("r")
    assert seen == [0, 1, 2, 3]


async def test_a_change_nobody_announced_is_found_by_the_timer() -> None:
    resource = Resource()
    states = resource.watched(Notifier(), reread_seconds=0.01)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await anext(states) == 0
        resource.version = 3
        assert await anext(states) == 3
        assert [state async for state in states] == []


async def test_an_announcement_without_a_change_is_not_sent() -> None:
    resource, notifier = Resource(), Notifier()
    states = resource.watched(notifier, reread_seconds=0.01)
    assert await anext(states) == 0
    following = asyncio.create_task(anext(states))
    reads = resource.reads
    while resource.reads < reads + 3:
        notifier.notify("r")
        await asyncio.sleep(0)
    assert not following.done()
    resource.version = 3
    assert await asyncio.wait_for(following, PATIENCE_SECONDS) == 3
    await states.aclose()


async def test_a_change_during_the_read_is_not_missed() -> None:
    resource, notifier = Resource(), Notifier()

    async def read_slowly() -> int:
        state = resource.version
        if state == 0:
            resource.version = 3
            notifier.notify("r")
        return state

    states = watch(
        notifier, "r", read_slowly, version=int, terminal=lambda state: state == 3, reread_seconds=3600
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert [state async for state in states] == [0, 3]


async def test_watching_something_gone_says_so_and_leaves_nothing_behind() -> None:
    notifier = Notifier()

    async def gone() -> int:
        raise NotFoundError("no such thing")

    with pytest.raises(NotFoundError):
        await anext(watch(notifier, "r", gone, version=int, terminal=bool))
    assert notifier._waiting == {}
