"""Waiting for a long-running resource, over restarts of the service that is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import grpc

from finemesh.client.errors import RpcError

T = TypeVar("T")
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5


def follow(watch: Callable[[], Iterator[T]], is_terminal: Callable[[T], bool]) -> Iterator[T]:
    """Yields every version of a resource until a terminal one.

    `watch` opens the stream. When the stream breaks because the service is away it is opened again; it begins
    with the current version, so nothing that matters is missed. Raises RpcError after a minute without an
    answer.
    """
    away_since = 0.0
    while True:
        try:
            for version in watch():
                away_since = 0.0
                yield version
                if is_terminal(version):
                    return
        except RpcError as error:
            away_since = away_since or time.monotonic()
            if not _is_broken(error) or time.monotonic() - away_since > _PATIENCE_SECONDS:
                raise
            time.sleep(_PAUSE_SECONDS)


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
