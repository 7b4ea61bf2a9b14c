"""`make bench`: speed and capacity, a JSON line per bar.

A line says what the bar is, what was measured (`ours`), against what (`peer`, where there is one) and whether
the goal was met. These figures are absolute, as the issue states them; bars against peers live beside this
file and are run by `make bench-<service>`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from finemesh.client import Connection, Settings, load_settings
from finemesh.embedded import Mesh, MeshConfig
from finemesh.v1.training_service_pb2 import ListTrainingJobsRequest

COMMAND = "make bench"
CALLS = 300


def report(bar: str, ours: float, goal: float, unit: str, *, peer: float | None = None) -> None:
    """Print one bar; lower is better in all of them."""
    ratio = round(ours / peer, 3) if peer else None
    line = {
        "bar": bar,
        "ours": round(ours, 3),
        "peer": round(peer, 3) if peer else None,
        "ratio": ratio,
        "goal": goal,
        "unit": unit,
        "met": ours <= goal,
        "command": COMMAND,
    }
    print(json.dumps(line), flush=True)


async def mesh_bars(folder: Path) -> None:
    """Time to readiness, memory when idle, and what the gateway adds to a unary call."""
    began = time.monotonic()
    async with Mesh(MeshConfig(data_dir=folder / "mesh")) as mesh:
        report("mesh ready", time.monotonic() - began, 20.0, "s")
        await asyncio.sleep(20)  # idle: whatever the start needed has been given back by now
        report("mesh idle memory, PSS", mesh.memory_pss_bytes() / 1e9, 1.5, "GB")
        environ = {"FINEMESH_DATA_DIR": str(mesh.site.data)}
        direct = load_settings(server=mesh.site.address("training"), environ=environ)
        through = load_settings(server=mesh.address, environ=environ)
        direct_ms, through_ms = await asyncio.to_thread(lambda: (unary_ms(direct), unary_ms(through)))
        report("unary call through the gateway, p50", through_ms, 5.0, "ms", peer=direct_ms)
        json_ms = await asyncio.to_thread(json_call_ms, mesh.url, through.token)
        report("the same call as JSON, p50", json_ms, 5.0, "ms", peer=direct_ms)


def unary_ms(settings: Settings) -> float:
    """Median time of ListTrainingJobs, in ms."""
    with Connection(settings) as connection:
        request = ListTrainingJobsRequest(parent="projects/demo")
        return median_ms(lambda: connection.training.ListTrainingJobs(request))


def json_call_ms(url: str, token: str) -> float:
    """The same over HTTP and JSON."""
    with httpx.Client(headers={"authorization": f"Bearer {token}"}) as client:
        return median_ms(lambda: client.get(f"{url}/v1/projects/demo/trainingJobs").raise_for_status())


def median_ms(call: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[CALLS // 10 :])


def demo_bar(folder: Path) -> None:
    """The whole demo, installation left out."""
    began = time.monotonic()
    command = [str(Path(sys.executable).parent / "finemesh"), "demo"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    report("demo", time.monotonic() - began, 300.0, "s")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="finemesh-bench-") as folder:
        asyncio.run(mesh_bars(Path(folder)))
        demo_bar(Path(folder))


if __name__ == "__main__":
    main()
