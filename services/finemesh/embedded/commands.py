"""`finemesh up` and `finemesh doctor`, which join the command line by the group `finemesh.commands`.

Every command of `finemesh` loads this module, so each one here imports what it needs when it runs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from finemesh.client.cli.context import err as _err
from finemesh.client.cli.context import out as _out
from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.embedded.state import DEFAULT_DATA_DIR

if TYPE_CHECKING:
    from finemesh.embedded.doctor import Finding

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

_MARKS: Final = {
    "ok": "[green]ok[/]",
    "warning": "[yellow]warning[/]",
    "failure": "[red]failure[/]",
}

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder of everything the mesh keeps.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON in place of tables; `up` prints a line each.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("up")(up)
    app.command("doctor")(doctor)
    app.command("demo")(demo)
    kept = "Look after what Tracking keeps. For how long: `finemesh up --points-retention-days`."
    tracking = typer.Typer(no_args_is_help=True, help=kept)
    tracking.command("rebuild")(rebuild)
    app.add_typer(tracking, name="tracking")


def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: Annotated[str, typer.Option(help="Address that the gateway listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the gateway. 0: as last time, or any.")] = 0,
    public_host: Annotated[str, typer.Option(help="Name by which clients reach the gateway.")] = "",
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file of the certificate chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    jwt_key_file: Annotated[Path | None, typer.Option(help="Signing key of your own, base64url.")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs that Ray may use. Default: all.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs that Ray may use. Default: all.")] = None,
    warm_workers: Annotated[
        int,
        typer.Option(min=0, help="Workers that wait with their imports done: a training starts at once."),
    ] = 0,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    signing_key_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Ed25519 key (PEM) that signs every package."),
    ] = None,
    gpu_hour_price: Annotated[
        float, typer.Option(min=0, help="What a GPU costs for an hour, for estimates. 0: show hours alone.")
    ] = 0.0,
    points_retention_days: Annotated[
        float,
        typer.Option(
            min=0, max=36500, help="Remove metric points of runs that ended so long ago. 0: keep all."
        ),
    ] = 0.0,
    import_source: Annotated[
        list[str] | None,
        typer.Option(help="What of its object store may be imported: bucket or bucket/prefix; repeatable."),
    ] = None,
    services: Annotated[
        bool,
        typer.Option("--services/--no-services", help="Without: the servers alone, to run services by hand."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Start the mesh on this machine and keep it running until Ctrl-C.

    Exit codes: 0 stopped on request; 1 refused or failed; 2 wrong arguments; 130 interrupted while starting.
    """
    from finemesh.embedded.config import MeshConfig
    from finemesh.embedded.serving import JsonView, View, serve
    from finemesh.gateway import Tls

    if (tls_certificate is None) != (tls_key is None):
        raise typer.BadParameter("--tls-certificate and --tls-key go together")
    config = MeshConfig(
        data_dir=data_dir,
        host=host,
        port=port,
        public_host=public_host,
        tls=Tls(tls_certificate, tls_key) if tls_certificate and tls_key else None,
        jwt_key_file=jwt_key_file,
        cpus=cpus,
        gpus=gpus,
        warm_workers=warm_workers,
        log_level=log_level,
        services=services,
        environment=_told_on(import_source, signing_key_file, gpu_hour_price, points_retention_days),
    )
    view = JsonView() if as_json else View()
    try:
        code = asyncio.run(serve(config, view))
    except FinemeshError as error:
        view.failed(error)
        code = EXIT_USAGE if isinstance(error, InvalidError) else EXIT_FAILED
    sys.exit(code)


def _told_on(
    import_source: list[str] | None,
    signing_key_file: Path | None,
    gpu_hour_price: float,
    points_retention_days: float,
) -> dict[str, str]:
    """What services and agent are told of the options that are theirs alone."""
    told = {
        "FINEMESH_IMPORT_SOURCES": ",".join(import_source or ()),
        "FINEMESH_SIGNING_KEY_FILE": str(signing_key_file.resolve()) if signing_key_file else "",
        "FINEMESH_GPU_HOUR_PRICE": str(gpu_hour_price) if gpu_hour_price else "",
        "FINEMESH_POINTS_RETENTION_DAYS": str(points_retention_days) if points_retention_days else "",
    }
    return {name: value for name, value in told.items() if value}


def doctor(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Report what is installed, what is free, and what of the mesh answers.

    Exit codes: 0 nothing is wrong, warnings aside; 1 something is.
    """
    from finemesh.embedded.doctor import Verdict, examine, worst

    findings = examine(data_dir)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _print_findings(findings)
    sys.exit(EXIT_FAILED if worst(findings) is Verdict.FAILURE else 0)


def demo(
    source: Annotated[
        Path | None,
        typer.Option(help="Annotations of your own: a ZIP, a folder, a COCO or SA-V JSON.", exists=True),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder that gets the package.")] = Path("finemesh-demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the mesh's folder behind.")] = False,
) -> None:
    """Run the main job on a mesh of its own: from annotated data to a proven, downloadable fine-tune.

    Exit codes: 0 everything is as promised; 1 something is not, the reason is printed; 130 interrupted.
    """
    from finemesh.embedded.demo.run import run_demo

    sys.exit(asyncio.run(run_demo(source, output, keep=keep)))


def rebuild(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Make the metric points of a mesh that is stopped anew, from the segments in its object store.

    Runs and everything else about them come from the database of Tracking, or its backup. The file of points
    that is there is kept beside the new one.

    Exit codes: 0 done; 1 refused or failed, the reason is printed.
    """
    from rich.markup import escape

    from finemesh.embedded.config import MeshConfig
    from finemesh.embedded.rebuilding import rebuild_points

    try:
        code = asyncio.run(rebuild_points(MeshConfig(data_dir=data_dir, services=False)))
    except FinemeshError as error:
        said = f"[red]error:[/] {escape(error.message)} [dim]({error.reason})[/]"
        _err.print(said, highlight=False, soft_wrap=True)
        code = EXIT_FAILED
    sys.exit(code)


def _print_findings(findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "", "found"):
        table.add_column(column, overflow="fold")
    topic = ""
    for finding in findings:
        remedy = f"\n[yellow]→ {escape(finding.remedy)}[/]" if finding.remedy else ""
        shown = "" if finding.topic == topic else f"[bold]{finding.topic}[/]"
        topic = finding.topic
        table.add_row(shown, escape(finding.name), _MARKS[finding.verdict], escape(finding.detail) + remedy)
    _out.print(table)
