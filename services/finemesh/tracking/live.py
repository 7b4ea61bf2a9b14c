"""Points to those who watch, as they become durable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Sequence
from typing import Final

from finemesh.core.errors import ResourceExhaustedError
from finemesh.tracking.domain import Batch

# A watcher that is further behind is cut off: its backlog would fill the memory of the service.
MAX_BACKLOG_POINTS: Final = 500_000


class Subscription:
    """One watcher of one run: `woken` is set when there is something to take or to look at, `changed` when
    the state of the run is to be looked at, as it is at first.
    """

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.changed = True
        self._batches: list[Batch] = []
        self._points = 0

    def put(self, batch: Batch) -> None:
        if self._points <= MAX_BACKLOG_POINTS:
            self._batches.append(batch)
            self._points += len(batch)
        self.woken.set()

    def take(self) -> list[Batch]:
        """What has come since the last call. Raises ResourceExhaustedError, reason WATCHER_TOO_SLOW."""
        if self._points > MAX_BACKLOG_POINTS:
            raise ResourceExhaustedError(
                f"the watcher is more than {MAX_BACKLOG_POINTS} points behind: read faster, watch fewer"
                " metrics, or query the curve",
                reason="WATCHER_TOO_SLOW",
            )
        taken, self._batches, self._points = self._batches, [], 0
        return taken


class Live:
    """The watchers of all runs."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, set[Subscription]] = {}

    @contextlib.contextmanager
    def subscribed(self, run: str) -> Generator[Subscription]:
        subscription = Subscription()
        everyone = self._subscriptions.setdefault(run, set())
        everyone.add(subscription)
        try:
            yield subscription
        finally:
            everyone.discard(subscription)
            if not everyone:
                self._subscriptions.pop(run, None)

    def publish(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            for subscription in self._subscriptions.get(batch.run, ()):
                subscription.put(batch)

    def wake(self, run: str) -> None:
        """Make the watchers look at the state of the run."""
        for subscription in self._subscriptions.get(run, ()):
            subscription.changed = True
            subscription.woken.set()
