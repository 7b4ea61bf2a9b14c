"""The history of jobs in SQL."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import RowMapping, insert, select

from finemesh.chassis.auth import current_principal
from finemesh.chassis.filtering import Field
from finemesh.chassis.filtering import Kind as FieldKind
from finemesh.chassis.paging import Listing
from finemesh.chassis.sql import Tx
from finemesh.core.errors import ErrorRecord, UnauthenticatedError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.core.states import TrainingJobState
from finemesh.training.history import Entry, Kind
from finemesh.training.tables import HISTORY

_LISTING: Final = Listing(
    {"sequence": Field(HISTORY.c.sequence, FieldKind.NUMBER)}, key="sequence", default_order="sequence"
)
INSERT_HISTORY: Final = insert(HISTORY)
_PLAIN: Final = ("kind", "time", "state", "from_state", "attempt", "step", "message")


class HistoryRows:
    """The part of `ports.Unit` that is about history, on an open transaction."""

    _tx: Tx

    async def history_page(self, name: Name, query: PageRequest) -> tuple[list[Entry], str]:
        page = _LISTING.page(query, scope=str(name))
        own = select(HISTORY).where(HISTORY.c.project == name.project, HISTORY.c.job_id == name.id)
        rows, token = page.split(await self._tx.rows(page.apply(own)))
        return [_entry_of(row) for row in rows], token


def history_values(name: Name, known: int, entries: Sequence[Entry]) -> list[Mapping[str, Any]]:
    """The rows of entries that follow the `known` ones that there are, which the current caller brings about
    where an entry names nobody. The caller holds the job's lock.
    """
    caller, place = _caller(), {"project": name.project, "job_id": name.id}
    return [
        {
            **{name: getattr(entry, name) for name in _PLAIN},
            **place,
            "error": asdict(entry.error) if entry.error else None,
            "sequence": sequence,
            "actor": entry.actor or caller,
        }
        for sequence, entry in enumerate(entries, start=known + 1)
    ]


def _caller() -> str:
    """The subject of the token of the call that this is part of; empty for the service's own doing."""
    with contextlib.suppress(UnauthenticatedError):
        return current_principal().subject
    return ""


def _entry_of(row: RowMapping) -> Entry:
    return Entry(
        kind=Kind(row["kind"]),
        time=row["time"],
        state=TrainingJobState(row["state"]),
        from_state=TrainingJobState(row["from_state"]) if row["from_state"] else None,
        attempt=row["attempt"],
        step=row["step"],
        message=row["message"],
        error=ErrorRecord(**row["error"]) if row["error"] else None,
        sequence=row["sequence"],
        actor=row["actor"],
    )
