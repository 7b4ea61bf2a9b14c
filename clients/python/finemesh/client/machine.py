"""What this process and its machine use: CPU, memory, GPUs, disk and network.

By psutil, and for NVIDIA's GPUs by nvidia-ml-py where that and the driver are installed. Without either the
rest is still measured.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psutil

PREFIX: Final = "system/"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that CUDA may see here. `handle` is NVML's."""

    kind: str
    memory_bytes: int
    driver: str
    handle: Any


def memory_bytes() -> int:
    """Memory of this machine."""
    return psutil.virtual_memory().total


def gpus_here() -> list[Gpu]:
    """The GPUs that CUDA may see in this process, in its order; none where there are none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return [_gpu(pynvml, handle, driver) for handle in _visible(pynvml)]
    except Exception:
        return []


def _visible(nvml: Any) -> list[Any]:
    """Handles of what CUDA_VISIBLE_DEVICES names, by number on the bus or by UUID; of all without it."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is None:
        return [nvml.nvmlDeviceGetHandleByIndex(each) for each in range(nvml.nvmlDeviceGetCount())]
    found: list[Any] = []
    for name in filter(None, (each.strip() for each in names.split(","))):
        if name.isdigit():
            found.append(nvml.nvmlDeviceGetHandleByIndex(int(name)))
        elif name.startswith(("GPU-", "MIG-")):
            found.append(nvml.nvmlDeviceGetHandleByUUID(name))
        else:  # "-1" and the like: CUDA ends its list there
            break
    return found


def _gpu(nvml: Any, handle: Any, driver: str) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(_text(nvml.nvmlDeviceGetName(handle)), int(memory.total), driver, handle)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class Sampler:
    """Measures this process and its machine. Rates are since the sample before: the first has none.

    Names of the metrics, each behind `system/` and, for a rank above 0, `rank-N/`:
    `cpu_percent` (of one core, this process and its children), `memory_bytes` (resident, of the same),
    `disk_read_bytes_per_second`, `disk_written_bytes_per_second` (of this process); of the whole machine
    `machine/cpu_percent`, `machine/memory_percent`, `machine/disk_percent`,
    `machine/network_sent_bytes_per_second`, `machine/network_received_bytes_per_second`; of each GPU
    `gpu-N/percent`, `gpu-N/memory_bytes`, `gpu-N/watts`, `gpu-N/celsius`.
    """

    def __init__(self, rank: int = 0, folder: str = ".") -> None:
        self._prefix = PREFIX + (f"rank-{rank}/" if rank else "")
        self._process = psutil.Process()
        self._folder = folder
        self._gpus = gpus_here()
        self._counters: dict[str, float] = {}
        self._measured = 0.0
        psutil.cpu_percent()  # the first call only starts the measurement

    def sample(self) -> dict[str, float]:
        """What is in use now. Never raises: what cannot be measured is left out."""
        values: dict[str, float] = {}
        now, before = time.monotonic(), self._measured
        counters: dict[str, float] = {}
        for measure in (self._own, self._machine, self._disk, self._network):
            with contextlib.suppress(psutil.Error, OSError, AttributeError, NotImplementedError):
                measure(values, counters)
        for name, count in counters.items():
            if before and name in self._counters:
                values[name] = max(0.0, (count - self._counters[name]) / max(now - before, 1e-3))
        self._counters, self._measured = counters, now
        for index, gpu in enumerate(self._gpus):
            values |= {f"gpu-{index}/{name}": value for name, value in _load(gpu).items()}
        return {self._prefix + name: value for name, value in values.items()}

    def _own(self, values: dict[str, float], counters: dict[str, float]) -> None:
        family = [self._process, *self._process.children(recursive=True)]
        resident, cpu_seconds = 0, 0.0
        for process in family:
            with contextlib.suppress(psutil.Error):
                resident += process.memory_info().rss
                times = process.cpu_times()
                cpu_seconds += times.user + times.system
        values["memory_bytes"] = float(resident)
        counters["cpu_percent"] = 100 * cpu_seconds

    def _machine(self, values: dict[str, float], counters: dict[str, float]) -> None:
        del counters
        values["machine/cpu_percent"] = psutil.cpu_percent()
        values["machine/memory_percent"] = psutil.virtual_memory().percent
        values["machine/disk_percent"] = psutil.disk_usage(self._folder).percent

    def _disk(self, values: dict[str, float], counters: dict[str, float]) -> None:
        del values
        io = self._process.io_counters()
        counters["disk_read_bytes_per_second"] = float(io.read_bytes)
        counters["disk_written_bytes_per_second"] = float(io.write_bytes)

    def _network(self, values: dict[str, float], counters: dict[str, float]) -> None:
        del values
        io = psutil.net_io_counters()
        counters["machine/network_sent_bytes_per_second"] = float(io.bytes_sent)
        counters["machine/network_received_bytes_per_second"] = float(io.bytes_recv)


def _load(gpu: Gpu) -> Mapping[str, float]:
    """What is in use of a GPU; what its driver does not tell is left out."""
    import pynvml

    measures: dict[str, Callable[[], float]] = {
        "percent": lambda: float(pynvml.nvmlDeviceGetUtilizationRates(gpu.handle).gpu),
        "memory_bytes": lambda: float(pynvml.nvmlDeviceGetMemoryInfo(gpu.handle).used),
        "watts": lambda: pynvml.nvmlDeviceGetPowerUsage(gpu.handle) / 1000,
        "celsius": lambda: float(pynvml.nvmlDeviceGetTemperature(gpu.handle, pynvml.NVML_TEMPERATURE_GPU)),
    }
    found: dict[str, float] = {}
    for name, measure in measures.items():
        with contextlib.suppress(pynvml.NVMLError):
            found[name] = float(measure())
    return found
