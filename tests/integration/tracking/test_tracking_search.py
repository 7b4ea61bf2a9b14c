"""Lists of runs by what they are and by their metrics, on SQLite and PostgreSQL, page by page."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from finemesh.chassis.auth import Principal, Role
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.core.errors import InvalidError
from finemesh.core.names import Name
from finemesh.core.requests import PageRequest
from finemesh.tracking.domain import Run, RunState, Summary
from finemesh.tracking.search import Search
from finemesh.tracking.store import CHASSIS, SUMMARIES, SqlRunStore
from finemesh.tracking.store import RUNS as TABLE

pytestmark = pytest.mark.integration

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
ADMIN: Final = Principal("admin", Role.ADMIN, frozenset({"*"}), math.inf)


def summary(key: str, last: float, best: float = math.nan, low: float = 0.0, high: float = 9.0) -> Summary:
    return Summary(key, last, 100, best, 50, 10, low, high)


RUNS: Final[dict[str, tuple[dict[str, str], list[Summary]]]] = {
    "a": (
        {"method.lora.rank": "16", "lr": "1e-4", "method": "lora"},
        [summary("val/loss", 1.25, 1.0), summary("a.best", 5)],
    ),
    "b": (
        {"method.lora.rank": "16.0", "lr": "0.01", "method": "lora"},
        [summary("val/loss", 1.5, 1.3, 1.25, 2)],
    ),
    "c": ({"method.lora.rank": "8", "lr": "-3", "method": "full"}, [summary("val/loss", math.nan, 1.125)]),
    "d": ({"lr": "auto", "odd (name)": "x"}, [summary("train/loss", math.inf, 0.5)]),
    "e": ({}, []),
}


@pytest.fixture
async def store(database: Database) -> SqlRunStore:
    await migrate(database, "finemesh.tracking")
    store = SqlRunStore(database, Outbox(CHASSIS), Notifier())
    for number, (run_id, (params, summaries)) in enumerate(RUNS.items()):
        time = START + timedelta(hours=number)
        made = Run(
            name=Name("p", "runs", run_id),
            params=params,
            labels={"team": "vision"} if run_id in "ab" else {},
            tags=("baseline",) if run_id == "e" else (),
            experiment="first" if run_id in "bc" else "",
            state=RunState.FINISHED if run_id in "ab" else RunState.RUNNING,
            create_time=time,
            update_time=time,
            summaries=tuple(sorted(summaries, key=lambda each: each.key)),
        )
        await store.update(made.name, lambda _, made=made: made)
    return store


async def found(store: SqlRunStore, filter_text: str = "", order_by: str = "create_time") -> str:
    """The ids of all runs that match, over pages of two."""
    ids, token = "", ""
    while True:
        runs, token = await store.list(ADMIN, "p", PageRequest(2, token, filter_text, order_by))
        ids += "".join(run.name.id for run in runs)
        if not token:
            return ids


FILTERS: Final = {
    'params."method.lora.rank" = "16"': "a",
    "params.method.lora.rank = 16": "ab",
    "params.method.lora.rank < 16": "c",
    "params.lr <= 0.01": "abc",
    "params.lr > -4 AND params.lr != 0.01": "ac",
    'params.lr = "auto"': "d",
    "params.method = lora": "ab",
    "params.lr:*": "abcd",
    'NOT params."method":*': "de",
    'params."odd (name)" = "x"': "d",
    'metrics."val/loss" < 1.5': "a",
    'metrics."val/loss".last >= 1.25': "ab",
    'metrics."val/loss".best < 1.2': "ac",
    "metrics.val/loss.best < 1.2": "ac",
    'metrics."val/loss".min = 1.25 AND metrics."val/loss".max = 2': "b",
    'metrics."val/loss":*': "abc",
    'NOT metrics."val/loss":*': "de",
    'metrics."val/loss" = nan': "c",
    'metrics."val/loss" != NaN': "ab",
    'metrics."train/loss" > 1e300': "d",
    'metrics."a.best" = 5': "a",
    'metrics."val/loss".best_step = 50 AND metrics."val/loss".count = 10': "abc",
    'params.method = "lora" AND metrics."val/loss".best < 1.2 AND state = FINISHED': "a",
    'metrics."val/loss".best < 1.1 OR metrics."train/loss".best < 1.1': "ad",
    "labels.team = vision AND experiment = first": "b",
    "tags:baseline": "e",
}
ORDERS: Final = {
    'metrics."val/loss".best': "acbde",
    'metrics."val/loss".best desc': "bcaed",
    'metrics."val/loss"': "abcde",
    "params.lr": "cabde",
    "params.lr desc": "bacde",
    "params.method, metrics.val/loss.last desc": "cbaed",
}


async def test_filters_by_parameters_and_metrics(store: SqlRunStore) -> None:
    assert {text: await found(store, text) for text in FILTERS} == FILTERS


async def test_orders_put_runs_without_the_value_last(store: SqlRunStore) -> None:
    assert {text: await found(store, order_by=text) for text in ORDERS} == ORDERS


@pytest.mark.parametrize(
    ("filter_text", "order_by", "says"),
    [
        ("metrics < 1", "", 'write metrics."name"'),
        (r'params."a\"b" = 1', "", "quotation mark"),
        ("params = 1", "", "write params and the name of one"),
        ('metrics."val/loss" < "low"', "", "not a finite number"),
        ('metrics."val/loss": 1 AND', "", "expected a field"),
        ("", "metrics", 'write metrics."name"'),
        ("", 'metrics."a", metrics."a"', "there twice"),
        ("", "notes", "cannot order by"),
        ("", "create_time," * 300, "longer than"),
    ],
)
def test_a_wrong_search_is_told_what_is_wrong(filter_text: str, order_by: str, says: str) -> None:
    with pytest.raises(InvalidError, match=says):
        Search(TABLE, SUMMARIES).listing.page(PageRequest(2, "", filter_text, order_by))
