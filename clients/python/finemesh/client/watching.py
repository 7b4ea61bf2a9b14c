"""Waiting for a long-running resource, over restarts of the service that is asked."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Self, TypeVar

import grpc

from finemesh.client.errors import RpcError

T = TypeVar("T")
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5


def follow(watch: Callable[[], Iterator[T]], is_terminal: Callable[[T], bool]) -> Iterator[T]:
    """Yields every version of a resource until a terminal one.

    `watch` opens the stream. When the stream breaks because the service is away it is opened again; it begins
    with the current version, so nothing that matters is missed. Raises RpcError after a minute without an
    answer, and KeyboardInterrupt between two versions.
    """
    away_since = 0.0
    with _Interrupt() as interrupt:
        while True:
            try:
                for version in interrupt.cancelling(watch()):
                    away_since = 0.0
                    yield version
                    if is_terminal(version):
                        return
                    interrupt.check()
            except RpcError as error:
                interrupt.check()
                away_since = away_since or time.monotonic()
                if not _is_broken(error) or time.monotonic() - away_since > _PATIENCE_SECONDS:
                    raise
                time.sleep(_PAUSE_SECONDS)
            interrupt.check()


class _Interrupt:
    """Ctrl-C cancels the call that is waited for. Raised amid gRPC, as Python does it, it can leave
    a lock held for good, and the process waits for that when it ends.

    A handler of the program's own stays, and so does Python's for a second Ctrl-C.
    """

    def __init__(self) -> None:
        self._came = False
        self._call: Any = None
        self._is_ours = False

    def __enter__(self) -> Self:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_signal)
            self._is_ours = True
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def cancelling(self, call: Iterator[T]) -> Iterator[T]:
        """The same stream, which Ctrl-C cancels from now on."""
        self._call = call
        if self._came:  # while it was opened
            self._call.cancel()
        return call

    def check(self) -> None:
        """Raises KeyboardInterrupt after a Ctrl-C."""
        if self._came:
            raise KeyboardInterrupt

    def _on_signal(self, *_: object) -> None:
        self._came = True
        self._give_back()
        if self._call is not None:
            self._call.cancel()

    def _give_back(self) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._is_ours = False


def _is_broken(error: RpcError) -> bool:
    """Whether the way to the service broke, rather than the service refusing.

    The service's own errors carry a reason; a connection that a proxy or a dying process reset comes as
    UNKNOWN or INTERNAL without one.
    """
    reset = error.code in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL} and not error.reason
    return reset or error.code is grpc.StatusCode.UNAVAILABLE


def wait_for(
    watch: Callable[[], Iterator[T]],
    is_terminal: Callable[[T], bool],
    on_change: Callable[[T], None] | None = None,
) -> T:
    """The terminal version of a resource; `on_change` sees every version on the way."""
    version: T | None = None
    for version in follow(watch, is_terminal):
        if on_change:
            on_change(version)
    if version is None:
        raise RpcError(grpc.StatusCode.UNAVAILABLE, "the watch ended without an answer; try again")
    return version
