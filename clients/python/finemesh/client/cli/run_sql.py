"""`finemesh runs sql`: SQL over the runs of the project."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict
from rich.markup import escape

from finemesh.client.cli.context import err, options, out
from finemesh.client.cli.output import choice, print_text, table
from finemesh.client.cli.runs import commands
from finemesh.v1 import run_sql_pb2 as pb

_FORMATS: Final = {each: each for each in ("table", "csv", "json", "arrow")}
# As text in a cell: what a number of this many digits means is seen, and a table stays narrow.
_DIGITS: Final = 7


@commands("sql")
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the views; - reads it from stdin.")],
    form: Annotated[str, typer.Option("--format", help=" | ".join(_FORMATS))] = "table",
    output: Annotated[Path | None, typer.Option(help="File to write to; needed for arrow.")] = None,
    run: Annotated[list[str] | None, typer.Option(help="Only of this run; repeat for more.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="Only points of this metric; repeat for more.")
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="More rows are refused.")] = 10_000,
) -> None:
    """Answer a query of SQL over what runs measured: `SHOW TABLES` lists the views."""
    form = "json" if options.json else choice(form, _FORMATS, "--format")
    if form == "arrow" and output is None:
        raise typer.BadParameter("an Arrow stream is no text: name a file by --output", param_hint="--format")
    connection = options.connection()
    request = pb.QuerySqlRequest(
        parent=connection.parent,
        query=sys.stdin.read() if query == "-" else query,
        format=pb.QuerySqlRequest.FORMAT_ARROW if form == "arrow" else pb.QuerySqlRequest.FORMAT_ROWS,
        max_rows=max_rows,
        runs=[connection.name("runs", each) for each in run or ()],
        keys=key or (),
    )
    parts: Iterator[pb.QuerySqlResponse] = connection.tracking.QuerySql(request)
    if form == "arrow":
        assert output is not None
        _save(output, (part.arrow for part in parts))
        return
    columns, rows = _gathered(parts)
    if form == "table" and output is None:
        out.print(table(columns, ([_cell(value) for value in row] for row in rows)))
        return
    text = _as_json(columns, rows) if form == "json" else _as_csv(columns, rows)
    if output is None:
        print_text(text)
    else:
        _save(output, [text.encode()])


def _gathered(parts: Iterator[pb.QuerySqlResponse]) -> tuple[list[str], list[list[Any]]]:
    columns: list[str] = []
    rows: list[list[Any]] = []
    for part in parts:
        columns += [column.name for column in part.columns]
        rows += [[_plain(value) for value in MessageToDict(row)] for row in part.rows]
    return columns, rows


def _plain(value: Any) -> Any:
    """Numbers of the contract are doubles: those that are whole were integers, or might as well be."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _cell(value: Any) -> str:
    if value is None:
        return "[dim]NULL[/]"
    return escape(f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value))


def _as_json(columns: list[str], rows: list[list[Any]]) -> str:
    if len(set(columns)) < len(columns):
        raise typer.BadParameter(
            f"two of the columns {', '.join(columns)} have one name: tell them apart by AS"
        )
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    return json.dumps(objects, indent=2, ensure_ascii=False) + "\n"


def _as_csv(columns: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def _save(path: Path, parts: Any) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
    err.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)
