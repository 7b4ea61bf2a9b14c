"""`finemesh export`: packages that are proven before they are released."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from rich.markup import escape

from finemesh.client.archives import ARCHIVE_FORMATS, download_archive
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
from finemesh.client.cli.parity import print_parity
from finemesh.client.figures import size
from finemesh.client.transfer import OnBytes, download_files, partial_of
from finemesh.v1 import dataset_pb2, export_pb2
from finemesh.v1 import export_service_pb2 as pb

commands = Commands("export", "Make, prove and fetch packages of trained models.")

Export = export_pb2.Export
File = dataset_pb2.File
_ENDED = {Export.STATE_SUCCEEDED, Export.STATE_REJECTED, Export.STATE_FAILED, Export.STATE_CANCELLED}

ExportId = Annotated[str, typer.Argument(help="Id or full name of the export.")]
_FORMATS = choices_of(export_pb2.ExportFormat)
_NONE = "none"
_COMPRESSED: Final = {".gz", ".tgz", ".zst", ".bz2", ".xz", ".7z"}
_CHECKPOINTS = {"best": Export.CHECKPOINT_CHOICE_BEST, "last": Export.CHECKPOINT_CHOICE_LAST}


@commands("create")
def create(
    job: Annotated[str, typer.Argument(help="Id or full name of the training job, or of its run.")],
    export_formats: Annotated[
        list[str] | None, typer.Option("--format", help=f"{' | '.join(_FORMATS)}; may be repeated.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help=" | ".join(_CHECKPOINTS))] = "best",
    step: Annotated[int, typer.Option(help="The checkpoint of this step, in place of --checkpoint.")] = 0,
    new_id: Annotated[
        str, typer.Option("--id", help="Id of the new export, or what those of several begin with.")
    ] = "",
    expire_days: Annotated[float, typer.Option(help="Delete it after so many days; 0 for never.")] = 0,
    *,
    allow_drift: Annotated[
        bool,
        typer.Option("--allow-drift", help="Release it though it lies beyond its limits; its card says so."),
    ] = False,
    licence_override: Annotated[
        str, typer.Option(help="Why a licence without derivatives is no obstacle; for admins, recorded.")
    ] = "",
    pin: Annotated[bool, typer.Option("--pin", help="Keep it in spite of the project's retention.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end and show progress.")
    ] = True,
) -> None:
    """Package a trained model. It is loaded in a fresh process and compared with the trained one first.

    Several formats share the merge of the weights; each becomes an export of its own.
    """
    connection = options.connection()
    formats = [choice(each, _FORMATS, "--format") for each in export_formats or ["merged"]]
    asked = Export(
        training_job=connection.name("trainingJobs", job),
        checkpoint=Export.CHECKPOINT_CHOICE_STEP
        if step
        else choice(checkpoint, _CHECKPOINTS, "--checkpoint"),
        step=step,
        pinned=pin,
        allow_drift=allow_drift,
        licence_override=licence_override,
        expire_time=_in_days(expire_days),
    )
    ended = [_until_its_end(export) if wait else export for export in _ask(asked, formats, new_id)]
    if not (wait and options.json):
        for export in ended:
            _print_export(export)
    if any(export.state in _ENDED - {Export.STATE_SUCCEEDED} for export in ended):
        raise typer.Exit(EXIT_FAILED)


def _ask(asked: Export, formats: list[Any], new_id: str) -> list[Export]:
    connection = options.connection()
    request_id = str(uuid.uuid4())
    if len(formats) == 1:
        asked.format = formats[0]
        request = pb.CreateExportRequest(
            parent=connection.parent, export=asked, export_id=new_id, request_id=request_id
        )
        return [connection.export.CreateExport(request)]
    several = pb.BatchCreateExportsRequest(
        parent=connection.parent,
        export=asked,
        formats=formats,
        export_id_prefix=new_id,
        request_id=request_id,
    )
    return list(connection.export.BatchCreateExports(several).exports)


def _until_its_end(export: Export) -> Export:
    connection = options.connection()
    request = pb.WatchExportRequest(name=export.name)
    return wait_with_progress(
        f"exporting {short(export.name)}",
        lambda: connection.export.WatchExport(request),
        lambda version: version.state in _ENDED,
    )


def _in_days(days: float) -> datetime | None:
    return datetime.now(UTC) + timedelta(days=days) if days else None


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


@commands("watch")
def watch(export: ExportId) -> None:
    """Follow an export to its end. Exit code 1 if nothing is released."""
    connection = options.connection()
    ended = _until_its_end(Export(name=connection.name("exports", export)))
    if not options.json:
        _print_export(ended)
    if ended.state != Export.STATE_SUCCEEDED:
        raise typer.Exit(EXIT_FAILED)


@commands("download")
def download(
    export: ExportId,
    target: Annotated[Path, typer.Argument(help="A folder, or a name that ends with .zip or .tar.")],
    *,
    tar: Annotated[bool, typer.Option("--tar", help="A tar, whatever the name.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with what an earlier download has left.")
    ] = True,
) -> None:
    """Fetch a released package through the gateway, each file checked: as a folder, a ZIP or a tar."""
    if target.suffix in _COMPRESSED and not tar:
        raise typer.BadParameter(f"{target.name}: archives are .zip or .tar", param_hint="TARGET")
    name = options.connection().name("exports", export)
    if tar and target.suffix != ".tar":
        target = target.with_name(f"{target.name}.tar")
    if target.suffix in ARCHIVE_FORMATS:
        count = _download_archive(name, target, resume=resume)
        result: dict[str, Any] = {"file": str(target), "sizeBytes": str(count)}
        said = f"{size(count)} in {target}"
    else:
        count = download_folder(list_files(name), target, resume=resume)
        result, said = {"folder": str(target), "files": count}, f"{count} files in {target}"
    if options.json:
        print_json(result)
    else:
        out.print(said, highlight=False)


def _download_archive(name: str, target: Path, *, resume: bool) -> int:
    connection = options.connection()
    total = connection.export.GetExport(pb.GetExportRequest(name=name)).size_bytes
    with _counting(total) as on_bytes:
        return download_archive(connection, name, target, resume=resume, on_bytes=on_bytes)


def list_files(name: str) -> list[File]:
    """The files of a released package, with their URLs."""
    request = pb.ListExportFilesRequest(parent=name)
    stub = options.connection().export
    return collect(stub.ListExportFiles, request, lambda page: iter(page.files), 1_000_000)


def download_folder(files: Sequence[File], target: Path, *, resume: bool) -> int:
    if not resume:
        for file in files:
            partial_of(target / file.path, file.sha256).unlink(missing_ok=True)
    with _counting(sum(file.size_bytes for file in files)) as on_bytes:
        return len(download_files(files, target, on_bytes))


@contextmanager
def _counting(total: int) -> Generator[OnBytes]:
    """A progress bar that is told of bytes as they come."""
    done = 0
    with progress_bar("downloading", transfer_bytes=total) as update:

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            update(done, "")

        yield on_bytes


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


@commands("update")
def update_export(
    export: ExportId,
    display_name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    expire_days: Annotated[
        float | None, typer.Option(help="Delete it so many days from now; 0 for never.")
    ] = None,
    pin: Annotated[
        bool | None, typer.Option("--pin/--unpin", help="Keep it in spite of the project's retention.")
    ] = None,
) -> None:
    """Change what is said of an export; what is not given stays as it is."""
    connection = options.connection()
    given = {"display_name": display_name, "expire_time": expire_days, "pinned": pin}
    message = Export(
        name=connection.name("exports", export),
        display_name=display_name or "",
        expire_time=_in_days(expire_days or 0),
        pinned=bool(pin),
    )
    mask = FieldMask(paths=[name for name, value in given.items() if value is not None])
    if not mask.paths:
        raise typer.BadParameter("give at least one of --display-name, --expire-days, --pin, --unpin")
    _print_export(connection.export.UpdateExport(pb.UpdateExportRequest(export=message, update_mask=mask)))


@commands("retention")
def retention(
    keep_last: Annotated[
        str, typer.Option(help="Of each job and format so many released ones stay, or none for all.")
    ] = "",
    max_days: Annotated[str, typer.Option(help="What ended longer ago is deleted, or none for never.")] = "",
) -> None:
    """Show for how long the project keeps its exports, or change it; what is not given stays as it is."""
    connection = options.connection()
    setting = connection.export.GetExportRetention(
        pb.GetExportRetentionRequest(name=f"{connection.parent}/exportRetention")
    )
    if keep_last:
        setting.ClearField("keep_last")
        if keep_last != _NONE:
            setting.keep_last = int(_number(keep_last, "--keep-last"))
    if max_days:
        setting.ClearField("max_age")
        if max_days != _NONE:
            setting.max_age.FromTimedelta(timedelta(days=_number(max_days, "--max-days")))
    if keep_last or max_days:
        request = pb.UpdateExportRetentionRequest(export_retention=setting)
        setting = connection.export.UpdateExportRetention(request)
    if options.json:
        print_json(setting)
        return
    days = setting.max_age.ToTimedelta() / timedelta(days=1)
    print_facts(
        [
            ("retention", setting.name),
            ("keep last", setting.keep_last if setting.HasField("keep_last") else "all"),
            ("max days", f"{days:g}" if setting.HasField("max_age") else _NONE),
        ]
    )


def _number(given: str, option: str) -> float:
    try:
        return float(given)
    except ValueError:
        raise typer.BadParameter(
            f"{given!r} is not a number: write one, or {_NONE}", param_hint=option
        ) from None


def _print_export(export: export_pb2.Export) -> None:
    if options.json:
        print_json(export)
        return
    overridden = f"by {export.licence_override_subject}: {export.licence_override}"
    print_facts(
        [
            ("export", export.name),
            ("job", export.training_job),
            ("format", enum_name(export, "format")),
            ("state", styled(enum_name(export, "state"))),
            ("step", export.step or ""),
            ("size", size(export.size_bytes) if export.size_bytes else ""),
            ("manifest", export.manifest_sha256),
            ("made by", export.made_by),
            ("group", export.group),
            ("expires", "never: pinned" if export.pinned else moment(export.expire_time)),
            ("downloads", export.download_count or ""),
            ("licence", escape(overridden) if export.licence_override else ""),
            ("took", duration(export.start_time, export.end_time)),
        ]
    )
    print_parity(export.parity)
    if export.state == Export.STATE_SUCCEEDED and not export.parity.passed:
        err.print("[yellow]released though it lies beyond its limits,[/] as --allow-drift asked for")
    if export.state == Export.STATE_REJECTED:
        err.print("[red]rejected:[/] the package does not behave like the trained model; it was not released")
    print_error_state(export.error)
