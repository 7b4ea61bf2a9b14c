"""Keeps one component running: starts it, waits until it is ready, starts it again when it ends."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from finemesh.core.errors import FinemeshError, UnavailableError
from finemesh.embedded.processes import ProcessIdentity, end_all, find, spawn
from finemesh.embedded.site import Component
from finemesh.embedded.state import ComponentRecord, State

_POLL_SECONDS: Final = 0.1
_FIRST_DELAY_SECONDS: Final = 0.2
_LONGEST_DELAY_SECONDS: Final = 10.0
_STEADY_SECONDS: Final = 30.0
_MOST_FAILED_STARTS: Final = 3
_LOG_TAIL_BYTES: Final = 1500


class Supervisor:
    """Runs one component until it is stopped.

    Attributes:
        record: its state, as in `mesh.json`.
        ready: set while the component can be used.
        failure: set if it never became ready and will not be tried again.
    """

    def __init__(
        self, component: Component, mesh_id: str, log: Path, changed: Callable[[Supervisor], None]
    ) -> None:
        self.component = component
        self.record = ComponentRecord(ports=dict(component.ports))
        self.ready = asyncio.Event()
        self.failure: FinemeshError | None = None
        self._log = log
        self._mesh_id = mesh_id
        self._changed = changed
        self._process: subprocess.Popen[bytes] | None = None
        self._ever_ready = False

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def identity(self) -> ProcessIdentity | None:
        """The running process, if there is one."""
        return ProcessIdentity(self.record.pid, self.record.start_time) if self.record.pid else None

    async def run(self) -> None:
        """Keep the component running until cancelled. Returns only with `failure` set.

        A component that was ready once is started again for ever; one that never was gets three tries.
        """
        delay, code = _FIRST_DELAY_SECONDS, 0
        while True:
            began = time.monotonic()
            try:
                self._start()
            except FinemeshError as error:  # what it needs is not there: trying again would not help
                self.failure = error
            else:
                code = await self._watch()
                self.ready.clear()
                if not self._ever_ready and self.record.restarts + 1 >= _MOST_FAILED_STARTS:
                    self.failure = self._start_error(code)
            if self.failure:
                self._set(State.STOPPED, self.failure.message)
                return
            self.record.restarts += 1
            self._set(State.RESTARTING, _ending(code))
            # What a dead parent left behind holds ports and files that its successor needs.
            await asyncio.to_thread(end_all, self._find, 0.0)
            await asyncio.sleep(delay)
            steady = time.monotonic() - began > _STEADY_SECONDS
            delay = _FIRST_DELAY_SECONDS if steady else min(delay * 2, _LONGEST_DELAY_SECONDS)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """End the component: SIGTERM, then SIGKILL after its grace, or at once when `hurry()`. Blocks."""
        process = self._process
        if process is not None and process.poll() is None:
            self._set(State.STOPPING)
            process.terminate()
            deadline = time.monotonic() + self.component.stop_seconds
            while process.poll() is None and time.monotonic() < deadline and not hurry():
                time.sleep(0.02)
        end_all(self._find, 0.0)
        if process is not None:
            process.wait()
            self.component.clean_up()
        self.ready.clear()
        self._set(State.STOPPED)

    def kill(self) -> int:
        """SIGKILL its main process, as a crash would, and see it gone. Returns the pid, 0 if none runs."""
        process = self._process
        if process is None or process.poll() is not None:
            return 0
        process.kill()
        process.wait()  # until then it still looks alive, and its port may answer: it would be ready again
        self.ready.clear()
        return process.pid

    def _start(self) -> None:
        component = self.component
        component.prepare()
        self._process = spawn(component.command, component.environment, self._log.parent.parent, self._log)
        identity = ProcessIdentity.of(self._process.pid)
        self.record.pid, self.record.start_time = self._process.pid, identity.start_time if identity else 0.0
        self._set(State.STARTING)

    async def _watch(self) -> int:
        """Wait for the end of the process, setting `ready` on the way. Returns its exit code."""
        process = self._process
        assert process is not None
        while (code := process.poll()) is None:
            if not self.ready.is_set():
                reason = await self.component.ready()
                if not reason and process.poll() is None:
                    self._ever_ready = True
                    self.ready.set()
                    self._set(State.READY)
                elif reason != self.record.reason:
                    self._set(State.STARTING, reason)
            await asyncio.sleep(_POLL_SECONDS)
        return code

    def _find(self) -> list[psutil.Process]:
        return find(self._mesh_id, self.name)

    def _set(self, state: State, reason: str = "") -> None:
        self.record.state, self.record.reason = state, reason
        if state in (State.STOPPED, State.RESTARTING):
            self.record.pid, self.record.start_time = 0, 0.0
        self._changed(self)

    def _start_error(self, code: int) -> UnavailableError:
        try:
            tail = self._log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            tail = ""
        return UnavailableError(
            f"{self.name} does not start: {_ending(code)} {_MOST_FAILED_STARTS} times. "
            f"The end of {self._log}:\n{tail}",
            reason="COMPONENT_FAILED",
            metadata={"component": self.name, "log": str(self._log)},
        )


def _ending(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
