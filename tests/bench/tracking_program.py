"""Bars of `finemesh.client.Run`: what a logging call costs a torch loop, with the mesh there and away.

`python -m tests.bench.tracking_program FOLDER ADDRESS TOKEN` is the loop, a program of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np

from tests.bench.measuring import ENVIRONMENT, ROOT, Board
from tests.bench.tracking_site import site_elsewhere

STEPS: Final = 20_000
GOAL_US: Final = 20.0
_VALUES: Final = 5


def program_bars(board: Board, folder: Path) -> None:
    with site_elsewhere(folder) as own:
        here = _looped(folder / "here", own.target)
        board.show("Run.log of 5 values in a torch loop, p99, its sender active", here, GOAL_US, "µs")
        own.service.kill()
        away = _looped(folder / "away", own.target)
        board.show("Run.log of 5 values in a torch loop, p99, the mesh away", away, GOAL_US, "µs")


def _looped(folder: Path, target: str) -> float:
    command = [sys.executable, "-m", "tests.bench.tracking_program", str(folder), *target.split()[:2]]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["p99_us"]


def loop(folder: Path, address: str, token: str) -> None:
    """Train a small network, log five values at every step, and print the 99th percentile of the calls."""
    import torch
    from finemesh.client import Run, Settings

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 8))
    optimizer = torch.optim.AdamW(model.parameters())
    inputs, wanted = torch.randn(32, 64), torch.randn(32, 8)
    spent: list[int] = []
    run = Run("loop", folder=folder, settings=Settings(address, "p", token))
    for step in range(STEPS):
        loss = torch.nn.functional.mse_loss(model(inputs), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values = {f"train/metric{index}": loss.item() + index for index in range(_VALUES)}
        began = time.perf_counter_ns()
        run.log(values, step)
        spent.append(time.perf_counter_ns() - began)
    run.finish(wait_seconds=5)
    print(json.dumps({"p99_us": float(np.percentile(spent, 99)) / 1000}))


if __name__ == "__main__":
    loop(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
