"""The agent's own record of commands: what it has taken on survives it.

A command is recorded before its message is acknowledged, and (resource, attempt) is recorded once, so a
message that comes twice is carried out once. SQLite with synchronous=FULL: a row that was acknowledged
outlives a power cut. A write takes about a millisecond; commands are rare enough to make it in the event
loop.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from finemesh.cluster.attempts import ref_of
from finemesh.core.attempts import AttemptRef
from finemesh.core.errors import UnavailableError
from finemesh.v1 import attempt_pb2

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS commands (
    resource TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    state TEXT NOT NULL,
    command BLOB NOT NULL,
    outcome TEXT NOT NULL DEFAULT '',
    update_time REAL NOT NULL,
    PRIMARY KEY (resource, attempt)
) WITHOUT ROWID
"""
# Who supervises an attempt. An actor is given away once.
_ACTORS: Final = """
CREATE TABLE IF NOT EXISTS actors (
    resource TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    actor TEXT NOT NULL UNIQUE,
    PRIMARY KEY (resource, attempt)
) WITHOUT ROWID
"""
# Old rows only guard against very late repetitions; JetStream and the services forget far sooner.
_KEPT_SECONDS: Final = 30 * 24 * 3600.0


class CommandState(StrEnum):
    RECORDED = "RECORDED"  # nothing was started
    LAUNCHED = "LAUNCHED"  # a supervisor was, or was about to be, started
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that the agent has taken on, and the name of the actor that supervises it, if it has one."""

    ref: AttemptRef
    state: CommandState
    command: attempt_pb2.Command
    actor: str = ""


class Ledger:
    """The commands of one cluster, in a SQLite file. Used from one thread.

    Raises UnavailableError, LEDGER_UNUSABLE, if the file cannot be opened and written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._open()
        except sqlite3.DatabaseError as error:
            message = f"the agent cannot write its record {path}: {error}. Make room on that disk, or see why"
            raise UnavailableError(f"{message} it may not be written", reason="LEDGER_UNUSABLE") from error

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_SCHEMA)
        self._db.execute(_ACTORS)
        self._db.execute(
            "DELETE FROM commands WHERE state = ? AND update_time < ?",
            (CommandState.ENDED, time.time() - _KEPT_SECONDS),
        )
        self._db.execute(
            "DELETE FROM actors WHERE (resource, attempt) NOT IN (SELECT resource, attempt FROM commands)"
        )

    def close(self) -> None:
        self._db.close()

    def record(self, command: attempt_pb2.Command) -> bool:
        """Take a command on. Returns False if it was taken on before, whatever became of it."""
        ref = ref_of(command)
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO commands VALUES (?, ?, ?, ?, ?, '', ?)",
            (
                ref.resource,
                ref.attempt,
                ref.fence,
                CommandState.RECORDED,
                command.SerializeToString(),
                time.time(),
            ),
        )
        return cursor.rowcount == 1

    def launching(self, ref: AttemptRef, actor: str) -> None:
        """Note that `actor` is about to become its supervisor. After an end of the agent the command is not
        started again.
        """
        self._db.execute("BEGIN")
        with self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO actors VALUES (?, ?, ?)", (ref.resource, ref.attempt, actor)
            )
            self._set(ref, CommandState.LAUNCHED)

    def actors(self) -> set[str]:
        """Every actor that was ever given an attempt, as far as is known."""
        return {name for (name,) in self._db.execute("SELECT actor FROM actors")}

    def end(self, ref: AttemptRef, outcome: str) -> None:
        """Note that nothing of the attempt runs here any more; `outcome` is for people."""
        self._set(ref, CommandState.ENDED, outcome)

    def live(self) -> list[Entry]:
        """Commands that have not ended, in the order of their last change."""
        rows = self._db.execute(
            "SELECT resource, attempt, fence, state, command, actor FROM commands"
            " LEFT JOIN actors USING (resource, attempt) WHERE state != ? ORDER BY update_time",
            (CommandState.ENDED,),
        )
        return [
            Entry(
                AttemptRef(resource, attempt, fence),
                CommandState(state),
                attempt_pb2.Command.FromString(command),
                actor or "",
            )
            for resource, attempt, fence, state, command, actor in rows
        ]

    def find(self, ref: AttemptRef) -> CommandState | None:
        """Where a command stands; None if it was never taken on."""
        row = self._db.execute(
            "SELECT state FROM commands WHERE resource = ? AND attempt = ?", (ref.resource, ref.attempt)
        ).fetchone()
        return CommandState(row[0]) if row else None

    def _set(self, ref: AttemptRef, state: CommandState, outcome: str = "") -> None:
        self._db.execute(
            "UPDATE commands SET state = ?, outcome = ?, update_time = ? WHERE resource = ? AND attempt = ?",
            (state, outcome, time.time(), ref.resource, ref.attempt),
        )
