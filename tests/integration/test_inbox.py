"""The inbox: effects exactly once, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from finemesh.chassis.inbox import Inbox
from finemesh.chassis.sql import Database
from finemesh.chassis.tables import ChassisTables
from finemesh.core.clock import ManualClock

pytestmark = pytest.mark.integration


async def test_an_event_counts_once_per_consumer(database: Database, tables: ChassisTables) -> None:
    inbox = Inbox(tables)
    async with database.begin() as tx:
        assert await inbox.once(tx, "a", "e1")
        assert not await inbox.once(tx, "a", "e1")
        assert await inbox.once(tx, "b", "e1")
    async with database.begin() as tx:
        assert not await inbox.once(tx, "a", "e1")


async def test_an_effect_that_is_rolled_back_may_be_tried_again(
    database: Database, tables: ChassisTables
) -> None:
    inbox = Inbox(tables)

    async def fail() -> None:
        async with database.begin() as tx:
            assert await inbox.once(tx, "a", "e1")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    async with database.begin() as tx:
        assert await inbox.once(tx, "a", "e1")


async def test_of_concurrent_deliveries_one_has_the_effect(
    database: Database, second_database: Callable[[], Database], tables: ChassisTables
) -> None:
    inbox, effects = Inbox(tables), list[int]()

    async def deliver(db: Database, number: int) -> None:
        async with db.begin() as tx:
            if await inbox.once(tx, "a", "e1"):
                await asyncio.sleep(0.01)
                tx.after_commit(lambda: effects.append(number))

    databases = [database, second_database()]
    await asyncio.gather(*(deliver(databases[number % 2], number) for number in range(10)))
    assert len(effects) == 1


async def test_old_notes_are_pruned(database: Database, tables: ChassisTables) -> None:
    clock = ManualClock()
    inbox = Inbox(tables, clock)
    async with database.begin() as tx:
        await inbox.once(tx, "a", "old")
    clock.advance(100)
    async with database.begin() as tx:
        await inbox.once(tx, "a", "new")
        assert await inbox.prune(tx, timedelta(seconds=50)) == 1
        assert await inbox.once(tx, "a", "old")
        assert not await inbox.once(tx, "a", "new")
