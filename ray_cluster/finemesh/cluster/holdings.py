"""The book of holdings: which processes attempts have had, with which GPUs, and what is proven of their end.

A table beside the agent's ledger. A row is written as soon as the supervisor can tell, and leaves when the
service has heard that it is free.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from finemesh.cluster.devices import Device
from finemesh.cluster.reaper import Holding, Release
from finemesh.core.attempts import AttemptRef

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS holdings (
    resource TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    start_time REAL NOT NULL,
    node TEXT NOT NULL,
    place TEXT NOT NULL,
    devices TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    release_time REAL NOT NULL DEFAULT 0,
    evidence TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (resource, attempt, node, pid)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A row: `tries` counts what did not prove it free, `evidence` is the last that was seen, and
    `release_time` is 0 until it is proven, in seconds since 1970.
    """

    ref: AttemptRef
    holding: Holding
    tries: int = 0
    release_time: float = 0.0
    evidence: str = ""


class HoldingBook:
    """In the file of the ledger. Used from one thread."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def note(self, ref: AttemptRef, holding: Holding) -> None:
        """Put down what a process of an attempt holds; again changes nothing."""
        self._db.execute(
            "INSERT OR IGNORE INTO holdings (resource, attempt, fence, pid, start_time, node, place, devices)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                ref.resource,
                ref.attempt,
                ref.fence,
                holding.pid,
                holding.start_time,
                holding.node,
                holding.place,
                json.dumps([asdict(device) for device in holding.devices]),
            ),
        )

    def knows(self, ref: AttemptRef) -> bool:
        """Whether anything is down for an attempt."""
        found = self._db.execute(
            "SELECT 1 FROM holdings WHERE resource = ? AND attempt = ?", (ref.resource, ref.attempt)
        )
        return found.fetchone() is not None

    def seen(self, held: Held, found: Release) -> None:
        """Put down what became of it."""
        self._db.execute(
            "UPDATE holdings SET tries = tries + ?, release_time = ?, evidence = ?"
            " WHERE resource = ? AND attempt = ? AND node = ? AND pid = ?",
            (not found.free, time.time() if found.free else 0.0, found.evidence, *_key(held)),
        )

    def forget(self, held: Held) -> None:
        """Take out what nobody has to know any more."""
        self._db.execute(
            "DELETE FROM holdings WHERE resource = ? AND attempt = ? AND node = ? AND pid = ?", _key(held)
        )

    def all(self) -> list[Held]:
        """Every row, in the order of resources and attempts."""
        rows = self._db.execute(
            "SELECT resource, attempt, fence, pid, start_time, node, place, devices, tries, release_time,"
            " evidence FROM holdings ORDER BY resource, attempt, node, pid"
        )
        return [
            Held(
                AttemptRef(resource, attempt, fence),
                Holding(pid, started, node, place, tuple(Device(**each) for each in json.loads(devices))),
                tries,
                release_time,
                evidence,
            )
            for (
                resource,
                attempt,
                fence,
                pid,
                started,
                node,
                place,
                devices,
                tries,
                release_time,
                evidence,
            ) in rows
        ]


def _key(held: Held) -> tuple[str, int, str, int]:
    return held.ref.resource, held.ref.attempt, held.holding.node, held.holding.pid
