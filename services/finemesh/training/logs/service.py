"""Reading and keeping the logs of jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from finemesh.chassis.watch import Notifier
from finemesh.core.clock import Clock
from finemesh.core.errors import InvalidError
from finemesh.core.names import Name
from finemesh.training.logs import store as rows
from finemesh.training.logs.lines import Line, Place, read_lines
from finemesh.training.store import SqlStore, SqlUnit

MAX_TAIL: Final = 100_000
MAX_PART_BYTES: Final = 256 * 1024
_REREAD_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a log.

    Attributes:
        attempt: the only one, or 0 for all.
        tail: begin with the last so many lines, or with the first for 0.
        follow: go on until the job has ended.
        cursor: where to begin; empty for the beginning.
    """

    attempt: int = 0
    tail: int = 0
    follow: bool = False
    cursor: str = ""


class LogService:
    """The logs of all jobs."""

    def __init__(self, store: SqlStore, notifier: Notifier, clock: Clock) -> None:
        self._store = store
        self._notifier = notifier
        self._clock = clock

    async def append(self, name: Name, attempt: int, offset: int, content: bytes) -> int:
        """Keep a part of an attempt's log. Returns how much of the log is durable.

        Raises NotFoundError for a job that is gone, InvalidError for a part that is none.
        """
        if attempt < 1 or offset < 0 or len(content) > MAX_PART_BYTES:
            problem = f"a part has at most {MAX_PART_BYTES} bytes, of an attempt from 1 on"
            raise InvalidError.of("content", problem)
        async with self._store.db.begin() as tx:
            await SqlUnit(self._store, tx).job(name)
            durable = await rows.append(tx, name, attempt, offset, content, self._clock)
            tx.after_commit(lambda: self._notifier.notify(_topic(name)))
            return durable

    async def stream(self, name: Name, wish: Wish) -> AsyncGenerator[tuple[list[Line], Place]]:
        """The lines that are wanted, some at a time, each time with the place behind them.

        Raises NotFoundError; InvalidError for a cursor that is none.
        """
        place = Place.parse(wish.cursor) if wish.cursor else Place(wish.attempt or 1)
        if wish.tail and not wish.cursor:
            last: deque[Line] = deque(maxlen=min(wish.tail, MAX_TAIL))
            async for lines, behind in self._present(name, wish, place):
                last.extend(lines)
                place = behind
            yield list(last), place
        with self._notifier.changes(_topic(name)) as changed:
            while True:
                changed.clear()  # before reading: what comes meanwhile is seen in the next round
                over = await self._is_over(name, wish)
                async for lines, behind in self._present(name, wish, place):
                    place = behind
                    yield lines, place
                if over or not wish.follow:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REREAD_SECONDS):
                        await changed.wait()

    async def _present(
        self, name: Name, wish: Wish, place: Place
    ) -> AsyncGenerator[tuple[list[Line], Place]]:
        """What there is from `place` on."""
        while True:
            async with self._store.db.read() as tx:
                job = await SqlUnit(self._store, tx).job(name)
                segments = await rows.read(tx, name, place, wish.attempt)
            live = job.attempt if job.worker is not None else 0
            more = len(segments) == rows.READ_SEGMENTS
            lines, place = read_lines(segments, place, segments[-1].attempt if more else live)
            if lines:
                yield lines, place
            if not more:
                return

    async def _is_over(self, name: Name, wish: Wish) -> bool:
        """Whether nothing more is to come."""
        async with self._store.db.read() as tx:
            job = await SqlUnit(self._store, tx).job(name)
        return job.terminal or 0 < wish.attempt < job.attempt


def _topic(name: Name) -> str:
    return f"{name}/logs"
