"""Plans passes in a process of their own once there are many jobs: requests then need not share Python's one
lock with them. That process (`planning_child`) has its own connections to the database, and only reads.

It knows nothing that cannot be read again. When it ends, or gives no answer, passes are planned in the
service's own thread until there is another.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

import structlog

from finemesh.core.errors import UnavailableError
from finemesh.training.planning import Plan, Planner, Question

CHILD: Final = "finemesh.training.planning_child"
MANY: Final = 1000  # jobs: to plan for fewer takes some 20 ms, and a process takes 50 MiB
ANSWER_SECONDS: Final = 300.0  # the first reads all jobs that wait, and the machine may be busy
FIRST_DELAY_SECONDS: Final = 1.0
DELAY_AT_MOST_SECONDS: Final = 60.0

log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Setup:
    """What the process is told first.

    Attributes:
        database_url: it may hold a password, so it is on no command line.
        live_seconds: how long after its last report a cluster gets work.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """

    database_url: str = field(repr=False)
    live_seconds: float
    log_level: str = "INFO"


@dataclass(frozen=True, slots=True)
class Away:
    """The database was away: message and reason of the error."""

    message: str
    reason: str


Answer = Plan | Away | None


class _GoneError(Exception):
    """The process has ended, or was ended for it gave no answer."""


class PlanningProcess:
    """One process, from its start to its end. Raises OSError when it cannot be started."""

    def __init__(self, setup: Setup) -> None:
        self._setup: Setup | None = setup
        ours, theirs = socket.socketpair()
        self._pipe: Connection[Any, Answer] = Connection(ours.detach())
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", CHILD, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, question: Question) -> Plan | None:
        """See `Plans`. Raises _GoneError, too."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await asyncio.to_thread(_converse, self._pipe, self._setup, question)
        except (EOFError, OSError) as error:
            code = self.end()
            late = isinstance(error, TimeoutError)
            why = f"no answer in {ANSWER_SECONDS:g} s" if late else f"it ended with exit code {code}"
            raise _GoneError(why) from error
        except BaseException:
            self.end()  # what it says now would answer another question
            raise
        self._setup = None
        if isinstance(answer, Away):
            raise UnavailableError(answer.message, reason=answer.reason)
        return answer

    def end(self) -> int:
        """Kill it: it only reads. A thread that waits for its answer gets the end of the pipe, and closes it.
        Returns the exit code, its own if it had ended before.
        """
        self._process.kill()
        return self._process.wait()


def _converse(pipe: Connection[Any, Answer], setup: Setup | None, question: Question) -> Answer:
    if setup is not None:
        pipe.send(setup)
    pipe.send(question)
    return pipe.recv()


class PlannerApart:
    """Implements `Plans`: in this process while there are few jobs, in another from `many` on. Close it when
    done.

    Args:
        own: plans here.
        setup: for the other process.
        many: so many jobs wait or are at work that another process is worth its memory.
        first_delay_seconds: after which a process that has ended is started anew; it doubles up to
            DELAY_AT_MOST_SECONDS while processes do not last longer than that.
    """

    def __init__(
        self,
        own: Planner,
        setup: Setup,
        *,
        many: int = MANY,
        first_delay_seconds: float = FIRST_DELAY_SECONDS,
    ) -> None:
        self._own = own
        self._setup = setup
        self._many = many
        self._first_delay_seconds = first_delay_seconds
        self._delay_seconds = first_delay_seconds
        self._start_at = 0.0
        self._started_at = 0.0
        self._process: PlanningProcess | None = None

    @property
    def pid(self) -> int | None:
        """Of the other process; None while there is none."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the other process, if there is one."""
        if self._process is not None:
            self._process.end()
            self._process = None

    async def plan(self, question: Question) -> Plan | None:
        """See `Plans`."""
        process = self._process or await self._start()
        if process is not None:
            try:
                plan = await process.ask(question)
            except _GoneError as error:
                self._process = None
                self._put_off(str(error))
            else:
                self._own.forget()
                return plan
        return await self._own.plan(question)

    async def _start(self) -> PlanningProcess | None:
        if time.monotonic() < self._start_at or (jobs := await self._own.jobs()) < self._many:
            return None
        self._started_at = time.monotonic()
        try:
            self._process = PlanningProcess(self._setup)
        except OSError as error:
            self._put_off(f"it cannot be started: {error}")
            return None
        log.info("planning_process_started", pid=self._process.pid, jobs=jobs)
        return self._process

    def _put_off(self, why: str) -> None:
        now = time.monotonic()
        if now - self._started_at > DELAY_AT_MOST_SECONDS:
            self._delay_seconds = self._first_delay_seconds
        log.warning("planning_process_gone", why=why, again_in_seconds=self._delay_seconds)
        self._start_at = now + self._delay_seconds
        self._delay_seconds = min(2 * self._delay_seconds, DELAY_AT_MOST_SECONDS)
