"""`finemesh runs artifacts`, `export` and `sync`: files of runs, from the mesh and to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, err, options, out
from finemesh.client.cli.output import choice, print_json, print_list, progress_bar, short
from finemesh.client.cli.paging import collect
from finemesh.client.cli.runs import commands
from finemesh.client.figures import size
from finemesh.client.recording import Recording, RecordingError, is_recording
from finemesh.client.sync import Report, sync
from finemesh.client.transfer import download_files
from finemesh.v1 import tracking_service_pb2 as pb
from finemesh.v1.dataset_pb2 import File

RunId = Annotated[str, typer.Argument(help="Id or full name of the run.")]
_FORMATS = {
    "csv": (pb.DownloadRunMetricsRequest.FORMAT_CSV, "{run}.csv"),
    "arrow": (pb.DownloadRunMetricsRequest.FORMAT_ARROW, "{run}.arrow"),
    "parquet": (pb.DownloadRunMetricsRequest.FORMAT_PARQUET, "{run}.parquet"),
    "tensorboard": (pb.DownloadRunMetricsRequest.FORMAT_TENSORBOARD, "{run}/events.out.tfevents.0.finemesh"),
}


@commands("artifacts")
def artifacts(
    run: RunId,
    download: Annotated[Path | None, typer.Option(help="Fetch them into this folder.")] = None,
    path: Annotated[str, typer.Option(help="Only what is at this path or below.")] = "",
) -> None:
    """List the files of a run, or fetch them; each is checked against its SHA-256."""
    connection = options.connection()
    request = pb.ListRunArtifactsRequest(parent=connection.name("runs", run))
    listed = collect(
        connection.tracking.ListRunArtifacts, request, lambda page: iter(page.artifacts), 1_000_000
    )
    prefix = path.rstrip("/")
    found = [each for each in listed if not prefix or f"{each.path}/".startswith(f"{prefix}/")]
    if download is None:
        print_list(
            found,
            ("path", "step", "size", "type", "sha256"),
            lambda each: (
                escape(each.path),
                each.step if each.HasField("step") else "",
                size(each.size_bytes),
                escape(each.media_type),
                each.sha256[:12],
            ),
            "no files; log some with Run.log_artifact",
        )
        return
    files = [
        File(path=each.path, size_bytes=each.size_bytes, sha256=each.sha256, url=each.url) for each in found
    ]
    done = 0
    with progress_bar("downloading", transfer_bytes=sum(file.size_bytes for file in files)) as update:

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            update(done, "")

        download_files(files, download, on_bytes)
    if options.json:
        print_json({"folder": str(download), "files": len(files)})
    else:
        out.print(f"{len(files)} files in {download}", highlight=False)


@commands("export")
def export(
    runs: Annotated[list[str], typer.Argument(help="Ids or full names of runs.")],
    file_format: Annotated[str, typer.Option("--format", help=" | ".join(_FORMATS))] = "csv",
    folder: Annotated[Path, typer.Option("--out", help="Folder that they go to.")] = Path(),
    *,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="Also points that a later attempt measured again.")
    ] = False,
) -> None:
    """Write all points of runs, none left out, as a file each. For TensorBoard, point it at the folder."""
    connection = options.connection()
    kind, pattern = choice(file_format, _FORMATS, "--format")
    written: list[Path] = []
    for run in runs:
        name = connection.name("runs", run)
        target = folder / pattern.format(run=short(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        request = pb.DownloadRunMetricsRequest(name=name, format=kind, all_attempts=all_attempts)
        try:
            with partial.open("wb") as stream:
                for body in connection.tracking.DownloadRunMetrics(request):
                    stream.write(body.data)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        written.append(target)
    if options.json:
        print_json({"files": [str(path) for path in written]})
    else:
        out.print("\n".join(str(path) for path in written), highlight=False, soft_wrap=True)


@commands("sync")
def sync_folders(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs, or a folder that holds some.")],
    *,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete each folder whose run has ended and is carried.")
    ] = False,
) -> None:
    """Carry runs that were recorded offline, or that a kill or an outage has left here, to the mesh.

    Doing it again changes nothing: what is there is recognised.
    """
    connection = options.connection()
    failed = False
    for folder in _recordings(folders):
        try:
            report = sync(connection, folder)
        except RecordingError as error:
            err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            failed = True
            continue
        _print_report(folder, report)
        failed |= bool(report.problems)
        if remove and report.ended and not report.problems:
            Recording(folder).remove()
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _recordings(folders: list[Path]) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        inside = sorted(each.parent for each in folder.glob("*/run.json"))
        if not is_recording(folder) and not inside:
            raise typer.BadParameter(f"{folder} holds no recorded run (no run.json)")
        found += [folder] if is_recording(folder) else inside
    return found


def _print_report(folder: Path, report: Report) -> None:
    if options.json:
        document: dict[str, Any] = {
            "folder": str(folder),
            "run": report.run,
            "points": report.points,
            "files": report.files,
            "ended": report.ended,
            "problems": list(report.problems),
        }
        print_json(document)
        return
    state = (
        ""
        if report.ended
        else "; it has not ended, or its program was killed: go on with Run(folder=...), or end it by"
        " `finemesh runs finish`"
    )
    out.print(
        f"{folder}: {report.points} points and {report.files} files to {report.run}{state}",
        highlight=False,
        soft_wrap=True,
    )
    for problem in report.problems:
        err.print(f"  [yellow]{escape(problem)}[/]", highlight=False, soft_wrap=True)
