"""Bars of logging: what a call costs the training loop, and that it costs no more while Tracking is away.

The loop runs in a process of its own, as the worker of a job does, and its spool is shipped by another, as
the supervisor does, on the same cores; Tracking has a core of its own, as if on another machine.
`python -m tests.bench.tracking_logging PATH STEPS` is the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import numpy as np

from tests.bench.measuring import ENVIRONMENT, ROOT, Board
from tests.bench.tracking_ingest import next_run
from tests.bench.tracking_reads import caller
from tests.bench.tracking_site import Site, site_elsewhere

STEPS: Final = 20_000
GOAL_US: Final = 20.0
_VALUES: Final = 5


def logging_bars(board: Board, folder: Path) -> None:
    with site_elsewhere(folder) as own:
        with shipped(own, folder / "here.spool"):
            here = _looped(folder / "here.spool")
        board.show("a logging call in a torch loop, p99, the sender active", here, GOAL_US, "µs")
        with shipped(own, folder / "away.spool"):
            own.service.kill()
            away = _looped(folder / "away.spool")
        board.show("a logging call in a torch loop, p99, Tracking away", away, GOAL_US, "µs")


@contextlib.contextmanager
def shipped(own: Site, path: Path) -> Generator[None]:
    """A process that ships the spool as it grows."""
    run = f"logged{next_run()}"
    stub, metadata = caller(own.target)
    from finemesh.v1 import run_pb2
    from finemesh.v1 import tracking_service_pb2 as pb

    stub.CreateRun(pb.CreateRunRequest(parent="projects/p", run_id=run, run=run_pb2.Run()), metadata=metadata)
    path.with_suffix(".run").write_text(f"projects/p/runs/{run}")
    address, token = own.target.split()
    command = [sys.executable, "-m", "tests.bench.tracking_logging", "ship", str(path), address, token]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _looped(path: Path) -> float:
    command = [sys.executable, "-m", "tests.bench.tracking_logging", "loop", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["p99_us"]


def loop(path: Path) -> None:
    """Train a small network, log five values at every step, and print the 99th percentile of the calls."""
    import torch
    from finemesh.cluster.spool import SpoolWriter

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 8))
    optimizer = torch.optim.AdamW(model.parameters())
    inputs, wanted = torch.randn(32, 64), torch.randn(32, 8)
    writer = SpoolWriter(path, path.with_suffix(".run").read_text(), 1)
    spent: list[int] = []
    for step in range(STEPS):
        loss = torch.nn.functional.mse_loss(model(inputs), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values = {f"train/metric{index}": loss.item() + index for index in range(_VALUES)}
        began = time.perf_counter_ns()
        writer.append(step, values)
        spent.append(time.perf_counter_ns() - began)
    writer.close()
    print(json.dumps({"p99_us": float(np.percentile(spent, 99)) / 1000}))


async def ship(path: Path, address: str, token: str) -> None:
    """Ship until ended."""
    from finemesh.chassis.client_channel import channel
    from finemesh.cluster.shipper import Shipper

    await Shipper(channel(address, lambda: token), path).ship(lambda: False)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ship", path, address, token]:
            asyncio.run(ship(Path(path), address, token))
        case _:
            loop(Path(sys.argv[2]))
