"""Watching a resource: woken at once by a commit in this process, and by a timer for commits elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Hashable
from typing import Final, TypeVar

T = TypeVar("T")

REREAD_SECONDS: Final = 2.0


class Notifier:
    """Tells watchers in this process that a resource has changed. A hint, not a promise: see `watch`."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def notify(self, resource: str) -> None:
        """Wake the watchers of `resource`: `tx.after_commit(lambda: notifier.notify(name))`."""
        for event in self._waiting.get(resource, ()):
            event.set()

    @contextlib.contextmanager
    def changes(self, resource: str) -> Generator[asyncio.Event]:
        """An event that is set by every `notify` of `resource` while the context is open."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(resource, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(resource, None)


async def watch(
    notifier: Notifier,
    resource: str,
    read: Callable[[], Awaitable[T]],
    *,
    version: Callable[[T], Hashable],
    terminal: Callable[[T], bool],
    reread_seconds: float = REREAD_SECONDS,
) -> AsyncGenerator[T]:
    """The state of a resource now and after every change, until it is terminal.

    Args:
        notifier: where commits of this process announce themselves.
        resource: the name that they announce.
        read: the current state; raises NotFoundError once the resource is gone, which ends the stream.
        version: what differs between two states that are worth telling apart, e.g. `update_time`.
        terminal: whether a state is the last one.
        reread_seconds: how long a change made by another process may stay unseen.
    """
    with notifier.changes(resource) as changed:
        seen: Hashable = object()
        while True:
            changed.clear()  # before reading: a change during the read is seen in the next round
            state = await read()
            if version(state) != seen:
                seen = version(state)
                yield state
            if terminal(state):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(reread_seconds):
                    await changed.wait()
