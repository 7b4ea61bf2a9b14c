"""The GPUs of this node as the driver's management library (NVML) sees them, whoever uses them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Usage:
    """What is in use of one GPU: its memory in bytes, and by which processes. In a container the processes of
    others may not be named, nor its own by the ids that they have in it; the memory is always right.
    """

    memory_bytes: int
    pids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that an attempt was given.

    Attributes:
        id: as Ray counts it on its node.
        uuid: its name in NVML; empty where that is not installed.
        share: how much of it, up to 1.
        memory_bytes: what was in use of it just before.
    """

    id: str
    uuid: str = ""
    share: float = 1.0
    memory_bytes: int = 0


class Devices(Protocol):
    """The GPUs of a node."""

    def uuids(self) -> Sequence[str]:
        """Names that no other GPU has, in the order of their numbers on this node."""
        ...

    def usage(self, uuid: str) -> Usage | None:
        """What is in use of a GPU; None for one that is not here (any more)."""
        ...


class NvmlDevices:
    """By nvidia-ml-py. Raises OSError where the driver does not answer."""

    def uuids(self) -> list[str]:
        with _nvml() as nvml:
            count = nvml.nvmlDeviceGetCount()
            return [nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(each)) for each in range(count)]

    def usage(self, uuid: str) -> Usage | None:
        with _nvml() as nvml:
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            except (nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument):
                return None
            # The second version leaves out what the driver keeps for itself.
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
            users = [
                *nvml.nvmlDeviceGetComputeRunningProcesses(handle),
                *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
            ]
            return Usage(int(memory.used), frozenset(int(user.pid) for user in users))


class NoDevices:
    """A node without GPUs, or without NVIDIA's driver."""

    def uuids(self) -> list[str]:
        return []

    def usage(self, uuid: str) -> Usage | None:  # noqa: ARG002  the protocol sets the signature
        return None


@contextlib.contextmanager
def _nvml() -> Generator[Any]:
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise OSError(f"NVML: {error}") from error


def devices_here() -> Devices:
    """The GPUs of this node."""
    found = NvmlDevices()
    try:
        found.uuids()
    except OSError:
        return NoDevices()
    return found


def given(
    gpu_ids: Sequence[str], visible: str | None, share: float, devices: Devices | None = None
) -> tuple[Device, ...]:
    """The GPUs that Ray has given out to a process of this node, of which CUDA was told by `visible`.

    Ray hands on what CUDA_VISIBLE_DEVICES named when the node started: numbers, which mean the order on the
    bus (see `order_by_bus`), or UUIDs.
    """
    if not gpu_ids:
        return ()
    devices = devices or devices_here()
    here, names = list(devices.uuids()), (visible or ",".join(gpu_ids)).split(",")
    found: list[Device] = []
    for gpu_id, name in zip(gpu_ids, names, strict=True):
        uuid = here[int(name)] if name.isdigit() and int(name) < len(here) else name
        usage = devices.usage(uuid)
        found.append(
            Device(gpu_id, uuid, share, usage.memory_bytes) if usage else Device(gpu_id, share=share)
        )
    return tuple(found)


def order_by_bus() -> None:
    """Have CUDA number the GPUs of this process as NVML does. Before CUDA starts."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def visible_here() -> str | None:
    """Which GPUs CUDA was told of in this process."""
    return os.environ.get(VISIBLE)
