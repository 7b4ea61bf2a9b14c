"""Which exports have had their time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from finemesh.export.retention import UNLIMITED, Ended, Retention, expired

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def ended(
    name: str,
    days_ago: float,
    *,
    line: str = "job",
    released: bool = True,
    pinned: bool = False,
    expires_in_days: float | None = None,
) -> Ended:
    expire_time = None if expires_in_days is None else NOW + timedelta(days=expires_in_days)
    end_time = NOW - timedelta(days=days_ago)
    return Ended(name, (line, "MERGED"), released, pinned, end_time, expire_time)


def test_the_newest_of_each_job_and_format_stay() -> None:
    exports = [ended("a1", 3), ended("b1", 2, line="other"), ended("a2", 1), ended("a3", 0)]
    assert expired(exports, Retention(keep_last=2), NOW) == ["a1"]
    assert expired(exports, Retention(keep_last=0), NOW) == ["a3", "a2", "b1", "a1"]
    assert expired(exports, UNLIMITED, NOW) == []


def test_neither_pinned_nor_failed_ones_take_a_place() -> None:
    exports = [ended("a1", 3), ended("pinned", 2, pinned=True), ended("failed", 1, released=False)]
    assert expired(exports, Retention(keep_last=1), NOW) == []
    gone = [ended("a1", 3), ended("gone", 1, expires_in_days=0)]
    assert expired(gone, Retention(keep_last=1), NOW) == ["gone"]


def test_age_and_the_time_of_its_own_go_by_the_end_of_an_export() -> None:
    exports = [
        ended("old", 10),
        ended("old and failed", 11, released=False),
        ended("old and pinned", 12, pinned=True, expires_in_days=-1),
        ended("young", 9.99),
        ended("short-lived", 0, expires_in_days=0),
        ended("long-lived", 0, expires_in_days=0.01),
    ]
    week = Retention(max_age=timedelta(days=10))
    assert expired(exports, week, NOW) == ["short-lived", "old", "old and failed"]
    assert expired(exports, UNLIMITED, NOW) == ["short-lived"]
