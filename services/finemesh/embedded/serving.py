"""What `finemesh up` does and shows: one mesh until a signal, as a table that lives or as lines of JSON."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import asdict
from typing import Any, Final

import typer
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from finemesh.client.cli.context import EXIT_INTERRUPTED
from finemesh.client.cli.context import err as _err
from finemesh.client.cli.context import out as _out
from finemesh.core.errors import FinemeshError
from finemesh.embedded.config import MeshConfig
from finemesh.embedded.mesh import Mesh
from finemesh.embedded.state import ComponentRecord, State

_STYLES: Final = {
    State.READY: "green",
    State.RESTARTING: "yellow",
    State.STOPPING: "dim",
    State.STOPPED: "dim",
}


async def serve(config: MeshConfig, view: View) -> int:
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
