"""Waiting for a long-running resource, over restarts of the service that is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any, Final, TypeVar

import grpc

from finemesh.client.errors import RpcError

T = TypeVar("T")
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5
_GLANCE_SECONDS: Final = 0.25


def follow(watch: Callable[[], Iterator[T]], is_terminal: Callable[[T], bool]) -> Iterator[T]:
    """Yields every version of a resource until a terminal one.

    `watch` makes the call of a stream. When it breaks because the service is away it is made again; it begins
    with the current version, so nothing that matters is missed. Raises RpcError after a minute without an
    answer.
    """
    away_since = 0.0
    with ThreadPoolExecutor(1, "watch") as reader:
        while True:
            try:
                with closing(_read_in(reader, watch)) as versions:
                    for version in versions:
                        away_since = 0.0
                        yield version
                        if is_terminal(version):
                            return
            except RpcError as error:
                away_since = away_since or time.monotonic()
                if not _is_broken(error) or time.monotonic() - away_since > _PATIENCE_SECONDS:
                    raise
                time.sleep(_PAUSE_SECONDS)


def _read_in(reader: Executor, watch: Callable[[], Iterator[T]]) -> Generator[T]:
    """What a stream brings, read in another thread.

    Python raises Ctrl-C in the main thread wherever that is. Amid gRPC it can leave a lock held for good, and
    the process waits for that lock when it ends; here it meets a future that is waited for.
    """
    call: Any = _result(reader.submit(watch))
    try:
        while (version := _result(reader.submit(next, call, None))) is not None:
            yield version
    finally:
        if hasattr(call, "cancel"):  # a call, in which the other thread may be waiting; any iterator will do
            call.cancel()


def _result(future: Future[T]) -> T:
    """A signal that comes just before a wait begins is seen when that wait ends, so none is long."""
    while not wait([future], _GLANCE_SECONDS).done:
        pass
    return future.result()


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
