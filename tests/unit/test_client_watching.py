"""Watching to the end, and until Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import grpc
import pytest
from finemesh.client.errors import RpcError
from finemesh.client.watching import follow


class Stream:
    """One version, then the signal while the next one is waited for."""

    def __init__(self) -> None:
        self.versions = 0
        self.cancelled = False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.versions += 1
        if self.versions == 1:
            return 1
        os.kill(os.getpid(), signal.SIGINT)
        assert self.cancelled, "interrupted in the midst of gRPC"
        raise RpcError(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture(autouse=True)
def default_handler() -> Generator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_cancels_the_call_and_is_raised_outside_of_it() -> None:
    stream = Stream()
    versions = follow(lambda: stream, lambda _: False)
    assert next(versions) == 1
    with pytest.raises(KeyboardInterrupt):
        next(versions)
    assert stream.cancelled
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_a_version_is_shown_ends_the_watch() -> None:
    stream = Stream()
    versions = follow(lambda: stream, lambda _: False)
    next(versions)
    os.kill(os.getpid(), signal.SIGINT)
    assert stream.cancelled
    with pytest.raises(KeyboardInterrupt):
        next(versions)


def test_a_handler_of_the_program_stays() -> None:
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    versions = follow(lambda: iter((1, 2)), lambda version: version == 2)
    next(versions)
    os.kill(os.getpid(), signal.SIGINT)
    assert (list(versions), came) == ([2], [signal.SIGINT])
