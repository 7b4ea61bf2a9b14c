"""`python -m finemesh.training.planning_child FD`: plans passes for the service that started it.

FD is its end of the pipe of `planning_process`: a `Setup` comes first, then a `Question` at a time, and each
gets its answer. It only reads the database, and ends with the other end of the pipe, however that went away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator
from multiprocessing.connection import Connection
from typing import Any, Final

from finemesh.chassis.attempt_rows import AttemptRows
from finemesh.chassis.logs import configure_logging
from finemesh.chassis.sql import Database, Tx
from finemesh.core.attempts import Cluster
from finemesh.core.errors import UnavailableError
from finemesh.training.claims import Claim
from finemesh.training.planning import Planner, Question
from finemesh.training.planning_process import Answer, Away, Setup
from finemesh.training.queue_rows import QueueRows
from finemesh.training.tables import CHASSIS
from finemesh.training.workers.orders import ordered

NICENESS: Final = 5  # requests come before passes where they share a core


class QueueReader:
    """Implements `planning.Queue`: what the scheduler reads, and nothing that writes or knows gRPC."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._seen_claims: dict[tuple[Any, ...], tuple[tuple[Any, ...], Claim]] = {}

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncGenerator[_Rows]:
        async with self._db.read(inline=True) as tx:
            yield _Rows(tx, self._seen_claims)


class _Rows(QueueRows):
    def __init__(self, tx: Tx, seen: dict[tuple[Any, ...], tuple[tuple[Any, ...], Claim]]) -> None:
        self._tx = tx
        self._seen_claims = seen

    async def clusters(self) -> list[Cluster]:
        return await ordered(self._tx, await AttemptRows(CHASSIS).clusters(self._tx))


async def _answer(planner: Planner, question: Question) -> Answer:
    try:
        return await planner.plan(question)
    except UnavailableError as error:
        return Away(error.message, error.reason)


def main() -> None:
    """Answer until the pipe is closed. What else goes wrong ends the process, and the service goes on."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they are the service's, which may have some calls left
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    pipe: Connection[Answer, Any] = Connection(int(sys.argv[1]))
    setup: Setup = pipe.recv()
    configure_logging("training", setup.log_level)
    db = Database(setup.database_url)
    planner = Planner(QueueReader(db), setup.live_seconds)
    with asyncio.Runner() as runner:
        try:
            while True:
                pipe.send(runner.run(_answer(planner, pipe.recv())))
        except (EOFError, ConnectionError):
            return
        finally:
            runner.run(db.close())


if __name__ == "__main__":
    main()
