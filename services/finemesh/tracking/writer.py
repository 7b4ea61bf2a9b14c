"""The one thread that writes points: batches that wait are committed together.

A batch is acknowledged after the commit that made it durable. Its number decides what happens: the next one
of its attempt is kept, an earlier one was durable before and is acknowledged again, and a later one is
refused, since it leaves a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from finemesh.core.errors import FinemeshError, PreconditionError, UnavailableError
from finemesh.tracking.domain import Batch
from finemesh.tracking.points import AttemptKey, PointFile

MAX_GROUP_POINTS: Final = 500_000
# Callers wait beyond this: 33 bytes a point make 33 MB.
MAX_PENDING_POINTS: Final = 1_000_000
# A batch costs about as much as this many points, however few it holds.
_BATCH_POINTS: Final = 100

Done = asyncio.Future[int]
Committed = Callable[[Sequence[Batch]], None]


@dataclass(slots=True, eq=False)
class _Append:
    batch: Batch
    done: Done

    @property
    def weight(self) -> int:
        return _BATCH_POINTS + len(self.batch)


@dataclass(slots=True, eq=False)
class _Delete:
    run: str
    done: Done


@dataclass(slots=True)
class _Outcome:
    """What a group came to: the batches that became durable now, and a number or an error for each waiter."""

    committed: list[Batch] = field(default_factory=list[Batch])
    results: list[tuple[Done, int | FinemeshError]] = field(
        default_factory=list[tuple[Done, "int | FinemeshError"]]
    )
    weight: int = 0


class Writer:
    """Belongs to the event loop that starts it; `on_committed` runs there, before anybody is told."""

    def __init__(self, file: PointFile, on_committed: Committed) -> None:
        self._file = file
        self._on_committed = on_committed
        self._queue: queue.SimpleQueue[_Append | _Delete | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="points-writer", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._pending = 0
        self._room = asyncio.Event()
        self._room.set()
        self._failure: FinemeshError | None = None

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Commit what waits, then end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def submit(self, batch: Batch) -> Done:
        """Queue a batch; returns once there is room for it. The future gives its durable sequence number.

        The future raises PreconditionError (SEQUENCE_GAP) or UnavailableError (POINTS_UNAVAILABLE).
        """
        while self._pending >= MAX_PENDING_POINTS:
            self._room.clear()
            await self._room.wait()
        item = _Append(batch, self._new_future())
        self._pending += item.weight
        self._queue.put(item)
        return item.done

    async def delete(self, run: str) -> None:
        """Remove the points of a run. Raises UnavailableError."""
        item = _Delete(run, self._new_future())
        self._queue.put(item)
        await item.done

    async def check_ready(self) -> None:
        """Raises UnavailableError when the thread has ended or the last commit failed."""
        if self._failure is not None:
            raise self._failure
        if not self._thread.is_alive():
            raise UnavailableError("the writer of points has ended", reason="POINTS_UNAVAILABLE")

    def _new_future(self) -> Done:
        future: Done = self._loop.create_future()
        # A caller that went away does not fetch its error; that is no fault worth a warning.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    def _run(self) -> None:
        """The thread's life: take what waits, commit it, tell the loop."""
        while (item := self._queue.get()) is not None:
            if isinstance(item, _Delete):
                self._tell(self._deleted(item))
                continue
            group, follower = self._group(item)
            self._file.wait_for_room()
            self._tell(self._committed(group))
            if isinstance(follower, _Delete):
                self._tell(self._deleted(follower))
            elif follower == "stop":
                return

    def _group(self, first: _Append) -> tuple[list[_Append], _Delete | str | None]:
        """The batches that wait behind `first`, up to a limit, and what ended the group if not that."""
        group, weight = [first], first.weight
        with contextlib.suppress(queue.Empty):
            while weight < MAX_GROUP_POINTS:
                item = self._queue.get_nowait()
                if not isinstance(item, _Append):
                    return group, item or "stop"
                group.append(item)
                weight += item.weight
        return group, None

    def _committed(self, group: list[_Append]) -> _Outcome:
        outcome = _Outcome(weight=sum(item.weight for item in group))
        reached: dict[AttemptKey, int] = {}
        waiting: list[_Append] = []
        for item in group:
            batch = item.batch
            key = (batch.run, batch.attempt)
            durable = reached.get(key) or self._file.mark(*key)
            if batch.first_sequence > durable + 1:
                outcome.results.append((item.done, _gap(batch, durable)))
                continue
            waiting.append(item)
            if batch.sequence > durable:
                outcome.committed.append(batch.after(durable))
                reached[key] = batch.sequence
        try:
            if outcome.committed:
                self._file.append(outcome.committed)
            self._failure = None
        except FinemeshError as error:
            self._failure = error
            outcome.committed = []
            outcome.results += [(item.done, error) for item in waiting]
        else:
            outcome.results += [
                (item.done, self._file.mark(item.batch.run, item.batch.attempt)) for item in waiting
            ]
        return outcome

    def _deleted(self, item: _Delete) -> _Outcome:
        try:
            self._file.delete(item.run)
        except FinemeshError as error:
            return _Outcome(results=[(item.done, error)])
        return _Outcome(results=[(item.done, 0)])

    def _tell(self, outcome: _Outcome) -> None:
        self._loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: _Outcome) -> None:
        self._pending -= outcome.weight
        self._room.set()
        if outcome.committed:
            self._on_committed(outcome.committed)
        for done, result in outcome.results:
            if done.done():
                continue
            if isinstance(result, FinemeshError):
                done.set_exception(result)
            else:
                done.set_result(result)


def _gap(batch: Batch, durable: int) -> PreconditionError:
    return PreconditionError(
        f"batch {batch.first_sequence} of attempt {batch.attempt} of {batch.run} leaves a gap: batches up to"
        f" {durable} are durable, so send {durable + 1} next",
        reason="SEQUENCE_GAP",
        metadata={"run": batch.run, "attempt": str(batch.attempt), "durable_sequence": str(durable)},
    )
