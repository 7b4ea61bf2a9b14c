"""For how long exports are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Retention:
    """What a project has decided; None where it has not.

    Attributes:
        keep_last: of the released exports of each training job and format this many stay.
        max_age: what ended longer ago goes.
        update_time: when it was last set; None where it never was.
    """

    keep_last: int | None = None
    max_age: timedelta | None = None
    update_time: datetime | None = None


UNLIMITED: Final = Retention()


@dataclass(frozen=True, slots=True)
class Ended:
    """What retention looks at: an export that has ended. `line`: of a job and a format."""

    id: str
    line: tuple[str, str]
    released: bool
    pinned: bool
    end_time: datetime
    expire_time: datetime | None


def expired(exports: Iterable[Ended], retention: Retention, now: datetime) -> list[str]:
    """Ids of those of a project's exports that have had their time, the latest first.

    A pinned export stays, and takes none of the places that `keep_last` has.
    """
    gone: list[str] = []
    kept: Counter[tuple[str, str]] = Counter()
    for export in sorted(exports, key=lambda each: (each.end_time, each.id), reverse=True):
        if export.pinned:
            continue
        over = export.expire_time is not None and export.expire_time <= now
        over |= retention.max_age is not None and export.end_time + retention.max_age <= now
        if export.released and not over:
            over = retention.keep_last is not None and kept[export.line] >= retention.keep_last
            kept[export.line] += not over
        if over:
            gone.append(export.id)
    return gone
