"""Pages, orders and filters of list requests, on a small table of SQLite."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from finemesh.chassis.filtering import MAX_DEPTH, Field, Kind
from finemesh.chassis.paging import Listing
from finemesh.chassis.sql import Database, UtcDateTime
from finemesh.core.errors import InvalidError
from finemesh.core.requests import PageRequest
from sqlalchemy import JSON, Column, Float, Integer, MetaData, String, Table, delete, insert, select

METADATA: Final = MetaData()
JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("loss", Float),
    Column("labels", JSON, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("end_time", UtcDateTime),
)
FOR_EVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
LISTING: Final = Listing(
    {
        "name": Field(JOBS.c.name),
        "state": Field(JOBS.c.state, Kind.ENUM, choices=("QUEUED", "RUNNING", "FAILED")),
        "priority": Field(JOBS.c.priority, Kind.NUMBER),
        "loss": Field(JOBS.c.loss, Kind.NUMBER),
        "labels": Field(JOBS.c.labels, Kind.LABELS),
        "create_time": Field(JOBS.c.create_time, Kind.TIME),
        "end_time": Field(JOBS.c.end_time, Kind.TIME, null_as=FOR_EVER),
    },
    max_page_size=10,
)
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
STATES: Final = ("QUEUED", "RUNNING", "FAILED")


def row(number: int) -> dict[str, object]:
    """Job `number` of 12: states in turn, pairs of equal priority, every third still running."""
    return {
        "name": f"job-{number:02}",
        "state": STATES[number % 3],
        "priority": number // 2 % 3,
        "loss": None if number == 7 else number / 4,
        "labels": {"team": "vision" if number % 2 else "language"} if number < 10 else {},
        "create_time": START + timedelta(hours=number),
        "end_time": None if number % 3 == 0 else START + timedelta(days=number),
    }


@pytest.fixture
async def db(tmp_path: Path) -> AsyncGenerator[Database]:
    database = Database(f"sqlite:///{tmp_path}/jobs.db")
    async with database.begin() as tx:
        await tx.connection.run_sync(METADATA.create_all)
        await tx.execute(insert(JOBS), [row(number) for number in range(12)])
    yield database
    await database.close()


async def listed(db: Database, filter_text: str = "", order_by: str = "", page_size: int = 5) -> list[int]:
    """The numbers of all jobs of a list, page after page."""
    numbers: list[int] = []
    token = ""
    async with db.read() as tx:
        while True:
            page = LISTING.page(PageRequest(page_size, token, filter_text, order_by), scope="projects/a")
            rows, token = page.split(await tx.rows(page.apply(select(JOBS))))
            assert len(rows) <= page.size
            numbers += [int(each["name"][-2:]) for each in rows]
            if not token:
                return numbers


@pytest.mark.parametrize("page_size", [1, 2, 5, 10])
@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("", list(range(11, -1, -1))),
        ("name", list(range(12))),
        ("priority desc, name", [4, 5, 10, 11, 2, 3, 8, 9, 0, 1, 6, 7]),
        ("priority, create_time desc", [7, 6, 1, 0, 9, 8, 3, 2, 11, 10, 5, 4]),
        ("state,priority asc", [2, 8, 5, 11, 0, 6, 3, 9, 1, 7, 4, 10]),
        ("end_time desc", [9, 6, 3, 0, 11, 10, 8, 7, 5, 4, 2, 1]),
    ],
)
async def test_pages_cover_the_list_in_order_without_repeating(
    db: Database, order_by: str, expected: list[int], page_size: int
) -> None:
    assert await listed(db, order_by=order_by, page_size=page_size) == expected


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ('state = "RUNNING"', {1, 4, 7, 10}),
        ("state != RUNNING AND priority = 2", {5, 11}),
        ("state=QUEUED OR state=FAILED AND priority<=0", {0, 6}),  # OR binds tighter than AND
        ("(state=QUEUED) OR (state=FAILED AND priority<=0)", {0, 3, 6, 9}),
        ("NOT (priority < 1 OR priority > 1)", {2, 3, 8, 9}),
        ("-name : 'JOB-0'", {10, 11}),
        ('name:"job-1"', {10, 11}),
        ("name:%", set[int]()),  # a wildcard of LIKE is a plain character
        ("create_time >= 2026-01-01T09:00:00Z", {9, 10, 11}),
        ('create_time < "2026-01-01T02:00:00+01:00"', {0}),
        ("end_time:*", {1, 2, 4, 5, 7, 8, 10, 11}),
        ("NOT end_time:*", {0, 3, 6, 9}),
        ("labels.team = vision AND priority = 0", {1, 7}),
        ("labels.team : LANG", {0, 2, 4, 6, 8}),
        ("NOT labels:team", {10, 11}),
        ("loss >= 2.5", {10, 11}),
        ("loss > -1e3 AND loss < 0.3", {0, 1}),
        ("   ", set(range(12))),
    ],
)
async def test_filters(db: Database, filter_text: str, expected: set[int]) -> None:
    assert set(await listed(db, filter_text)) == expected


@pytest.mark.parametrize(
    ("filter_text", "says"),
    [
        ("name = x AND colour = red", "at character 14: there is no field colour: use name, state, priority"),
        ("state.inner = RUNNING", "there is no field state.inner"),
        ("state = running", "at character 9: state: 'running' is not one of QUEUED, RUNNING, FAILED"),
        ("state < RUNNING", "at character 7: state holds enum, which < does not compare: use = != :"),
        ("priority > high", "priority: 'high' is not a finite number"),
        ("priority = nan", "'nan' is not a finite number"),
        ("create_time > yesterday", "'yesterday' is not a time: write it as 2026-"),
        ("create_time > 2026-01-01", "is not a time"),
        ("labels = vision", 'write labels.key = "value"'),
        ("name = ", "expected a value for name"),
        ("name", "expected a comparison after name"),
        ("AND name = x", "there is no field AND"),
        ("name = x name = y", "expected AND, OR or the end"),
        ("(name = x", "a parenthesis is not closed"),
        ("name = x)", "at character 9"),
        ('name = "x', "expected a value for name"),
        ("(" * (MAX_DEPTH + 2), "nested deeper"),
        ("name = " + "x" * 5000, "longer than"),
    ],
)
def test_a_wrong_filter_is_told_what_is_wrong(filter_text: str, says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        LISTING.page(PageRequest(filter=filter_text))
    assert caught.value.reason == "INVALID_FILTER"
    assert [violation.field for violation in caught.value.violations] == ["filter"]
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "order_by", ["colour", "name up", "name,", "name name", "labels", "loss", "name, name desc", "name; drop"]
)
def test_a_wrong_order_is_told_what_is_wrong(order_by: str) -> None:
    with pytest.raises(InvalidError) as caught:
        LISTING.page(PageRequest(order_by=order_by))
    assert caught.value.reason == "INVALID_ORDER"
    assert [violation.field for violation in caught.value.violations] == ["order_by"]


def test_page_sizes_are_limited() -> None:
    assert LISTING.page(PageRequest(page_size=10_000)).size == 10
    assert LISTING.page(PageRequest(page_size=3)).size == 3
    with pytest.raises(InvalidError, match="page_size"):
        LISTING.page(PageRequest(page_size=-1))


async def first_token(
    db: Database, scope: str = "projects/a", filter_text: str = "", order_by: str = ""
) -> str:
    page = LISTING.page(PageRequest(2, "", filter_text, order_by), scope=scope)
    async with db.read() as tx:
        _, token = page.split(await tx.rows(page.apply(select(JOBS))))
    assert token
    return token


@pytest.mark.parametrize(
    ("scope", "filter_text", "order_by"),
    [("projects/b", "", ""), ("projects/a", "priority>0", ""), ("projects/a", "", "name")],
)
async def test_a_token_is_good_for_its_own_list_only(
    db: Database, scope: str, filter_text: str, order_by: str
) -> None:
    token = await first_token(db)
    LISTING.page(PageRequest(9, token), scope="projects/a")  # another size is fine
    with pytest.raises(InvalidError) as caught:
        LISTING.page(PageRequest(2, token, filter_text, order_by), scope=scope)
    assert caught.value.reason == "PAGE_TOKEN_MISMATCH"
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


@pytest.mark.parametrize(
    "token", ["a", "####", "bm90IGpzb24", "W10", "WzEsMl0", "x" * 9000, "e30", "W1tbW1tb"]
)
def test_a_made_up_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidError) as caught:
        LISTING.page(PageRequest(page_token=token))
    assert caught.value.reason in {"MALFORMED_PAGE_TOKEN", "PAGE_TOKEN_MISMATCH"}


async def test_rows_that_come_and_go_neither_repeat_nor_hide_others(db: Database) -> None:
    token = await first_token(db, order_by="name")  # jobs 0 and 1
    async with db.begin() as tx:
        await tx.execute(delete(JOBS).where(JOBS.c.name == "job-01"))
        await tx.execute(insert(JOBS).values({**row(0), "name": "job-00b"}))
    async with db.read() as tx:
        page = LISTING.page(PageRequest(2, token, "", "name"), scope="projects/a")
        rows, _ = page.split(await tx.rows(page.apply(select(JOBS))))
    assert [each["name"] for each in rows] == ["job-02", "job-03"]


def test_a_listing_that_cannot_be_ordered_as_promised_fails_at_import() -> None:
    with pytest.raises(InvalidError, match="loss"):
        Listing({"name": Field(JOBS.c.name), "loss": Field(JOBS.c.loss)}, default_order="loss")
