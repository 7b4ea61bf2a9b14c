"""Processes that are ours are found and ended, whatever they do; those of others never."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from finemesh.core.errors import PreconditionError
from finemesh.embedded.processes import (
    COMPONENT_VARIABLE,
    MESH_VARIABLE,
    ProcessIdentity,
    end_all,
    find,
    memory_pss_bytes,
    spawn,
)
from finemesh.embedded.site import Component
from finemesh.embedded.state import State
from finemesh.embedded.supervisor import Supervisor

from tests.support.servers import PATIENCE_SECONDS, wait_until

_SLEEP = "import time; print('up', flush=True); time.sleep(600)"
_STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _SLEEP
# A child that drops the mark, as Ray's renamed workers may.
_PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_SLEEP!r}], env={{}})"


@pytest.fixture
def mesh_id(request: pytest.FixtureRequest) -> Iterator[str]:
    identity = f"test-{os.getpid()}-{request.node.name}"
    yield identity
    end_all(lambda: find(identity), 0.0)


def _python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-c", code)


def _environment(mesh_id: str, component: str = "one") -> dict[str, str]:
    return {**os.environ, MESH_VARIABLE: mesh_id, COMPONENT_VARIABLE: component}


def _spawn(code: str, mesh_id: str, folder: Path, component: str = "one") -> subprocess.Popen[bytes]:
    """Start `code` and wait for its first line."""
    log = folder / f"{component}.log"
    process = spawn(_python(code), _environment(mesh_id, component), folder, log)
    wait_until(lambda: log.read_bytes().startswith(b"up"), "the process")
    return process


def test_finds_its_own_with_descendants_and_nobody_else(mesh_id: str, tmp_path: Path) -> None:
    other = _spawn(_SLEEP, f"{mesh_id}-other", tmp_path, "other")
    first = _spawn(_PARENT, mesh_id, tmp_path, "first")
    second = _spawn(_SLEEP, mesh_id, tmp_path, "second")
    found = {process.pid for process in find(mesh_id)}
    child = psutil.Process(first.pid).children()[0].pid
    assert found == {first.pid, child, second.pid}
    assert {process.pid for process in find(mesh_id, "second")} == {second.pid}
    assert set(end_all(lambda: find(mesh_id), 5.0)) == found
    assert other.poll() is None
    end_all(lambda: find(f"{mesh_id}-other"), 0.0)
    for process in (first, second, other):
        process.wait()


def test_what_ignores_sigterm_is_killed_after_the_grace(mesh_id: str, tmp_path: Path) -> None:
    process = _spawn(_STUBBORN, mesh_id, tmp_path)
    end_all(lambda: find(mesh_id), 0.3)
    assert process.wait() == -signal.SIGKILL


def test_a_pid_given_again_is_not_taken_for_the_old_process() -> None:
    mine = ProcessIdentity.of(os.getpid())
    assert mine is not None
    assert mine.is_alive()
    assert not ProcessIdentity(mine.pid, mine.start_time - 10).is_alive()


def test_a_process_ends_with_its_starter(mesh_id: str, tmp_path: Path) -> None:
    log = tmp_path / "orphan.log"
    starter = (
        "import os, time; from pathlib import Path; from finemesh.embedded.processes import spawn\n"
        f"p = spawn({_python(_SLEEP)!r}, dict(os.environ), Path({str(tmp_path)!r}), Path({str(log)!r}))\n"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter], env=_environment(mesh_id), stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        wait_until(lambda: log.exists() and log.read_bytes().startswith(b"up"), "the orphan")
        parent.kill()
    wait_until(lambda: not psutil.pid_exists(pid), "the end of the orphan")


def test_memory_is_counted() -> None:
    assert memory_pss_bytes([psutil.Process()]) > 5_000_000


class TestSupervisor:
    @pytest.fixture
    async def running(self) -> AsyncIterator[list[tuple[Supervisor, asyncio.Task[None]]]]:
        started: list[tuple[Supervisor, asyncio.Task[None]]] = []
        yield started
        for supervisor, task in started:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(supervisor.stop, lambda: True)

    def _supervisor(
        self,
        code: str,
        mesh_id: str,
        tmp_path: Path,
        running: list[tuple[Supervisor, asyncio.Task[None]]],
        **options: float,
    ) -> Supervisor:
        log = tmp_path / "logs" / "one.log"
        log.parent.mkdir()

        async def ready() -> str:
            return "" if log.exists() and b"up" in log.read_bytes() else "says nothing"

        component = Component("one", _python(code), _environment(mesh_id), ready, **options)  # pyright: ignore[reportArgumentType]
        supervisor = Supervisor(component, mesh_id, log, lambda _: None)
        running.append((supervisor, asyncio.create_task(supervisor.run())))
        return supervisor

    async def test_starts_again_what_was_killed(
        self, mesh_id: str, tmp_path: Path, running: list[tuple[Supervisor, asyncio.Task[None]]]
    ) -> None:
        """However often: only what never became ready is given up."""
        supervisor, pids = self._supervisor(_SLEEP, mesh_id, tmp_path, running), set[int]()
        async with asyncio.timeout(PATIENCE_SECONDS):
            for kills in range(4):
                while supervisor.record.restarts < kills or not supervisor.ready.is_set():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                pids.add(supervisor.record.pid)
                if kills < 3:
                    supervisor.kill()
        assert len(pids) == 4
        assert 0 not in pids
        assert supervisor.record.state is State.READY

    async def test_gives_up_on_what_never_starts(
        self, mesh_id: str, tmp_path: Path, running: list[tuple[Supervisor, asyncio.Task[None]]]
    ) -> None:
        supervisor = self._supervisor("raise SystemExit('no such table')", mesh_id, tmp_path, running)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await running[0][1]
        assert supervisor.failure
        assert supervisor.failure.reason == "COMPONENT_FAILED"
        assert "exit code 1 3 times" in str(supervisor.failure)
        assert "no such table" in str(supervisor.failure)

    async def test_stops_what_ignores_sigterm(
        self, mesh_id: str, tmp_path: Path, running: list[tuple[Supervisor, asyncio.Task[None]]]
    ) -> None:
        supervisor = self._supervisor(_STUBBORN, mesh_id, tmp_path, running, stop_seconds=0.2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await supervisor.ready.wait()
            running[0][1].cancel()
            await asyncio.to_thread(supervisor.stop, lambda: False)
        assert find(mesh_id) == []
        assert supervisor.record.state is State.STOPPED

    async def test_a_missing_program_is_told_at_once(
        self, mesh_id: str, tmp_path: Path, running: list[tuple[Supervisor, asyncio.Task[None]]]
    ) -> None:
        def missing() -> None:
            raise PreconditionError("finemesh.nothing is not installed", reason="NOT_INSTALLED")

        supervisor = self._supervisor(_SLEEP, mesh_id, tmp_path, running, prepare=missing)  # pyright: ignore[reportArgumentType]
        async with asyncio.timeout(PATIENCE_SECONDS):
            await running[0][1]
        assert supervisor.failure
        assert supervisor.failure.reason == "NOT_INSTALLED"
