"""`finemesh runs evaluations`, `items` and `log-items`: what models made of every item."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from finemesh.client.cli.context import options, out
from finemesh.client.cli.output import moment, print_json, print_json_line, print_list, short
from finemesh.client.cli.paging import Filter, Limit, OrderBy, collect
from finemesh.client.cli.runs import commands
from finemesh.client.connection import Connection
from finemesh.v1 import evaluation_service_pb2 as pb
from finemesh.v1.evaluation_pb2 import Evaluation, EvaluationItems, ItemMetric

_ABOUT = ("id", "digest", "group")


@commands("evaluations")
def evaluations(
    run: Annotated[str, typer.Argument(help="Id or full name of the run.")],
    filter_by: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 50,
) -> None:
    """List the evaluations of a run whose items are kept, the latest first."""
    connection = options.connection()
    request = pb.ListEvaluationsRequest(
        parent=connection.name("runs", run), filter=filter_by, order_by=order_by
    )
    print_list(
        collect(connection.evaluations.ListEvaluations, request, lambda page: iter(page.evaluations), limit),
        ("id", "split", "of", "step", "items", "metrics", "logged"),
        lambda each: (
            short(each.name),
            each.split,
            each.variant or "the model",
            each.step,
            each.item_count,
            ", ".join(each.metrics),
            moment(each.create_time),
        ),
        "no evaluations; the training loop logs them at validation and at the test",
    )


@commands("items")
def items(
    run: Annotated[str, typer.Argument(help="Id or full name of the run.")],
    evaluation: Annotated[str, typer.Argument(help="Id of the evaluation, e.g. test-s100-a1.")],
) -> None:
    """Print the items of an evaluation, a JSON line each: id, digest, group, and its metrics."""
    connection = options.connection()
    name = f"{connection.name('runs', run)}/evaluations/{evaluation}"
    connection.evaluations.GetEvaluation(pb.GetEvaluationRequest(name=name))
    for page in _pages(connection, name):
        for index, item in enumerate(page.ids):
            values = {metric.key: _finite(metric.values[index]) for metric in page.metrics}
            about = {"id": item}
            for key, column in (("digest", page.digests), ("group", page.groups)):
                about |= {key: column[index]} if column else {}
            print_json_line({**about, **values})


@commands("log-items")
def log_items(
    run: Annotated[str, typer.Argument(help="Id or full name of the run.")],
    path: Annotated[Path, typer.Argument(help="A JSON line per item: id, maybe digest and group, metrics.")],
    split: Annotated[str, typer.Option(help="Which items they are, e.g. test.")] = "test",
    step: Annotated[int, typer.Option(help="Steps that the model was trained for.")] = 0,
    dataset: Annotated[str, typer.Option(help="Where the items come from.")] = "",
    variant: Annotated[str, typer.Option(help="What was evaluated, if not the model of the run.")] = "",
) -> None:
    """Log what a model made of items, for runs of other programs. The same again changes nothing."""
    connection = options.connection()
    request = pb.LogEvaluationRequest(
        parent=connection.name("runs", run),
        evaluation=Evaluation(split=split, step=step, dataset=dataset, variant=variant),
        items=_read(path),
    )
    found = connection.evaluations.LogEvaluation(request)
    if options.json:
        print_json(found)
        return
    out.print(f"{short(found.name)}: {found.item_count} items, {', '.join(found.metrics)}", highlight=False)


def _pages(connection: Connection, name: str) -> Iterator[EvaluationItems]:
    token = ""
    while True:
        request = pb.ReadEvaluationRequest(name=name, page_token=token)
        response = connection.evaluations.ReadEvaluation(request)
        yield response.items
        token = response.next_page_token
        if not token:
            return


def _read(path: Path) -> EvaluationItems:
    """Items out of JSON lines. Raises typer.BadParameter naming the line."""
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "id": str(row["id"])})
        except (ValueError, TypeError, KeyError) as error:
            raise typer.BadParameter(
                f"{path}, line {number} is no JSON object with an id: {error}"
            ) from error
    keys = dict.fromkeys(
        key
        for row in rows
        for key, value in row.items()
        if key not in _ABOUT and isinstance(value, bool | int | float)
    )
    if not keys:
        example = '{"id": "q1", "accuracy": 1}'
        raise typer.BadParameter(f"{path} tells no metric: write numbers beside the ids, such as {example}")
    columns = {name: [str(row.get(name, "")) for row in rows] for name in _ABOUT}
    return EvaluationItems(
        ids=columns["id"],
        digests=columns["digest"] if any(columns["digest"]) else (),
        groups=columns["group"] if any(columns["group"]) else (),
        metrics=[ItemMetric(key=key, values=[_number(row.get(key)) for row in rows]) for key in keys],
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, bool | int | float) else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
