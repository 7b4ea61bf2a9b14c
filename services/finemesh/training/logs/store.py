"""Logs in SQL: appended by offset, so that a repetition changes nothing, and bounded per attempt."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import delete, func, insert, select

from finemesh.chassis.sql import Tx
from finemesh.core.clock import Clock
from finemesh.core.names import Name
from finemesh.training.logs.lines import Place, Segment
from finemesh.training.logs.tables import SEGMENTS

# Of each attempt's log the beginning is kept, which says what it was, and the end, which says why it ended.
HEAD_BYTES: Final = 1 << 20
LIMIT_BYTES: Final = 8 << 20
READ_SEGMENTS: Final = 64


async def append(tx: Tx, name: Name, attempt: int, offset: int, content: bytes, clock: Clock) -> int:
    """Keep a part of an attempt's log. Returns how much of the log is durable; if that is less than `offset`,
    nothing was taken.
    """
    await tx.lock(f"{name}/logs/{attempt}")
    mine = _of(name, attempt)
    end = int(await tx.scalar(select(func.max(SEGMENTS.c.end)).where(*mine)) or 0)
    fresh = content[max(0, end - offset) :]
    if offset > end or not fresh:
        return end
    await tx.execute(
        insert(SEGMENTS).values(
            project=name.project,
            job_id=name.id,
            attempt=attempt,
            begin=end,
            end=end + len(fresh),
            content=fresh,
            create_time=clock.now(),
        )
    )
    # Segments that lie between the part that is kept for good and the newest LIMIT_BYTES go.
    oldest = end + len(fresh) - (LIMIT_BYTES - HEAD_BYTES)
    if oldest > HEAD_BYTES:
        middle = (SEGMENTS.c.begin >= HEAD_BYTES, SEGMENTS.c.end <= oldest)
        await tx.execute(delete(SEGMENTS).where(*mine, *middle))
    return end + len(fresh)


async def read(tx: Tx, name: Name, place: Place, attempt: int) -> list[Segment]:
    """The next segments from a place on, of one attempt or (with 0) of all."""
    table = SEGMENTS
    here = (table.c.attempt == place.attempt) & (table.c.end > place.offset)
    wanted = here if attempt else here | (table.c.attempt > place.attempt)
    query = select(table).where(table.c.project == name.project, table.c.job_id == name.id, wanted)
    rows = await tx.rows(query.order_by(table.c.attempt, table.c.begin).limit(READ_SEGMENTS))
    return [Segment(row["attempt"], row["begin"], row["content"]) for row in rows]


def _of(name: Name, attempt: int) -> tuple[Any, Any, Any]:
    table = SEGMENTS
    return table.c.project == name.project, table.c.job_id == name.id, table.c.attempt == attempt
