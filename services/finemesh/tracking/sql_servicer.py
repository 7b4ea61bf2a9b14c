"""The RPC of `finemesh.v1.TrackingService` that answers SQL."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from google.protobuf.struct_pb2 import ListValue

from finemesh.chassis.auth import current_principal
from finemesh.core.names import parse_project
from finemesh.tracking import convert
from finemesh.tracking.sql_query import SqlPart, SqlQueries, SqlQuery
from finemesh.v1 import run_sql_pb2 as pb

Context = Any


class SqlServicer:
    """The part of `TrackingServicer` that answers SQL."""

    def __init__(self, queries: SqlQueries) -> None:
        self._queries = queries

    async def QuerySql(
        self, request: pb.QuerySqlRequest, context: Context
    ) -> AsyncGenerator[pb.QuerySqlResponse]:
        project = parse_project(request.parent)
        query = SqlQuery(
            text=request.query,
            runs=convert.names_from_proto(request.runs, request.parent, "runs"),
            keys=tuple(request.keys),
            max_rows=request.max_rows,
            as_rows=request.format == pb.QuerySqlRequest.FORMAT_ROWS,
        )
        async for part in self._queries.query(current_principal(), project, query):
            yield _to_proto(part)


def _to_proto(part: SqlPart) -> pb.QuerySqlResponse:
    response = pb.QuerySqlResponse(arrow=part.arrow)
    for name, kind in part.columns:
        response.columns.add(name=name, type=kind)
    for row in part.rows:
        values = ListValue()
        values.extend(row)
        response.rows.append(values)
    return response
