"""Watching to the end, and until Ctrl-C."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator

import grpc
import pytest
from finemesh.client.errors import RpcError
from finemesh.client.watching import follow

PATIENCE_SECONDS = 30.0


class Stream:
    """Some versions; then nothing until it is cancelled."""

    def __init__(self, *versions: int, then: Callable[[], None] = lambda: None) -> None:
        self._versions = iter(versions)
        self._then = then
        self.readers: set[threading.Thread] = set()
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.readers.add(threading.current_thread())
        for version in self._versions:
            return version
        self._then()
        assert self.cancelled.wait(PATIENCE_SECONDS)
        raise RpcError(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")

    def cancel(self) -> None:
        self.cancelled.set()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def default_handler() -> Generator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_raised_outside_of_the_call_and_cancels_it() -> None:
    stream = Stream(1, then=interrupt)
    versions = follow(lambda: stream, lambda _: False)
    assert next(versions) == 1
    with pytest.raises(KeyboardInterrupt):
        next(versions)
    assert stream.cancelled.is_set()
    assert threading.main_thread() not in stream.readers
    assert not any(each.is_alive() for each in stream.readers)


def test_an_interrupt_while_a_version_is_shown_is_raised_there() -> None:
    stream = Stream(1, 2)

    def watch() -> None:
        for _ in follow(lambda: stream, lambda _: False):
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        watch()
    gc.collect()  # the frame that the exception has kept
    assert stream.cancelled.is_set()


def test_a_watch_that_reached_its_end_leaves_no_call() -> None:
    stream = Stream(1, 2)
    assert list(follow(lambda: stream, lambda version: version == 2)) == [1, 2]
    assert stream.cancelled.is_set()


def test_a_handler_of_the_program_stays() -> None:
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    versions = follow(lambda: Stream(1, 2), lambda version: version == 2)
    next(versions)
    interrupt()
    assert (list(versions), came) == ([2], [signal.SIGINT])
