"""The mesh on one machine: what `finemesh up` runs, and what the demo and the tests run inside themselves."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from finemesh.core.errors import NotFoundError, PreconditionError, UnavailableError
from finemesh.embedded.components import components, port_names
from finemesh.embedded.config import MeshConfig, check_exposure
from finemesh.embedded.credentials import make_credentials
from finemesh.embedded.ports import PortReservations
from finemesh.embedded.processes import ProcessIdentity, end_all, find, memory_pss_bytes
from finemesh.embedded.site import Component, Site
from finemesh.embedded.state import ComponentRecord, DataDirLock, Holder, MeshRecord, State, read_record
from finemesh.embedded.supervisor import Supervisor

ChangeListener = Callable[[str, ComponentRecord], None]

_REAP_GRACE_SECONDS: Final = 3.0
# Ray's sockets lie up to 64 bytes below its folder, and a socket path has room for 107 bytes.
_LONGEST_RAY_FOLDER: Final = 107 - 64


class Mesh:
    """All processes of Finemesh on this machine.

        async with Mesh(MeshConfig(data_dir=Path("data"))) as mesh:
            print(mesh.address)

    Start it in the main thread: the kernel ends the processes when the thread that started them ends.
    """

    def __init__(
        self,
        config: MeshConfig,
        *,
        on_change: ChangeListener | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`on_change` hears of each change of a component's state; while the mesh stops, in other threads."""
        self.config = config
        self.reaped: list[int] = []
        """Pids that an earlier mesh of this folder had left, and that `start` ended."""
        self._on_change = on_change
        self._environ = dict(os.environ if environ is None else environ)
        self._lock = DataDirLock(config.data_dir)
        self._ports: PortReservations | None = None
        self._site: Site | None = None
        self._record: MeshRecord | None = None
        self._supervisors: dict[str, Supervisor] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._hurry = False
        self._writing = threading.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # ---- life

    async def start(self) -> None:
        """Start everything and wait until all of it is ready. If that fails, nothing is left behind.

        Raises:
            PreconditionError: MESH_RUNNING, PORT_TAKEN, INSECURE_BIND, NOT_INSTALLED.
            UnavailableError: COMPONENT_FAILED or MESH_NOT_READY, naming component, reason and log.
        """
        check_exposure(self.config)
        since = self._lock.acquire()
        try:
            self._prepare(since)
            for supervisor in self._supervisors.values():
                self._tasks.append(asyncio.create_task(supervisor.run(), name=supervisor.name))
            await self._wait_all_ready()
        except BaseException:
            await self.stop()
            raise
        self._set_state(State.READY)

    async def stop(self) -> None:
        """Stop everything that was started, in order. To cancel it makes it kill, not leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        stopping = asyncio.create_task(asyncio.to_thread(self._stop_processes))
        cancelled = False
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:
                cancelled, self._hurry = True, True
        stopping.result()
        if cancelled:
            raise asyncio.CancelledError

    def hurry(self) -> None:
        """Make a running `stop` kill instead of wait."""
        self._hurry = True

    async def wait_ready(self, name: str, timeout_seconds: float = 60.0) -> None:
        """Wait until a component is ready (again). Raises UnavailableError, reason MESH_NOT_READY."""
        supervisor = self._supervisor(name)
        try:
            async with asyncio.timeout(timeout_seconds):
                await supervisor.ready.wait()
        except TimeoutError:
            raise self._not_ready([supervisor], timeout_seconds) from None

    async def wait_failed(self) -> None:
        """Wait until a component has failed for good. Raises its error."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for supervisor in self._supervisors.values():
            if supervisor.failure:
                raise supervisor.failure

    def kill(self, name: str) -> int:
        """SIGKILL the main process of a component, as a crash would; it is started again. Returns the pid."""
        return self._supervisor(name).kill()

    # ---- facts

    @property
    def address(self) -> str:
        """host:port of the gateway."""
        return self.url.partition("://")[2]

    @property
    def url(self) -> str:
        """The gateway with its scheme."""
        return self._require_site().public_url

    @property
    def site(self) -> Site:
        """Folders, ports, credentials."""
        return self._require_site()

    def pids(self) -> dict[str, int]:
        """The main process of each running component."""
        return {name: s.record.pid for name, s in self._supervisors.items() if s.record.pid}

    def status(self) -> dict[str, ComponentRecord]:
        """The state of each component."""
        return {name: supervisor.record for name, supervisor in self._supervisors.items()}

    def processes(self) -> list[psutil.Process]:
        """Every process of the mesh but this one: components, their children, Ray's workers."""
        return find(self._require_site().credentials.mesh_id)

    def memory_pss_bytes(self) -> int:
        """Proportional set size of all processes of the mesh, this one included."""
        return memory_pss_bytes([psutil.Process(), *self.processes()])

    # ---- inside

    def _prepare(self, since: str) -> None:
        data = self.config.data_dir.resolve()
        credentials = make_credentials(data / "secrets", self.config.jwt_key_file)
        previous = read_record(data)
        self.reaped = _reap(credentials.mesh_id, previous)
        self._ports = PortReservations(previous.ports if previous else {})
        ports = {name: self._ports.take(name) for name in port_names(self.config)}
        ports["gateway"] = self._ports.take("gateway", host=self.config.host, fixed=self.config.port)
        ray_folder = _short_folder(data / "ray", credentials.mesh_id)
        self._site = Site(self.config, data, credentials, ports, self._environ, ray_folder)
        logs = self._site.folder("logs")
        for component in components(self._site):
            self._supervisors[component.name] = self._supervise(component, logs)
        own = ProcessIdentity.of(os.getpid())
        self._record = MeshRecord(
            pid=os.getpid(),
            start_time=own.start_time if own else 0.0,
            since=since,
            url=self.url,
            client={
                "server": self.address,
                "token_file": str(credentials.admin_token),
                "ca_file": str(self.config.tls.certificate_chain) if self.config.tls else "",
                "nats_url": f"nats://{self._site.address('nats')}",
                "nats_nkey_file": str(credentials.nats_seed("client")),
            },
            ports=ports,
            components={name: supervisor.record for name, supervisor in self._supervisors.items()},
        )
        self._write_record()
        self._lock.describe(Holder(os.getpid(), since, self.address))

    def _supervise(self, component: Component, logs: Path) -> Supervisor:
        log = logs / f"{component.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".old.log"))
        return Supervisor(component, self._require_site().credentials.mesh_id, log, self._changed)

    async def _wait_all_ready(self) -> None:
        everything = list(self._supervisors.values())

        async def all_ready() -> None:
            for supervisor in everything:
                await supervisor.ready.wait()

        timeout = self.config.ready_timeout_seconds
        ready = asyncio.create_task(all_ready())
        try:
            # A supervisor's task ends by itself only when its component has failed for good.
            done, _ = await asyncio.wait(
                {ready, *self._tasks}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
        for failure in (supervisor.failure for supervisor in everything):
            if failure:
                raise failure
        if not done:
            raise self._not_ready([s for s in everything if not s.ready.is_set()], timeout)
        for task in done:
            task.result()

    def _not_ready(self, late: list[Supervisor], seconds: float) -> UnavailableError:
        reasons = "; ".join(f"{s.name}: {s.record.reason or s.record.state}" for s in late)
        logs = self._require_site().folder("logs")
        return UnavailableError(
            f"not ready after {seconds:g} s: {reasons}. See {logs}", reason="MESH_NOT_READY"
        )

    def _stop_processes(self) -> None:
        """Blocks. The gateway goes first: nobody should talk to half a mesh."""
        self._set_state(State.STOPPING)
        order = sorted(self._supervisors.values(), key=lambda s: -s.component.layer)
        try:
            for _, layer in groupby(order, key=lambda s: s.component.layer):
                together = list(layer)
                with ThreadPoolExecutor(len(together)) as pool:
                    list(pool.map(lambda s: s.stop(lambda: self._hurry), together))
        finally:
            if self._site:
                end_all(lambda: find(self.site.credentials.mesh_id), 0.0)
                if self._site.ray_folder.is_symlink():
                    self._site.ray_folder.unlink()
            if self._ports:
                self._ports.release()
            self._set_state(State.STOPPED)
            self._lock.release()

    def _changed(self, supervisor: Supervisor) -> None:
        self._write_record()
        if self._on_change:
            self._on_change(supervisor.name, supervisor.record)

    def _set_state(self, state: State) -> None:
        if self._record:
            self._record.state = state
            self._write_record()

    def _write_record(self) -> None:
        if self._record:
            with self._writing:
                self._record.write(self._require_site().data)

    def _supervisor(self, name: str) -> Supervisor:
        if name not in self._supervisors:
            known = ", ".join(self._supervisors)
            raise NotFoundError(f"the mesh has no component {name!r}: it has {known}", reason="NO_COMPONENT")
        return self._supervisors[name]

    def _require_site(self) -> Site:
        if self._site is None:
            raise PreconditionError(
                "the mesh is not started: `await mesh.start()` first", reason="NOT_STARTED"
            )
        return self._site


def _reap(mesh_id: str, previous: MeshRecord | None) -> list[int]:
    """End what an earlier mesh of this folder has left, with SIGKILL after 3 s. Blocks."""
    recorded = [(c.pid, c.start_time) for c in previous.components.values() if c.pid] if previous else []

    def left() -> list[psutil.Process]:
        found = {process.pid: process for process in find(mesh_id)}
        for pid, start_time in recorded:
            if ProcessIdentity(pid, start_time).is_alive():
                found.setdefault(pid, psutil.Process(pid))
        return list(found.values())

    return end_all(left, _REAP_GRACE_SECONDS)


def _short_folder(folder: Path, mesh_id: str) -> Path:
    """`folder`, or a short link to it where its path leaves no room for the name of a socket."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if len(os.fsencode(folder)) <= _LONGEST_RAY_FOLDER:
        return folder
    # The mesh id is random and known to the owner alone: nobody else can have put a link of this name there.
    folder_of_link = min(tempfile.gettempdir(), "/tmp", key=len)  # noqa: S108  TMPDIR may be long itself
    link = Path(folder_of_link) / f"finemesh-{mesh_id[:12]}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder, target_is_directory=True)
    return link
