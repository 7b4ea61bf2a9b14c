"""`finemesh dataset`: import, look at, validate, split, convert and fetch datasets."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, Commands, err, options, out
from finemesh.client.cli.output import (
    choice,
    choices_of,
    duration,
    enum_name,
    moment,
    print_error_state,
    print_facts,
    print_json,
    print_list,
    progress_bar,
    short,
    styled,
    wait_with_progress,
)
from finemesh.client.cli.paging import Filter, Limit, OrderBy, collect
from finemesh.client.cli.sources import check_source, origin_of, parse_columns, title_of
from finemesh.client.cli.splits import (
    choose_strategy,
    class_table,
    leakage_text,
    parse_ratios,
    read_assignments,
)
from finemesh.client.figures import size
from finemesh.client.transfer import download_files
from finemesh.v1 import dataprep_service_pb2 as pb
from finemesh.v1 import dataset_pb2, ledger_pb2

commands = Commands("dataset", "Import annotations; look at, validate, split, convert and fetch datasets.")

Dataset = dataset_pb2.Dataset
_ENDED = {Dataset.STATE_SUCCEEDED, Dataset.STATE_FAILED, Dataset.STATE_CANCELLED}

DatasetId = Annotated[str, typer.Argument(help="Id or full name of the dataset.")]
NewId = Annotated[str, typer.Option("--id", help="Id of the new dataset; made up if left out.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end and show progress.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]

_FORMATS = choices_of(dataset_pb2.AnnotationFormat, "auto")
_TARGETS = choices_of(dataset_pb2.DatasetFormat)
_INSTRUCTIONS = choices_of(dataset_pb2.InstructionTask, "none")
_STRATEGIES = choices_of(dataset_pb2.SplitStrategy, "auto")
_Disposition = ledger_pb2.LedgerEntry.Disposition
_DISPOSITIONS = choices_of(_Disposition)
_BOXES = choices_of(dataset_pb2.BoxConvention)
_MASKS = choices_of(dataset_pb2.MaskForm)


@commands("import")
def import_dataset(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a ZIP, a tar, or a JSON, JSON Lines, CSV, Parquet, XML or text file; tar and"
            " texts also as .gz or .zst. Or s3://bucket/prefix, where the operator allows it.",
            callback=check_source,
        ),
    ],
    new_id: NewId = "",
    source_format: Annotated[str, typer.Option("--format", help=" | ".join(_FORMATS))] = "auto",
    max_quarantined: Annotated[
        float, typer.Option(help="Fail if a larger share of the rows is faulty, 0 to 1.", min=0, max=1)
    ] = 0.5,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="What stands in which column of a table: role=column, e.g. prompt=question; repeatable."
        ),
    ] = None,
    seed: Seed = 0,
    *,
    wait: Wait = True,
) -> None:
    """Upload annotations and compile them into a dataset. Faulty rows are set aside, each with its reason."""
    annotation_format = choice(source_format, _FORMATS, "--format")
    roles = parse_columns(columns or ())
    origin = origin_of(options.connection(), source)
    origin.MergeFrom(
        dataset_pb2.ImportOrigin(
            format=annotation_format, max_quarantined_fraction=max_quarantined, seed=seed, columns=roles
        )
    )
    _create(Dataset(display_name=title_of(source), imported_from=origin), new_id, "importing", wait=wait)


@commands("split")
def split(
    dataset: DatasetId,
    new_id: NewId = "",
    strategy: Annotated[str, typer.Option(help=" | ".join(_STRATEGIES))] = "auto",
    ratios: Annotated[str, typer.Option(help="Shares of train, val and test.")] = "0.6,0.1,0.3",
    group_by: Annotated[
        str,
        typer.Option(
            help="Keep rows with the same value together: video_id | class_name | source.file | folder | a"
            " key of the row's attributes."
        ),
    ] = "",
    assign: Annotated[
        Path | None,
        typer.Option(
            help="CSV (name,split) or JSON: the split of each row id, picture, video or source file; the name"
            " * is all others.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    max_similar_bits: Annotated[
        int,
        typer.Option(
            help="Pictures whose perceptual hashes differ in at most so many of 64 bits stay together; -1"
            " looks at identical ones alone.",
            min=-1,
            max=16,
        ),
    ] = 4,
    gap_frames: Annotated[int, typer.Option(help="Frames left unused between temporal splits.", min=0)] = 5,
    seed: Seed = 0,
    *,
    wait: Wait = True,
) -> None:
    """Divide a dataset into train, val and test so that no video and no picture is on two sides."""
    train, validation, test = parse_ratios(ratios)
    origin = dataset_pb2.SplitOrigin(
        dataset=options.connection().name("datasets", dataset),
        strategy=choose_strategy(strategy, _STRATEGIES, group_by, assign),
        group_key=group_by,
        assignments=read_assignments(assign) if assign else None,
        max_similar_bits=max_similar_bits,
        train_ratio=train,
        validation_ratio=validation,
        test_ratio=test,
        gap_frames=gap_frames,
        seed=seed,
    )
    _create(
        Dataset(display_name=f"{short(dataset)}, split", split_from=origin), new_id, "splitting", wait=wait
    )


@commands("convert")
def convert(
    dataset: DatasetId,
    new_id: NewId = "",
    target: Annotated[str, typer.Option("--to", help=" | ".join(_TARGETS))] = "canonical",
    instruction: Annotated[str, typer.Option(help=" | ".join(_INSTRUCTIONS))] = "none",
    image_size: Annotated[
        int,
        typer.Option(help="Pixels: side of a crop (0 is 112), limit of a whole picture (0 is none).", min=0),
    ] = 0,
    boxes: Annotated[str, typer.Option(help="How boxes are written: " + " | ".join(_BOXES))] = "unit",
    question: Annotated[
        list[str] | None, typer.Option(help="Template of a question, e.g. 'Is there a {class}?'; repeatable.")
    ] = None,
    answer: Annotated[list[str] | None, typer.Option(help="Template of an answer; repeatable.")] = None,
    max_items: Annotated[int, typer.Option(help="At most so many questions; 0 is no limit.", min=0)] = 0,
    max_turns: Annotated[
        int, typer.Option(help="Questions about a whole picture in one conversation.", min=1, max=64)
    ] = 1,
    template: Annotated[
        Path | None, typer.Option(help="Jinja file, for --to template.", exists=True, dir_okay=False)
    ] = None,
    masks: Annotated[str, typer.Option(help="Masks in COCO form: " + " | ".join(_MASKS))] = "as-source",
    min_mask_iou: Annotated[
        float, typer.Option(help="Least overlap of a mask with what it comes back as.", min=0, max=1)
    ] = 0.95,
    seed: Seed = 0,
    *,
    prove: Annotated[bool, typer.Option(help="Read masks back, draw them again and compare.")] = True,
    wait: Wait = True,
) -> None:
    """Bring a dataset into another form; `--instruction` makes questions and answers from the annotations."""
    origin = dataset_pb2.ConvertOrigin(
        dataset=options.connection().name("datasets", dataset),
        format=choice(target, _TARGETS, "--to"),
        instruction=choice(instruction, _INSTRUCTIONS, "--instruction"),
        image_size_pixels=image_size,
        box_convention=choice(boxes, _BOXES, "--boxes"),
        questions=question or (),
        answers=answer or (),
        max_items=max_items,
        max_turns=max_turns,
        template=template.read_text(encoding="utf-8") if template else "",
        mask_form=choice(masks, _MASKS, "--masks"),
        prove_masks=prove,
        min_mask_iou=min_mask_iou,
        seed=seed,
    )
    _create(
        Dataset(display_name=f"{short(dataset)} as {target}", converted_from=origin),
        new_id,
        "converting",
        wait=wait,
    )


@commands("list")
def list_datasets(filter_by: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List the datasets of the project, newest first."""
    connection = options.connection()
    request = pb.ListDatasetsRequest(parent=connection.parent, filter=filter_by, order_by=order_by)
    found = collect(connection.dataprep.ListDatasets, request, lambda page: iter(page.datasets), limit)
    print_list(
        found,
        ("id", "name", "format", "state", "rows", "quarantined", "size", "created"),
        lambda d: (
            short(d.name),
            escape(d.display_name),
            enum_name(d, "format"),
            styled(enum_name(d, "state")),
            d.summary.row_count,
            d.summary.ledger.quarantined,
            size(d.summary.size_bytes),
            moment(d.create_time),
        ),
        "no datasets; make one with `finemesh dataset import`",
    )


@commands("show")
def show(dataset: DatasetId) -> None:
    """Show one dataset: its rows, splits, classes, ledger and warnings."""
    connection = options.connection()
    _print_dataset(
        connection.dataprep.GetDataset(pb.GetDatasetRequest(name=connection.name("datasets", dataset)))
    )


@commands("ledger")
def ledger(
    dataset: DatasetId,
    disposition: Annotated[str, typer.Option(help=" | ".join(_DISPOSITIONS))] = "",
    reason: Annotated[str, typer.Option(help="Rows that this befell, e.g. IMAGE_MISSING.")] = "",
    filter_by: Filter = "",
    limit: Limit = 50,
) -> None:
    """Show what became of each input row, e.g. with --disposition quarantined."""
    asked = [f"({filter_by})"] if filter_by else []
    if disposition:
        number = choice(disposition, _DISPOSITIONS, "--disposition")
        asked.append(f'disposition = "{_Disposition.Name(number).removeprefix("DISPOSITION_")}"')
    if reason:
        asked.append(f"reason = {json.dumps(reason)}")
    connection = options.connection()
    request = pb.ListLedgerEntriesRequest(
        parent=connection.name("datasets", dataset), filter=" AND ".join(asked)
    )
    found = collect(
        connection.dataprep.ListLedgerEntries, request, lambda page: iter(page.ledger_entries), limit
    )

    def row(entry: ledger_pb2.LedgerEntry) -> tuple[object, ...]:
        outcome = enum_name(entry, "disposition")
        return entry.row_id, outcome, entry.reason, entry.field, escape(entry.message), len(entry.children)

    print_list(found, ("row", "disposition", "reason", "field", "message", "children"), row, "no such rows")


@commands("download")
def download(
    dataset: DatasetId,
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if it is not there.")],
) -> None:
    """Fetch all files of a dataset and check their digests."""
    connection = options.connection()
    request = pb.ListDatasetFilesRequest(parent=connection.name("datasets", dataset))
    files = collect(connection.dataprep.ListDatasetFiles, request, lambda page: iter(page.files), 1_000_000)
    done = 0
    with progress_bar("downloading", transfer_bytes=sum(file.size_bytes for file in files)) as update:

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            update(done, "")

        paths = download_files(files, folder, on_bytes)
    if options.json:
        print_json({"folder": str(folder), "files": [str(path) for path in paths]})
    else:
        out.print(f"{len(paths)} files in {folder}", highlight=False)


@commands("cancel")
def cancel(dataset: DatasetId) -> None:
    """Stop the making of a dataset."""
    connection = options.connection()
    request = pb.CancelDatasetRequest(name=connection.name("datasets", dataset))
    _print_dataset(connection.dataprep.CancelDataset(request))


@commands("delete")
def delete(dataset: DatasetId) -> None:
    """Delete a dataset with its files and reports."""
    connection = options.connection()
    connection.dataprep.DeleteDataset(pb.DeleteDatasetRequest(name=connection.name("datasets", dataset)))


def _create(dataset: dataset_pb2.Dataset, new_id: str, doing: str, *, wait: bool) -> None:
    connection = options.connection()
    made = connection.dataprep.CreateDataset(
        pb.CreateDatasetRequest(
            parent=connection.parent, dataset=dataset, dataset_id=new_id, request_id=str(uuid.uuid4())
        )
    )
    if wait:
        made = wait_with_progress(
            f"{doing} {short(made.name)}",
            lambda: connection.dataprep.WatchDataset(pb.WatchDatasetRequest(name=made.name)),
            lambda version: version.state in _ENDED,
        )
    if not (wait and options.json):
        _print_dataset(made)
    if made.state in _ENDED - {Dataset.STATE_SUCCEEDED}:
        raise typer.Exit(EXIT_FAILED)


def _print_dataset(dataset: dataset_pb2.Dataset) -> None:
    if options.json:
        print_json(dataset)
        return
    summary, ledger_sum = dataset.summary, dataset.summary.ledger
    done = dataset.state == Dataset.STATE_SUCCEEDED
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(ledger_sum.by_reason.items()))
    print_facts(
        [
            ("dataset", dataset.name),
            ("state", styled(enum_name(dataset, "state"))),
            ("format", enum_name(dataset, "format")),
            ("rows", summary.row_count if done else ""),
            ("splits", ", ".join(f"{each.split or 'none'} {each.rows}" for each in summary.splits)),
            ("videos", summary.video_count or ""),
            ("media", ", ".join(summary.media)),
            ("leakage", leakage_text(summary)),
            ("masks", _proof_text(summary)),
            (
                "ledger",
                f"{ledger_sum.inputs} in = {ledger_sum.kept} kept + {ledger_sum.quarantined} quarantined"
                f" + {ledger_sum.dropped} dropped{f' ({reasons})' if reasons else ''}"
                if done
                else "",
            ),
            ("size", size(summary.size_bytes) if done else ""),
            ("digest", summary.digest),
            ("took", duration(dataset.start_time, dataset.end_time)),
        ]
    )
    if (classes := class_table(summary.class_splits)) is not None:
        out.print(classes)
    for warning in summary.warnings:
        err.print(f"[yellow]note:[/] {escape(warning)}", highlight=False, soft_wrap=True)
    print_error_state(dataset.error)


def _proof_text(summary: dataset_pb2.DatasetSummary) -> str:
    """What the proof of the masks came to; empty without one."""
    proof = summary.mask_proof
    if not summary.HasField("mask_proof") or not proof.masks:
        return ""
    return (
        f"{proof.masks} read back and compared: overlap {proof.mean_iou:.4f} on average,"
        f" {proof.min_iou:.4f} at least, {proof.below_floor} not shipped;"
        f" took {proof.cpu_seconds:.1f} s of CPU"
    )
