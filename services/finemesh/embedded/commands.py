"""`finemesh up` and `finemesh doctor`, which join the command line by the group `finemesh.commands`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from finemesh.client.cli.context import err as _err
from finemesh.client.cli.context import out as _out
from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.embedded.config import DEFAULT_DATA_DIR, MeshConfig
from finemesh.embedded.demo.run import run_demo
from finemesh.embedded.doctor import Finding, Verdict, examine, worst
from finemesh.embedded.mesh import Mesh
from finemesh.embedded.rebuilding import rebuild_points
from finemesh.embedded.state import ComponentRecord, State
from finemesh.gateway import Tls

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

_STYLES: Final = {
    State.READY: "green",
    State.RESTARTING: "yellow",
    State.STOPPING: "dim",
    State.STOPPED: "dim",
}
_MARKS: Final = {
    Verdict.OK: "[green]ok[/]",
    Verdict.WARNING: "[yellow]warning[/]",
    Verdict.FAILURE: "[red]failure[/]",
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
    tracking = typer.Typer(no_args_is_help=True, help="Look after what Tracking keeps.")
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
        environment={"FINEMESH_IMPORT_SOURCES": ",".join(import_source)} if import_source else {},
    )
    view = JsonView() if as_json else View()
    try:
        code = asyncio.run(_serve(config, view))
    except FinemeshError as error:
        view.failed(error)
        code = EXIT_USAGE if isinstance(error, InvalidError) else EXIT_FAILED
    sys.exit(code)


def doctor(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Report what is installed, what is free, and what of the mesh answers.

    Exit codes: 0 nothing is wrong, warnings aside; 1 something is.
    """
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
    sys.exit(asyncio.run(run_demo(source, output, keep=keep)))


def rebuild(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Make the metric points of a mesh that is stopped anew, from the segments in its object store.

    Runs and everything else about them come from the database of Tracking, or its backup. The file of points
    that is there is kept beside the new one.

    Exit codes: 0 done; 1 refused or failed, the reason is printed.
    """
    try:
        code = asyncio.run(rebuild_points(MeshConfig(data_dir=data_dir, services=False)))
    except FinemeshError as error:
        said = f"[red]error:[/] {escape(error.message)} [dim]({error.reason})[/]"
        _err.print(said, highlight=False, soft_wrap=True)
        code = EXIT_FAILED
    sys.exit(code)


def _print_findings(findings: list[Finding]) -> None:
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


async def _serve(config: MeshConfig, view: View) -> int:
    """Run the mesh until a signal: one stops it in order, a second one kills. Returns the exit code."""
    mesh, stop = Mesh(config, on_change=view.changed), asyncio.Event()

    def interrupt() -> None:
        if stop.is_set():
            mesh.hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
    stopping = asyncio.create_task(stop.wait())
    began = time.monotonic()
    with view:
        starting = asyncio.create_task(mesh.start())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            view.stopping()
            starting.cancel()  # which stops what it has started
            await asyncio.wait({starting})
        if starting.cancelled():
            return EXIT_INTERRUPTED
        starting.result()
        try:
            view.ready(mesh, time.monotonic() - began)
            failing = asyncio.create_task(mesh.wait_failed())
            await asyncio.wait({failing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                failing.result()
            failing.cancel()
            return 0
        finally:
            view.stopping()
            await mesh.stop()


class View:
    """Shows the start as a table that lives, and afterwards what restarts, a line each."""

    def __init__(self) -> None:
        self._records: dict[str, ComponentRecord] = {}
        self._live: Live | None = None
        self._is_ready = False

    def __enter__(self) -> None:
        if _err.is_terminal:
            self._live = Live(console=_err, refresh_per_second=10, get_renderable=self._table, transient=True)
            self._live.start()

    def __exit__(self, *_: object) -> None:
        self._end_live()

    def changed(self, name: str, record: ComponentRecord) -> None:
        """A component changed its state."""
        self._records[name] = record
        if self._is_ready and record.state in (State.RESTARTING, State.READY):
            reason = f": {record.reason}" if record.reason else ""
            self._line(f"{name} is {record.state}{reason}", _STYLES[record.state])
        elif not self._live and record.state is State.READY:
            self._line(f"{name} is ready", "dim")

    def ready(self, mesh: Mesh, seconds: float) -> None:
        """The mesh is ready. Its address goes to stdout, everything else to stderr."""
        self._end_live()
        self._is_ready = True
        if mesh.reaped:
            self._line(f"ended {len(mesh.reaped)} processes that an earlier mesh had left", "yellow")
        memory = mesh.memory_pss_bytes() / 1e6
        self._line(f"ready in {seconds:.1f} s, {len(mesh.pids())} components, {memory:.0f} MB", "green")
        self._line(f"token {mesh.site.credentials.admin_token}, logs {mesh.site.data / 'logs'}", "dim")
        self._line("Ctrl-C stops it", "dim")
        _out.print(mesh.url, highlight=False)

    def stopping(self) -> None:
        """The mesh begins to stop."""
        self._end_live()
        self._line("stopping; Ctrl-C again kills", "dim")

    def failed(self, error: FinemeshError) -> None:
        """The mesh did not start, or had to end."""
        _err.print(
            f"[red]error:[/] {escape(str(error))} [dim]({error.reason})[/]", highlight=False, soft_wrap=True
        )

    def _line(self, text: str, style: str) -> None:
        _err.print(Text(text, style), highlight=False, soft_wrap=True)

    def _end_live(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, record in list(self._records.items()):
            moving = record.state in (State.STARTING, State.RESTARTING)
            mark: Any = Spinner("dots") if moving else Text("●", _STYLES.get(record.state, ""))
            table.add_row(
                mark, name, Text(str(record.state), _STYLES.get(record.state, "")), Text(record.reason, "dim")
            )
        return table


class JsonView(View):
    """One JSON object per change on stdout, for programs."""

    def __enter__(self) -> None:
        pass

    def changed(self, name: str, record: ComponentRecord) -> None:
        self._print({"component": name, **asdict(record)})

    def ready(self, mesh: Mesh, seconds: float) -> None:
        memory = mesh.memory_pss_bytes()
        facts = {
            "url": mesh.url,
            "seconds": round(seconds, 3),
            "memory_pss_bytes": memory,
            "reaped": mesh.reaped,
        }
        self._print({"mesh": "ready", **facts})

    def failed(self, error: FinemeshError) -> None:
        self._print({"mesh": "failed", "reason": error.reason, "message": error.message, **error.metadata})

    def stopping(self) -> None:
        self._print({"mesh": "stopping"})

    def _print(self, content: dict[str, Any]) -> None:
        typer.echo(json.dumps(content))
