"""Who misspells a metric is told which may be meant."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from finemesh.client.cli.metric_names import metrics_named, print_unknown
from finemesh.v1.run_sql_pb2 import QuerySqlRequest, QuerySqlResponse

RUNS = ["projects/p/runs/r"]


def connection_to(keys: list[str], asked: list[QuerySqlRequest]) -> Any:
    """One that knows these metrics, and notes what it is asked."""

    def query(request: QuerySqlRequest) -> list[QuerySqlResponse]:
        asked.append(request)
        answer = QuerySqlResponse()
        for key in keys:
            answer.rows.add().append(key)
        return [answer]

    return SimpleNamespace(parent="projects/p", tracking=SimpleNamespace(QuerySql=query))


def test_the_nearest_metric_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[QuerySqlRequest] = []
    known = connection_to(["train/loss", "val/loss"], asked)
    assert print_unknown(known, ["train/los", "val/loss", "x"], RUNS)
    said = capsys.readouterr().err
    assert "no run has a metric train/los: did you mean train/loss?" in said
    assert 'no run has a metric x: `finemesh runs sql "FROM metrics"` lists those' in said
    assert "val/loss:" not in said
    assert [list(request.runs) for request in asked] == [RUNS]


def test_nothing_is_asked_where_no_metric_is_missing() -> None:
    asked: list[QuerySqlRequest] = []
    assert not print_unknown(connection_to([], asked), [])
    assert asked == []


def test_metrics_are_found_in_filters() -> None:
    assert metrics_named('metrics."a/b".best < 1 AND params."x" = 1 OR metrics."c" > 2') == ["a/b", "c"]
