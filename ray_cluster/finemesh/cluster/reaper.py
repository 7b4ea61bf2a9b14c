"""The reaper: what an attempt held is free only once that is proven.

Ray ends the workers of a supervisor that is gone, and counts their GPUs as free in the same moment. A process
that hangs in the driver, or has been frozen, still has its memory on the device then, and the next attempt
would run out of it. So each process of an attempt is on record with the moment it started (a process id alone
may belong to somebody else by now) and its GPUs; when the attempt is over, each is looked for on its node,
ended if it is there, and its GPUs asked whether they are empty again.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from finemesh.cluster.devices import Device, Devices, devices_here

_TERM_SECONDS: Final = 2.0
_KILL_SECONDS: Final = 5.0
_DEVICE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1
_START_TOLERANCE_SECONDS: Final = 0.5
# What the driver may have set up for itself since the attempt got the device.
_SLACK_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Holding:
    """A process of an attempt with what it was given.

    Attributes:
        start_time: when it started, in seconds since 1970, as the kernel has it.
        node: Ray's id of its node.
        place: where its id means this process, see `place`.
    """

    pid: int
    start_time: float
    node: str
    place: str
    devices: tuple[Device, ...] = ()

    @classmethod
    def of_this_process(cls, node: str, devices: tuple[Device, ...]) -> Holding:
        return cls(os.getpid(), psutil.Process().create_time(), node, place(), devices)


@dataclass(frozen=True, slots=True)
class Release:
    """Whether a holding is free, and what shows it."""

    free: bool
    evidence: str


def place() -> str:
    """The machine and the space of process ids that this process lives in: the same for two processes that
    see each other.
    """
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()
        return f"{boot}/{space}"
    return platform.node()


def release(holding: Holding, devices: Devices | None = None) -> Release:
    """End a process if it is still there, and see what is left on its GPUs. Blocks, for up to 12 s.

    Runs on the node of the holding.
    """
    ended = _end(holding)
    if ended is None:
        return Release(False, f"process {holding.pid} outlives SIGKILL: it hangs in the kernel")
    devices = devices or devices_here()
    told = [ended]
    for device in holding.devices:
        left = _wait_until_empty(device, holding.pid, devices)
        if left:
            return Release(False, f"{ended}; {left}")
        told.append(f"GPU {device.uuid or device.id} is empty of it" if device.uuid else "no NVML to ask")
    return Release(True, "; ".join(told))


def _end(holding: Holding) -> str | None:
    """How the process ended; None if it does not."""
    process = find(holding.pid, holding.start_time)
    if process is None:
        return f"process {holding.pid} is gone"
    for act, seconds, word in (
        (process.terminate, _TERM_SECONDS, "SIGTERM"),
        (process.kill, _KILL_SECONDS, "SIGKILL"),
    ):
        with contextlib.suppress(psutil.NoSuchProcess):
            act()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if find(holding.pid, holding.start_time) is None:
                return f"process {holding.pid} was ended by {word}"
            time.sleep(_POLL_SECONDS)
    return None


def find(pid: int, start_time: float) -> psutil.Process | None:
    """The process of this id that started then, unless it has ended: a zombie holds nothing."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - start_time) <= _START_TOLERANCE_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _wait_until_empty(device: Device, pid: int, devices: Devices) -> str:
    """What is left of a process on a GPU, when it has had time to be cleared away; empty if nothing is."""
    if not device.uuid:
        return ""
    deadline = time.monotonic() + _DEVICE_SECONDS
    while True:
        left = _left(device, pid, devices)
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(_POLL_SECONDS)


def _left(device: Device, pid: int, devices: Devices) -> str:
    try:
        usage = devices.usage(device.uuid)
    except OSError as error:
        return f"GPU {device.uuid} cannot be asked: {error}"
    if usage is None:
        return f"GPU {device.uuid} has left its node"
    if pid in usage.pids:
        return f"GPU {device.uuid} still names process {pid}"
    excess = usage.memory_bytes - device.memory_bytes
    if device.share >= 1 and excess > _SLACK_BYTES:  # of a part the memory is also that of others
        return f"GPU {device.uuid} has {excess >> 20} MiB more in use than before"
    return ""
