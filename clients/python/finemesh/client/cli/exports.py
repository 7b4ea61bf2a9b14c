"""`finemesh export`: packages that are proven before they are released."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, Commands, err, options, out
from finemesh.client.cli.output import (
    choice,
    duration,
    enum_name,
    moment,
    print_error_state,
    print_facts,
    print_json,
    print_list,
    progress_bar,
    short,
    size,
    styled,
    wait_with_progress,
)
from finemesh.client.cli.paging import Filter, Limit, OrderBy, collect
from finemesh.client.transfer import download_files
from finemesh.v1 import export_pb2
from finemesh.v1 import export_service_pb2 as pb

commands = Commands("export", "Make, prove and fetch packages of trained models.")

Export = export_pb2.Export
_ENDED = {Export.STATE_SUCCEEDED, Export.STATE_REJECTED, Export.STATE_FAILED, Export.STATE_CANCELLED}

ExportId = Annotated[str, typer.Argument(help="Id or full name of the export.")]
_FORMATS = {"adapter": export_pb2.EXPORT_FORMAT_ADAPTER, "merged": export_pb2.EXPORT_FORMAT_MERGED}
_CHECKPOINTS = {"best": Export.CHECKPOINT_CHOICE_BEST, "last": Export.CHECKPOINT_CHOICE_LAST}


@commands("create")
def create(
    job: Annotated[str, typer.Argument(help="Id or full name of the training job.")],
    export_format: Annotated[str, typer.Option("--format", help=" | ".join(_FORMATS))] = "merged",
    checkpoint: Annotated[str, typer.Option(help=" | ".join(_CHECKPOINTS))] = "best",
    new_id: Annotated[str, typer.Option("--id", help="Id of the new export; made up if left out.")] = "",
    *,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end and show progress.")
    ] = True,
) -> None:
    """Package a trained model. It is loaded in a fresh process and compared with the trained one first."""
    connection = options.connection()
    export = connection.export.CreateExport(
        pb.CreateExportRequest(
            parent=connection.parent,
            export=Export(
                training_job=connection.name("trainingJobs", job),
                format=choice(export_format, _FORMATS, "--format"),
                checkpoint=choice(checkpoint, _CHECKPOINTS, "--checkpoint"),
            ),
            export_id=new_id,
            request_id=str(uuid.uuid4()),
        )
    )
    if wait:
        request = pb.WatchExportRequest(name=export.name)
        export = wait_with_progress(
            f"exporting {short(export.name)}",
            lambda: connection.export.WatchExport(request),
            lambda version: version.state in _ENDED,
        )
    if not (wait and options.json):
        _print_export(export)
    if export.state in _ENDED - {Export.STATE_SUCCEEDED}:
        raise typer.Exit(EXIT_FAILED)


@commands("list")
def list_exports(filter_by: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List the exports of the project, newest first."""
    connection = options.connection()
    request = pb.ListExportsRequest(parent=connection.parent, filter=filter_by, order_by=order_by)
    found = collect(connection.export.ListExports, request, lambda page: iter(page.exports), limit)
    print_list(
        found,
        ("id", "job", "format", "state", "step", "size", "created"),
        lambda export: (
            short(export.name),
            short(export.training_job),
            enum_name(export, "format"),
            styled(enum_name(export, "state")),
            export.step or "",
            size(export.size_bytes) if export.size_bytes else "",
            moment(export.create_time),
        ),
        "no exports; make one with `finemesh export create`",
    )


@commands("show")
def show(export: ExportId) -> None:
    """Show one export and how far it is from the trained model."""
    connection = options.connection()
    _print_export(connection.export.GetExport(pb.GetExportRequest(name=connection.name("exports", export))))


@commands("download")
def download(
    export: ExportId,
    target: Annotated[Path, typer.Argument(help="A folder, or a name that ends with .zip.")],
) -> None:
    """Fetch a released package through the gateway: its files, each checked, or all in one ZIP."""
    connection = options.connection()
    name = connection.name("exports", export)
    if target.suffix == ".zip":
        count = _download_zip(name, target)
        result: dict[str, Any] = {"file": str(target), "sizeBytes": str(count)}
        said = f"{size(count)} in {target}"
    else:
        count = _download_folder(name, target)
        result, said = {"folder": str(target), "files": count}, f"{count} files in {target}"
    if options.json:
        print_json(result)
    else:
        out.print(said, highlight=False)


def _download_zip(name: str, target: Path) -> int:
    connection = options.connection()
    total = connection.export.GetExport(pb.GetExportRequest(name=name)).size_bytes
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    done = 0
    try:
        with progress_bar("downloading", transfer_bytes=total) as update, partial.open("wb") as stream:
            for body in connection.export.DownloadExport(pb.DownloadExportRequest(name=name)):
                stream.write(body.data)
                done += len(body.data)
                update(done, "")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return done


def _download_folder(name: str, target: Path) -> int:
    connection = options.connection()
    request = pb.ListExportFilesRequest(parent=name)
    files = collect(connection.export.ListExportFiles, request, lambda page: iter(page.files), 1_000_000)
    done = 0
    with progress_bar("downloading", transfer_bytes=sum(file.size_bytes for file in files)) as update:

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            update(done, "")

        return len(download_files(files, target, on_bytes))


@commands("cancel")
def cancel(export: ExportId) -> None:
    """Stop an export."""
    connection = options.connection()
    _print_export(
        connection.export.CancelExport(pb.CancelExportRequest(name=connection.name("exports", export)))
    )


@commands("delete")
def delete(export: ExportId) -> None:
    """Delete an export that has ended, with its package."""
    connection = options.connection()
    connection.export.DeleteExport(pb.DeleteExportRequest(name=connection.name("exports", export)))


def _print_export(export: export_pb2.Export) -> None:
    if options.json:
        print_json(export)
        return
    parity = export.parity
    print_facts(
        [
            ("export", export.name),
            ("job", export.training_job),
            ("format", enum_name(export, "format")),
            ("state", styled(enum_name(export, "state"))),
            ("step", export.step or ""),
            ("size", size(export.size_bytes) if export.size_bytes else ""),
            (
                "parity",
                f"logits differ by at most {parity.max_logit_difference:.2g}, "
                f"allowed {parity.logit_tolerance:.2g}; tokens agree {parity.token_agreement:.1%}; "
                f"{parity.items} items in {escape(parity.runtime)}"
                if parity.items
                else "",
            ),
            ("manifest", export.manifest_sha256),
            ("took", duration(export.start_time, export.end_time)),
        ]
    )
    if export.state == Export.STATE_REJECTED:
        err.print("[red]rejected:[/] the package does not behave like the trained model; it was not released")
    print_error_state(export.error)
