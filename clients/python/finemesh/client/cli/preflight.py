"""`finemesh dataset preflight`: what a fine-tune would be trained on, before anything is trained."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, err, options, out
from finemesh.client.cli.datasets import DatasetId, commands
from finemesh.client.cli.heatmap import LEGEND, PLAIN_LEGEND, heat_map, histogram_lines, printable
from finemesh.client.cli.output import (
    duration,
    enum_name,
    print_error_state,
    print_facts,
    print_link,
    styled,
    table,
    wait_with_progress,
)
from finemesh.client.cli.specs import Given, Overrides, SpecPath, as_seen_from_here, to_message
from finemesh.client.transfer import fetch_page
from finemesh.v1 import dataprep_service_pb2 as pb
from finemesh.v1 import preflight_pb2

Report = preflight_pb2.PreflightReport
Result = preflight_pb2.PreflightResult
_ENDED: Final = {Report.STATE_SUCCEEDED, Report.STATE_FAILED, Report.STATE_CANCELLED}
_MOST_ROWS: Final = 5  # of each table; the page has more


@commands("preflight")
def preflight(
    dataset: DatasetId,
    model: Annotated[
        str, typer.Option(help="Base model: a hub id, a folder, or s3://bucket/prefix, as for training.")
    ] = "",
    spec_file: SpecPath = None,
    overrides: Overrides = None,
    shown_rows: Annotated[int, typer.Option("--rows", help="Rows shown token by token.", min=0, max=50)] = 5,
    max_masked: Annotated[
        float, typer.Option(help="Fail above this share of rows that teach nothing, 0 to 1.", min=0, max=1)
    ] = 0.05,
    page: Annotated[Path | None, typer.Option("--html", help="Also write the report as a page here.")] = None,
) -> None:
    """Show what a model would be trained on: which tokens carry loss, what is cut, the longest batch.

    Exit code 1 if the training would refuse to start, image placeholders are not as many as image features,
    or too many rows teach nothing.
    """
    connection = options.connection()
    spec = to_message(Given(file=spec_file, model=model).said(overrides or []))
    name = connection.name("datasets", dataset)
    spec.dataset = spec.dataset or name
    as_seen_from_here(spec)
    report = connection.dataprep.PreflightDataset(
        pb.PreflightDatasetRequest(
            name=name,
            spec=spec,
            options=preflight_pb2.PreflightOptions(shown_rows=shown_rows, max_masked_fraction=max_masked),
            request_id=str(uuid.uuid4()),
        )
    )
    watch = pb.WatchPreflightReportRequest(name=report.name)
    report = wait_with_progress(
        "looking ahead",
        lambda: connection.dataprep.WatchPreflightReport(watch),
        lambda version: version.state in _ENDED,
    )
    if page and report.html_url:
        page.write_bytes(fetch_page(report.html_url))
    if not options.json:
        _print_report(report)
    if report.state != Report.STATE_SUCCEEDED or report.result.verdict == Result.VERDICT_FAILED:
        raise typer.Exit(EXIT_FAILED)


def _print_report(report: Report) -> None:
    result, model = report.result, report.result.model
    if report.state == Report.STATE_SUCCEEDED:
        kind = f"{model.model_type}, {model.task.lower()}, chat template {model.template}"
        limit = f"{result.max_tokens} tokens, then {result.over_length_policy}"
        print_facts(
            [
                ("report", report.name),
                ("verdict", styled(enum_name(result, "verdict"))),
                ("model", escape(f"{model.base_model} ({kind})")),
                ("rows", f"{limit}; {'packed' if result.packing else 'padded'}"),
                ("longest batch", escape(_batch(result.longest_batch))),
                ("took", duration(report.start_time, report.end_time)),
            ]
        )
        print_link("page", report.html_url)
        _print_tables(result)
        _print_rows(result)
    print_error_state(report.error)


def _batch(batch: preflight_pb2.LongestBatch) -> str:
    if not batch.tokens:
        return ""
    pictures = f", pictures {' x '.join(map(str, batch.pixel_shape))}" if batch.pixel_shape else ""
    return (
        f"{' x '.join(map(str, batch.input_shape))} = {batch.tokens} tokens, {batch.padding} of padding, "
        f"{batch.loss_tokens} with loss{pictures}; step {batch.step} of {batch.steps}; at worst "
        f"{batch.worst_tokens}"
    )


def _print_tables(result: Result) -> None:
    if result.problems:
        rows = [(enum_name(p, "severity"), p.reason, p.rows or "", _cell(p.message)) for p in result.problems]
        out.print(table(("severity", "reason", "rows", "what"), rows))
    columns = ("split", "rows", "kept", "truncated", "not used", "tokens", "with loss", "placeholders")
    out.print(table((*columns, "features"), [_split(split) for split in result.splits]))
    for title, rows in (
        ("rows without a token to learn from", result.all_masked),
        ("rows whose placeholders are not their features", result.mismatched),
        ("rows that are too long", result.over_length),
        ("longest rows", result.longest),
    ):
        _print_row_table(title, list(rows))
    out.print("rows by length", style="bold")
    out.print("\n".join(histogram_lines(result.histogram)), markup=False, highlight=False, soft_wrap=True)


def _split(split: preflight_pb2.PreflightSplit) -> tuple[object, ...]:
    return (
        split.split,
        split.rows,
        split.kept,
        split.truncated,
        split.quarantined + split.dropped + split.refused,
        split.tokens,
        f"{split.loss_tokens} ({split.loss_tokens / max(split.tokens, 1):.1%})",
        split.placeholders,
        split.features,
    )


def _print_row_table(title: str, rows: list[preflight_pb2.PreflightRow]) -> None:
    if not rows:
        return
    columns = (
        "row",
        "split",
        "outcome",
        "tokens",
        "with loss",
        "placeholders",
        "features",
        "beyond the limit",
    )
    shown = [
        (
            _cell(row.row_id),
            row.split,
            enum_name(row, "outcome").lower(),
            row.tokens,
            row.loss_tokens,
            row.placeholders,
            row.features,
            f"{row.cut_tokens}: {_cell(row.cut_text[:40])}" if row.cut_tokens else "",
        )
        for row in rows[:_MOST_ROWS]
    ]
    out.print(table(columns, shown, title=title))


def _cell(text: str) -> str:
    return escape(printable(text).replace("\n", "␊"))


def _print_rows(result: Result) -> None:
    colour = out.color_system is not None
    if result.shown:
        out.print(LEGEND if colour else PLAIN_LEGEND, markup=False, highlight=False)
    for row in result.shown:
        figures = row.figures
        turns = ", ".join(f"{turn.role} {turn.loss_tokens} of {turn.tokens}" for turn in row.turns)
        head = f"{printable(figures.row_id)}: {figures.loss_tokens} of {figures.tokens} tokens with loss"
        if figures.cut_tokens:
            head += f", {figures.cut_loss_tokens} of {figures.cut_tokens} beyond the limit"
        out.print()
        out.print(f"{head}; {turns}" if turns else head, style="bold", markup=False, highlight=False)
        out.print(heat_map(row, colour=colour), soft_wrap=True)
    if not result.shown and result.splits:
        err.print("[dim]no row is shown token by token[/]")
