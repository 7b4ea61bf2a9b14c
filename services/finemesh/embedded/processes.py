"""Processes that are ours: starting them so that they can be told from others, finding them, ending them.

A process is ours if its environment carries the id of this mesh, or if it descends from one that does. A pid
alone proves nothing, as pids are given again: psutil holds (pid, start time) and checks both before a signal.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

MESH_VARIABLE: Final = "FINEMESH_MESH_ID"
COMPONENT_VARIABLE: Final = "FINEMESH_COMPONENT"
_POLL_SECONDS: Final = 0.05
_LAUNCHER: Final = Path(__file__).with_name("exec_with_parent.py")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that cannot be mistaken for another: `start_time` is in seconds since the epoch."""

    pid: int
    start_time: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of a live process, or None if there is none with this pid."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def is_alive(self) -> bool:
        return ProcessIdentity.of(self.pid) == self


def spawn(
    command: Sequence[str], environment: Mapping[str, str], working_directory: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, output appended to `log`. It ends with the calling thread."""
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*launcher, *command],
            cwd=working_directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for `up` alone, which stops them in order
        )


def find(mesh_id: str, component: str = "") -> list[psutil.Process]:
    """All processes of the mesh, or of one component, with their descendants. Never this process."""
    own = os.getpid()
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue  # gone, or somebody else's
        wanted = environment.get(MESH_VARIABLE) == mesh_id
        if wanted and component in ("", environment.get(COMPONENT_VARIABLE)):
            found[process.pid] = process
    for process in list(found.values()):
        for child in _descendants(process):
            found.setdefault(child.pid, child)
    return [process for pid, process in found.items() if pid != own and is_running(process)]


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def is_running(process: psutil.Process) -> bool:
    """Whether it does anything still: a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def signal_all(processes: Iterable[psutil.Process], action: Callable[[psutil.Process], Any]) -> None:
    """`action` is `psutil.Process.terminate` or `.kill`. A process that is gone is no error."""
    for process in processes:
        try:
            action(process)
        except psutil.Error:
            continue


def end_all(search: Callable[[], list[psutil.Process]], grace_seconds: float) -> list[int]:
    """SIGTERM everything that `search` finds, SIGKILL what is left after the grace. Blocks. Returns the pids.

    Searches again until nothing is found, because a process may start another one while it is being ended.
    """
    pids: set[int] = set()
    deadline = time.monotonic() + grace_seconds
    action: Callable[[psutil.Process], None] = psutil.Process.terminate
    while found := search():
        if time.monotonic() >= deadline:
            action = psutil.Process.kill
        if action is psutil.Process.kill or not pids.issuperset(process.pid for process in found):
            signal_all(found, action)
        pids.update(process.pid for process in found)
        time.sleep(_POLL_SECONDS)
    return sorted(pids)


def memory_pss_bytes(processes: Iterable[psutil.Process]) -> int:
    """Proportional set size of the processes together: a page that n processes share counts 1/n for each."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, AttributeError):
            continue
    return total
