"""`finemesh dataset validate`: what is wrong with a dataset, and what to do about it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, options, out
from finemesh.client.cli.datasets import DatasetId, commands
from finemesh.client.cli.heatmap import printable
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
from finemesh.client.transfer import fetch_page
from finemesh.v1 import dataprep_service_pb2 as pb
from finemesh.v1 import validation_report_pb2

Report = validation_report_pb2.ValidationReport
_ENDED: Final = {Report.STATE_SUCCEEDED, Report.STATE_FAILED, Report.STATE_CANCELLED}
_MOST_FINDINGS: Final = 20  # in the terminal; the page has more


@commands("validate")
def validate(
    dataset: DatasetId,
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also read every picture to its end, and compare them.")
    ] = False,
    min_rows: Annotated[int | None, typer.Option(help="Warn of fewer rows; 10.", min=0)] = None,
    min_class_examples: Annotated[
        int | None, typer.Option(help="Warn of a class with fewer objects; 10.", min=0)
    ] = None,
    max_imbalance: Annotated[float | None, typer.Option(help="Largest class to smallest; 10.", min=1)] = None,
    min_tail_share: Annotated[
        float | None,
        typer.Option(
            help="Least share of the objects that the rarer half of the classes has; 0.1.", min=0, max=1
        ),
    ] = None,
    max_image_pixels: Annotated[
        int | None, typer.Option(help="Pixels of one picture; 64 million.", min=1)
    ] = None,
    max_aspect_ratio: Annotated[
        float | None, typer.Option(help="Longer to shorter side of a picture; 8.", min=1)
    ] = None,
    min_box_iou: Annotated[
        float | None, typer.Option(help="Overlap of a box with the box of its mask; 0.5.", min=0, max=1)
    ] = None,
    max_box_overhang: Annotated[
        float | None, typer.Option(help="Pixels by which a box may reach out of its picture; 1.", min=0)
    ] = None,
    max_similar_bits: Annotated[
        int | None,
        typer.Option(
            help="With --strict: of 64 bits, so many may differ in pictures that look alike; 4.",
            min=0,
            max=16,
        ),
    ] = None,
    max_leakage: Annotated[
        float | None, typer.Option(help="Share of val and test that may be in train too; 0.", min=0, max=1)
    ] = None,
    max_quarantined: Annotated[
        float | None, typer.Option(help="Share of the inputs that may be quarantined; 0.1.", min=0, max=1)
    ] = None,
    max_examples: Annotated[
        int | None, typer.Option(help="Rows named for each kind of finding; 20.", min=0)
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="Measure texts with it: a folder, or a model's name, as the cluster sees it.")
    ] = "",
    max_tokens: Annotated[
        int, typer.Option(help="With --tokenizer: tokens above which a row would be cut.", min=0)
    ] = 0,
    page: Annotated[Path | None, typer.Option("--html", help="Also write the report as a page here.")] = None,
) -> None:
    """Check a dataset and print what was found. Exit code 1 if it does not pass."""
    thresholds = validation_report_pb2.ValidationThresholds(
        min_rows=min_rows,
        min_class_examples=min_class_examples,
        max_imbalance=max_imbalance,
        min_tail_share=min_tail_share,
        max_image_pixels=max_image_pixels,
        max_aspect_ratio=max_aspect_ratio,
        min_box_iou=min_box_iou,
        max_box_overhang_pixels=max_box_overhang,
        max_similar_bits=max_similar_bits,
        max_leakage=max_leakage,
        max_quarantined_fraction=max_quarantined,
        max_examples=max_examples,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
    )
    report = _run(dataset, thresholds, strict=strict)
    if page and report.html_url:
        page.write_bytes(fetch_page(report.html_url))
    if not options.json:
        _print_report(report)
    if report.state != Report.STATE_SUCCEEDED or report.verdict == Report.VERDICT_FAILED:
        raise typer.Exit(EXIT_FAILED)


def _run(dataset: str, thresholds: validation_report_pb2.ValidationThresholds, *, strict: bool) -> Report:
    """Ask for the report, and wait for its end."""
    connection = options.connection()
    report = connection.dataprep.ValidateDataset(
        pb.ValidateDatasetRequest(
            name=connection.name("datasets", dataset),
            level=validation_report_pb2.VALIDATION_LEVEL_STRICT
            if strict
            else validation_report_pb2.VALIDATION_LEVEL_BASIC,
            thresholds=thresholds,
            request_id=str(uuid.uuid4()),
        )
    )
    watch = pb.WatchValidationReportRequest(name=report.name)
    return wait_with_progress(
        "validating",
        lambda: connection.dataprep.WatchValidationReport(watch),
        lambda version: version.state in _ENDED,
    )


def _print_report(report: Report) -> None:
    facts: list[tuple[str, Any]] = [
        ("report", report.name),
        ("verdict", styled(enum_name(report, "verdict"))),
        ("rows", report.row_count),
        *_measured(report.measures),
        ("findings", ", ".join(f"{kind} {count}" for kind, count in sorted(report.finding_counts.items()))),
        ("took", duration(report.start_time, report.end_time)),
    ]
    print_facts(facts if report.state == Report.STATE_SUCCEEDED else facts[:1])
    print_link("page", report.html_url)
    if report.findings:
        rows = [
            (enum_name(f, "severity"), f.id, *map(_shown, (f.row_id, f.field, f.evidence, f.remedy)))
            for f in report.findings[:_MOST_FINDINGS]
        ]
        out.print(table(("severity", "finding", "row", "field", "evidence", "remedy"), rows))
    print_error_state(report.error)


def _shown(text: str) -> str:
    """Text out of the dataset, which neither colours the terminal nor commands it."""
    return escape(printable(text))


def _measured(measures: validation_report_pb2.ValidationMeasures) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = []
    if measures.picture_count:
        facts.append(("pictures", f"{measures.picture_count} with {measures.object_count} objects"))
    if measures.HasField("similar_pair_count"):
        facts.append(("look alike", f"{measures.similar_pair_count} pairs of pictures"))
    if measures.HasField("leakage_shares"):
        shares = measures.leakage_shares
        words = f"{shares.by_video:.1%} by video, {shares.by_image:.1%} by picture"
        similar = f", {shares.by_similar:.1%} by similar pictures" if shares.HasField("by_similar") else ""
        facts.append(("leakage", words + similar))
    if measures.HasField("tokens"):
        tokens = measures.tokens
        cut = f"; {tokens.cut_row_count} rows would be cut" if tokens.max_tokens else ""
        facts.append(("tokens", f"{tokens.median} in the median, {tokens.longest} in the longest row{cut}"))
    return facts
