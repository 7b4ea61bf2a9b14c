"""The reaper: a process is ended or proven gone, and its GPUs are free only when they are seen to be."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import psutil
import pynvml
import pytest
from finemesh.cluster import reaper
from finemesh.cluster.devices import (
    VISIBLE,
    Device,
    Devices,
    NoDevices,
    NvmlDevices,
    Usage,
    devices_here,
    given,
)
from finemesh.cluster.holdings import HoldingBook
from finemesh.cluster.ledger import CommandState, Entry
from finemesh.cluster.reaper import Holding, place, release
from finemesh.cluster.releases import Releases, release_of
from finemesh.core.attempts import AttemptRef
from finemesh.v1 import attempt_pb2
from finemesh.v1.attempt_service_pb2 import ClusterCapacity, NodeCapacity
from ray._private.accelerators import nvidia_gpu

from tests.support.servers import PATIENCE_SECONDS

REF = AttemptRef("projects/p/trainingJobs/j", 1, 1)
GIB = 1 << 30
# Ignores SIGTERM, and says when it does.
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
)


class MemoryDevices:
    """GPUs of which a test says what is in use."""

    def __init__(self, **usage: Usage) -> None:
        self.state = usage

    def uuids(self) -> list[str]:
        return list(self.state)

    def usage(self, uuid: str) -> Usage | None:
        return self.state.get(uuid)


@pytest.fixture
def worker() -> Generator[psutil.Process]:
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    yield psutil.Process(process.pid)
    process.kill()
    process.communicate()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TERM_SECONDS", "_DEVICE_SECONDS"):
        monkeypatch.setattr(reaper, name, 0.3)


def holding(process: psutil.Process, *devices: Device) -> Holding:
    return Holding(process.pid, process.create_time(), "node", place(), devices)


def test_a_process_that_does_not_listen_is_killed(worker: psutil.Process) -> None:
    found = release(holding(worker), NoDevices())
    assert (found.free, found.evidence) == (True, f"process {worker.pid} was ended by SIGKILL")
    assert release(holding_of(worker.pid, 1.0), NoDevices()).evidence == f"process {worker.pid} is gone"


def test_a_frozen_process_is_killed(worker: psutil.Process) -> None:
    worker.suspend()
    assert release(holding(worker), NoDevices()).free
    assert reaper.find(worker.pid, worker.create_time()) is None


def holding_of(pid: int, start_time: float, *devices: Device) -> Holding:
    return Holding(pid, start_time, "node", place(), devices)


def test_another_process_of_the_same_id_is_left_alone(worker: psutil.Process) -> None:
    found = release(holding_of(worker.pid, worker.create_time() - 5), NoDevices())
    assert found.free
    assert worker.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("usage", "share", "left"),
    [
        (Usage(0, frozenset()), 1.0, ""),
        (Usage(GIB + (100 << 20), frozenset()), 1.0, ""),  # what the driver set up since then
        (Usage(0, frozenset({7})), 1.0, "GPU a still names process 7"),
        (Usage(3 * GIB, frozenset()), 1.0, "GPU a has 2048 MiB more in use than before"),
        (Usage(3 * GIB, frozenset()), 0.5, ""),  # the memory of who has the other half
        (Usage(3 * GIB, frozenset({7})), 0.5, "GPU a still names process 7"),
        (None, 1.0, "GPU a has left its node"),
    ],
)
def test_a_gpu_is_free_when_nothing_of_the_process_is_left_on_it(
    usage: Usage | None, share: float, left: str
) -> None:
    devices = MemoryDevices(**({"a": usage} if usage else {}))
    found = release(holding_of(7, 1.0, Device("0", "a", share, GIB)), devices)
    assert found.free == (not left)
    assert left in found.evidence


def test_memory_that_is_cleared_away_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "_DEVICE_SECONDS", PATIENCE_SECONDS)

    class Late(MemoryDevices):
        asked = 0

        def usage(self, uuid: str) -> Usage | None:
            self.asked += 1
            return Usage(0 if self.asked > 2 else GIB, frozenset())

    assert release(holding_of(7, 1.0, Device("0", "a")), Late()).free


def test_gpus_are_named_by_what_cuda_was_told() -> None:
    assert VISIBLE == nvidia_gpu.CUDA_VISIBLE_DEVICES_ENV_VAR, "a warm worker would get no GPU, or all"
    devices = MemoryDevices(a=Usage(5, frozenset()), b=Usage(6, frozenset()))
    assert given(["1"], "1", 1.0, devices) == (Device("1", "b", 1.0, 6),)
    assert given(["0"], "1", 0.5, devices) == (
        Device("0", "b", 0.5, 6),
    )  # the node was given the second alone
    assert given(["0"], "b", 1.0, devices) == (Device("0", "b", 1.0, 6),)
    assert given(["0"], None, 1.0, NoDevices()) == (Device("0"),)
    assert given([], "", 0.0, devices) == ()


@pytest.mark.parametrize("devices", [MemoryDevices(a=Usage(0, frozenset())), NvmlDevices()])
def test_whatever_knows_devices_keeps_the_contract(devices: Devices) -> None:
    try:
        uuids = devices.uuids()
    except OSError as error:
        assert "NVML" in str(error)
        assert isinstance(devices_here(), NoDevices)
        pytest.skip("NVIDIA's driver is not installed")
    assert len(set(uuids)) == len(uuids)
    for uuid in uuids:
        usage = devices.usage(uuid)
        assert usage is not None
        assert usage.memory_bytes >= 0
    assert devices.usage("GPU-00000000-0000-0000-0000-000000000000") is None


def test_nvml_has_what_is_called() -> None:
    for name in (
        "nvmlDeviceGetHandleByUUID",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetGraphicsRunningProcesses",
        "NVMLError_NotFound",
        "NVMLError_InvalidArgument",
        "nvmlMemory_v2",
    ):
        assert hasattr(pynvml, name)


class StubDriver:
    """Supervisors that tell what they hold, and no other nodes."""

    def __init__(self, *holdings: Holding) -> None:
        self._holdings = list(holdings)

    async def holdings(self, actor: str) -> list[Holding]:
        assert actor == "attempt"
        return self._holdings

    def has_node(self, node_id: str) -> bool:
        assert node_id != "node"
        return False

    def end_group(self, ref: AttemptRef) -> None:
        assert ref == REF


async def test_an_attempt_is_on_record_until_the_service_has_heard_of_its_release(
    tmp_path: Path, worker: psutil.Process
) -> None:
    path, gpu = tmp_path / "agent.db", Device("0")
    mine = holding(worker, gpu)
    elsewhere = replace(mine, pid=mine.pid + 1, node="lost", place="another machine")
    releases = Releases(HoldingBook(path), StubDriver(mine, elsewhere))
    entry = Entry(REF, CommandState.LAUNCHED, attempt_pb2.Command(), "attempt")
    releases.look([entry])
    await asyncio.sleep(0)
    await releases.idle()
    releases.look([entry])
    assert not releases.settling([entry])
    assert worker.is_running()
    await releases.close()

    # The agent that comes after it finds the attempt gone.
    releases = Releases(HoldingBook(path), StubDriver())
    assert releases.settling([])
    releases.look([])
    capacity = ClusterCapacity(
        gpus=2, gpus_free=2, node_capacities=[NodeCapacity(node_id="node", gpus=2, gpus_free=2)]
    )
    releases.withhold(capacity)
    assert (capacity.gpus, capacity.gpus_free, capacity.gpus_held_back) == (2, 0, 0)
    assert capacity.node_capacities[0].gpus_free == 1
    await releases.idle()
    releases.look([])
    assert not releases.settling([])
    assert worker.status() == psutil.STATUS_ZOMBIE
    told = releases.told("training")
    assert {each.evidence for each in told} == {
        f"process {worker.pid} was ended by SIGKILL; no NVML to ask",
        "its node has left the cluster, with its GPUs",
    }
    assert [list(message.gpus) for message in release_of(told)] == [["0"], ["0"]]
    assert not releases.told("export")
    releases.forget(told)
    assert not releases.told("training")
    await releases.close()


async def test_a_gpu_that_does_not_come_free_is_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StubKeepers:
        def __init__(self) -> None:
            self.kept: list[Holding] = []

        def has(self, node: str, device: Device) -> bool:
            return bool(self.kept)

        def take(self, holding: Holding) -> None:
            self.kept.append(holding)

        def let_go(self, holding: Holding) -> None:
            self.kept.remove(holding)

    devices = MemoryDevices(a=Usage(9 * GIB, frozenset()))
    monkeypatch.setattr(reaper, "devices_here", lambda: devices)
    monkeypatch.setattr("finemesh.cluster.releases._AGAIN_SECONDS", 0.0)
    book = HoldingBook(tmp_path / "agent.db")
    book.note(REF, holding_of(7, 1.0, Device("0", "a", 1.0, GIB)))
    keepers = StubKeepers()
    releases = Releases(book, StubDriver(), keepers)
    releases.look([])
    await releases.idle()
    releases.look([])
    capacity = ClusterCapacity(gpus=2, gpus_free=1)  # Ray counts the kept one as given away
    releases.withhold(capacity)
    assert (capacity.gpus, capacity.gpus_free, capacity.gpus_held_back) == (1, 1, 1)
    assert not releases.settling([])  # others may start on the rest
    assert not releases.told("training")

    devices.state["a"] = Usage(GIB, frozenset())
    await releases.idle()
    releases.look([])
    await releases.idle()
    assert len(releases.told("training")) == 1
    assert not keepers.kept
    await releases.close()
