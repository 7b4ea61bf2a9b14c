"""Which metrics runs have, for those who misspell one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Final

from rich.markup import escape

from finemesh.client.cli.context import err
from finemesh.client.connection import Connection
from finemesh.v1.run_sql_pb2 import QuerySqlRequest

_IN_FILTER: Final = re.compile(r'metrics\."([^"]+)"')


def metrics_named(text: str) -> list[str]:
    """The metrics that a filter or an order names in quotes."""
    return _IN_FILTER.findall(text)


def print_unknown(connection: Connection, asked: Iterable[str], runs: Iterable[str] = ()) -> bool:
    """Say of each metric that no run has, of all of the project if `runs` is empty, which may be meant.

    Returns whether there was one.
    """
    hints = list(_hints(connection, asked, runs))
    for hint in hints:
        err.print(f"[dim]{escape(hint)}[/]", highlight=False, soft_wrap=True)
    return bool(hints)


def _hints(connection: Connection, asked: Iterable[str], runs: Iterable[str]) -> Iterator[str]:
    if not (wanted := list(asked)):
        return
    request = QuerySqlRequest(
        parent=connection.parent,
        query="SELECT key FROM metrics ORDER BY key",
        runs=runs,
        format=QuerySqlRequest.FORMAT_ROWS,
    )
    answer = connection.tracking.QuerySql(request)
    known = [row.values[0].string_value for part in answer for row in part.rows]
    for key in wanted:
        if key not in known:
            near = get_close_matches(key, known, 1)
            meant = f"did you mean {near[0]}?" if near else '`finemesh runs sql "FROM metrics"` lists those'
            yield f"no run has a metric {key}: {meant}"
