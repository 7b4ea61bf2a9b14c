"""Requests that wait together are run together: one thread has the model, what comes meanwhile waits.

Nothing is held back for company while the model is idle, so a lone request costs no more than the model.
Only when those before came together is a little time given for them to come together again: their answers
reach them at once, and they ask anew at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, Protocol, TypeVar

LINGER_SECONDS: Final = 0.004


class Job(Protocol):
    """One request for the model. Jobs of one group can be run together."""

    @property
    def group(self) -> Hashable: ...
    @property
    def cancelled(self) -> bool: ...
    def fail(self, error: BaseException) -> None: ...


J = TypeVar("J", bound=Job)


class QueueFullError(Exception):
    """As many requests wait as may."""


class Batcher(Generic[J]):
    """Runs jobs in batches, in the order in which they came, in a thread of its own.

    Args:
        run: runs a batch of one group; it tells each job how it went.
        max_batch: jobs of a batch.
        max_waiting: jobs that may wait.
        on_batch: told the size of every batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[J]], None],
        *,
        max_batch: int,
        max_waiting: int,
        on_batch: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._waiting: deque[J] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._last = 0
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, job: J) -> None:
        """Have a job run. Raises QueueFullError."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._max_waiting:
                raise QueueFullError
            self._waiting.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Let what is being run end, and take nothing more; what waits fails."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        for job in self._waiting:
            job.fail(QueueFullError())

    def _work(self) -> None:
        while batch := self._next():
            self._on_batch(len(batch))
            try:
                self._run(batch)
            except BaseException as error:  # the thread outlives any job
                for job in batch:
                    job.fail(error)

    def _next(self) -> list[J]:
        """The next batch; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            end = time.monotonic() + LINGER_SECONDS
            while not self._closed and len(self._waiting) < min(self._last, self._max_batch):
                if not self._changed.wait(end - time.monotonic()):
                    break
            if self._closed:
                return []
            batch = self._take()
            self._last = len(batch) + len(self._waiting)
            return batch

    def _take(self) -> list[J]:
        """Those that go with the first in line; the others keep their places."""
        group = self._waiting[0].group
        batch: list[J] = []
        rest: deque[J] = deque()
        for job in self._waiting:
            fits = job.group == group and len(batch) < self._max_batch
            (batch if fits else rest).append(job)
        self._waiting = rest
        return batch
