"""Starts the process that answers a query of SQL, gives it its rows, and ends it in time whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from finemesh.core.errors import FinemeshError, InvalidError, ResourceExhaustedError

CHILD: Final = Path(__file__).with_name("sql_child.py")
# More would share the cores and the memory of the machine; further queries wait.
PROCESSES: Final = 2
# Nothing of the service's environment; and no large reserves, which would count as memory.
_ENVIRONMENT: Final = {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
_ONLY_VIEWS: Final = "a query reads the views alone: no files, network, settings or changes"

Frame = tuple[bytes, bytes]
"""Kind and payload, as sql_child.py describes them."""
Feed = Callable[[BinaryIO], None]
"""Writes the tables of an order, in its order. Runs in a thread."""


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """What one query may take.

    Attributes:
        seconds: from start to end, however busy the machine is.
        cpu_seconds: of processor time.
        memory_bytes: of the process for rows and query, besides its libraries.
        rows: of the result, at most.
        result_bytes: of the result, at most.
        points: that the process may be given.
    """

    seconds: float = 60.0
    cpu_seconds: int = 20
    memory_bytes: int = 512 << 20
    rows: int = 1_000_000
    result_bytes: int = 256 << 20
    points: int = 4_000_000


class SqlProcesses:
    """Belongs to one event loop."""

    def __init__(self, limits: SqlLimits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(PROCESSES)
        # One thread writes to a process, one reads from it; the loop's own threads stay free.
        self._threads = ThreadPoolExecutor(2 * PROCESSES, thread_name_prefix="sql")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, order: Mapping[str, Any], feed: Feed) -> AsyncGenerator[Frame]:
        """The frames of an answer, as they come, without its end.

        Raises InvalidError (SQL_INVALID, SQL_NOT_ALLOWED), ResourceExhaustedError (SQL_TIMEOUT,
        SQL_OUT_OF_MEMORY, SQL_RESULT_TOO_LARGE), and what `feed` raises.
        """
        limits = {"cpu_seconds": self._limits.cpu_seconds, "memory_bytes": self._limits.memory_bytes}
        line = json.dumps({**order, **limits}).encode() + b"\n"
        async with self._slots:
            process = _started()
            feeding = self._threads.submit(_fed, process, line, feed)
            try:
                async for frame in self._frames(process, feeding):
                    yield frame
            finally:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()

    async def _frames(self, process: subprocess.Popen[bytes], feeding: Future[None]) -> AsyncGenerator[Frame]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.seconds
        total_bytes = 0
        while True:
            reading = loop.run_in_executor(self._threads, _read, process.stdout)
            try:
                async with asyncio.timeout_at(deadline):
                    kind, payload = await asyncio.shield(reading)
            except TimeoutError:
                raise self._timed_out(f"{self._limits.seconds:g} s") from None
            total_bytes += len(payload)
            if total_bytes > self._limits.result_bytes:
                raise _too_large(f"the result has more than {self._limits.result_bytes >> 20} MiB")
            match kind:
                case b"D":
                    return
                case b"":
                    raise await asyncio.to_thread(self._ended_early, process, feeding)
                case b"E":
                    raise self._refusal(**json.loads(payload))
                case _:
                    yield kind, payload

    def _ended_early(self, process: subprocess.Popen[bytes], feeding: Future[None]) -> Exception:
        """Why there is no end: it was not given its rows, or was ended by the system."""
        signal_number = -process.wait()
        failure = feeding.exception()
        if failure is not None:
            return failure if isinstance(failure, Exception) else RuntimeError(repr(failure))
        if signal_number == signal.SIGXCPU:
            return self._timed_out(f"{self._limits.cpu_seconds} s of processor time")
        return self._out_of_memory(f"the system ended it by signal {signal_number}")

    def _refusal(self, kind: str, message: str) -> Exception:
        match kind:
            case "not_allowed":
                return InvalidError.of("query", f"{message}; {_ONLY_VIEWS}", reason="SQL_NOT_ALLOWED")
            case "invalid":
                return InvalidError.of("query", message, reason="SQL_INVALID")
            case "too_many_rows":
                return _too_large(message)
            case "out_of_memory":
                return self._out_of_memory(message)
            case _:
                return RuntimeError(message)

    def _timed_out(self, what: str) -> FinemeshError:
        return ResourceExhaustedError(
            f"the query took more than {what}: name fewer runs or keys, or ask for less",
            reason="SQL_TIMEOUT",
        )

    def _out_of_memory(self, words: str) -> FinemeshError:
        return ResourceExhaustedError(
            f"the query needs more than {self._limits.memory_bytes >> 20} MiB ({words}): name fewer runs or"
            " keys, or aggregate",
            reason="SQL_OUT_OF_MEMORY",
        )


def _too_large(words: str) -> FinemeshError:
    return ResourceExhaustedError(
        f"{words}: aggregate, add a LIMIT, or raise max_rows up to its limit", reason="SQL_RESULT_TOO_LARGE"
    )


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=_ENVIRONMENT,
    )


def _fed(process: subprocess.Popen[bytes], line: bytes, feed: Feed) -> None:
    """Write an order. A process that went away is no fault here: its answer tells why.

    When the rows cannot be had, the process is ended, so that whoever waits for its answer looks here.
    """
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError), cast("BinaryIO", process.stdin) as stdin:
            stdin.write(line)
            feed(stdin)
    except BaseException:
        process.kill()
        raise


def _read(pipe: IO[bytes] | None) -> Frame:
    """The next frame; an empty kind when there is none."""
    assert pipe is not None
    head = pipe.read(5)
    if len(head) < 5:
        return b"", b""
    kind, length = head[:1], struct.unpack("<I", head[1:])[0]
    payload = pipe.read(length)
    return (kind, payload) if len(payload) == length else (b"", b"")
