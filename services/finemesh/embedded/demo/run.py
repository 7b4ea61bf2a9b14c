"""The demo from start to end: a mesh of its own, the main job on it, the table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from finemesh.client import Connection, RpcError, Settings, Subscriber, load_settings
from finemesh.client.events import SubscriptionError
from finemesh.core.errors import FinemeshError
from finemesh.embedded.config import MeshConfig
from finemesh.embedded.demo.calls import Calls
from finemesh.embedded.demo.facts import Findings
from finemesh.embedded.demo.job import MainJob
from finemesh.embedded.demo.progress import Display, Stopwatch
from finemesh.embedded.demo.table import show
from finemesh.embedded.mesh import Mesh

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
# The relay of a service that was killed waits for the lease of the one before.
_LAST_EVENTS_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.5


async def run_demo(source: Path | None, output: Path, *, keep: bool) -> int:
    """Run the main job on a mesh of its own and print what came of it.

    Args:
        source: a ZIP, folder or JSON of the user's; None for the default one.
        output: folder that gets the package.
        keep: leave the mesh's folder behind, to be started again by `finemesh up`.

    Returns:
        the exit code: 0 if everything is as promised, 1 with the reasons printed, 130 when interrupted.
    """
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    folder = Path(tempfile.mkdtemp(prefix="finemesh-demo-"))
    console = Console(stderr=True)
    job = asyncio.create_task(_on_mesh(source, folder, output, console))
    waiting = asyncio.create_task(interrupted.wait())
    try:
        await asyncio.wait({job, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            job.cancel()
        return await job
    except asyncio.CancelledError:
        console.print("interrupted; nothing is left running", style="yellow")
        return EXIT_INTERRUPTED
    except FinemeshError as error:
        console.print(f"{error} ({error.reason})", style="bold red", markup=False)
        return EXIT_FAILED
    finally:
        waiting.cancel()
        if keep:
            console.print(f"kept: finemesh up --data-dir {folder}", markup=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)


async def _on_mesh(source: Path | None, folder: Path, output: Path, console: Console) -> int:
    findings = Findings(own_source=source is not None)
    mesh = Mesh(MeshConfig(data_dir=folder / "mesh"))
    with Display(console) as display:
        began = time.monotonic()
        with display.bar("starting the mesh") as update:
            update(0.0, "NATS, S3, Ray, the four services, the cluster agent, the gateway")
            await mesh.start()
        try:
            with Stopwatch(mesh.memory_pss_bytes) as watch:
                watch.add("start of the mesh", time.monotonic() - began)
                display.say(f"the mesh is ready at {mesh.url}: {len(mesh.pids())} components")
                await run_main_job(mesh, source, folder, output, display, watch, findings)
            findings.stages = watch.stages
        finally:
            with display.bar("stopping the mesh"):
                await mesh.stop()
    show(findings, Console())
    return EXIT_FAILED if findings.failures else 0


async def run_main_job(
    mesh: Mesh,
    source: Path | None,
    folder: Path,
    output: Path,
    display: Display,
    watch: Stopwatch,
    findings: Findings,
) -> None:
    """Run the job in a thread and count the events beside it. What breaks the job is a finding."""
    environ = {**os.environ, "FINEMESH_DATA_DIR": str(mesh.site.data)}
    settings = load_settings(server=mesh.address, environ=environ)
    connection = Connection(settings)
    events = _EventCount(settings, findings.events)
    counting = asyncio.create_task(events.run())
    main_job = MainJob(mesh, Calls(connection, display), display, watch, findings, folder, output)
    try:
        await asyncio.to_thread(main_job.run, source)
        if not await events.wait_for("export.succeeded", len(findings.parity)):
            findings.failures.append("the event of an export's success did not come")
    except (FinemeshError, RpcError) as error:
        findings.failures.append(f"{error}")
    finally:
        # Ends the calls of the thread too, when the demo is interrupted.
        connection.close()
        counting.cancel()
        done, _ = await asyncio.wait([counting], timeout=_LAST_EVENTS_SECONDS)
        findings.failures += [
            f"counting events broke: {task.exception()!r}" for task in done if not task.cancelled()
        ]


class _EventCount:
    """Counts every event from the first on, by noun and fact, each once; over restarts of the broker."""

    def __init__(self, settings: Settings, counts: dict[str, int]) -> None:
        self._settings = settings
        self._counts = counts
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Count until cancelled."""
        position = 0
        while True:
            with contextlib.suppress(SubscriptionError):
                async for event in Subscriber(self._settings, start=position + 1).events():
                    position = event.sequence
                    async with self._changed:
                        self._counts[event.fact] = self._counts.get(event.fact, 0) + 1
                        self._changed.notify_all()
            await asyncio.sleep(_RETRY_SECONDS)

    async def wait_for(self, fact: str, count: int) -> bool:
        """Whether an event came so often, within half a minute: the relays may still be at it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EVENTS_SECONDS), self._changed:
                await self._changed.wait_for(lambda: self._counts.get(fact, 0) >= count)
        return self._counts.get(fact, 0) >= count
