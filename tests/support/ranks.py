"""Runs of the loop by several ranks, each a process: `python -m tests.support.ranks plan.json`, as torchrun
sets the environment. Starting a process takes longer than a run, so that one start makes many runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune.distributed import ALONE, end_process, from_environment
from finemesh.finetune.hooks import NoHooks, StopReason
from finemesh.finetune.loop import train

from tests.support.servers import free_ports

_QUIET = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


@dataclass
class Leg:
    """One call of `train`: by all ranks, or by rank 0 alone. Stops once `stop_after` steps are done."""

    spec: dict[str, Any]
    base: str
    dataset: str
    work: str
    resume_from: str = ""
    stop_after: int = 0
    alone: bool = False


@dataclass
class Told(NoHooks):
    """What the leader was told."""

    stop_after: int = 0
    losses: dict[int, float] = field(default_factory=dict[int, float])
    values: dict[str, float] = field(default_factory=dict[str, float])
    resumed_hash: str = ""

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        self.values |= values
        if "train/loss" in values:
            self.losses[step] = values["train/loss"]

    def on_resume(self, certificate: Any, sample_hash: str) -> None:
        assert certificate.sample_hash == sample_hash
        self.resumed_hash = sample_hash

    def should_stop(self) -> StopReason | None:
        return StopReason.PAUSE if self.stop_after and self.stop_after in self.losses else None


def environments(ranks: int) -> list[dict[str, str]]:
    """What torchrun sets, on a free port of loopback."""
    port = str(free_ports(1)[0])
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **_QUIET}
        for rank in range(ranks)
    ]


def run_legs(legs: Sequence[Leg], folder: Path, ranks: int = 2, seconds: float = 280) -> list[dict[str, Any]]:
    """Carry `legs` out, one after the other, within so many seconds; what rank 0 was told of each."""
    plan = folder / "plan.json"
    plan.write_text(json.dumps([asdict(leg) for leg in legs]))
    command = [sys.executable, "-m", "tests.support.ranks", str(plan)]
    processes = [
        subprocess.Popen(command, env=each, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for each in environments(ranks)
    ]
    try:
        said = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(said)[-4000:]
    return json.loads((folder / "told.json").read_text())


def carry_out(leg: Leg, group: Any) -> dict[str, Any]:
    """One leg on this rank; what it was told."""
    told = Told(leg.stop_after)
    result = train(
        FineTuneSpec.from_dict(leg.spec),
        base_model=Path(leg.base),
        dataset=Path(leg.dataset),
        work=Path(leg.work),
        hooks=told,
        resume_from=Path(leg.resume_from) if leg.resume_from else None,
        group=group,
    )
    return {**asdict(told), **asdict(result.certificate), "checkpoint": str(result.checkpoint.path)}


def main(plan: Path) -> None:
    torch.set_num_threads(1)
    told: list[dict[str, Any]] = []
    with from_environment() as group:
        for leg in (Leg(**each) for each in json.loads(plan.read_text())):
            if group.leads or not leg.alone:
                told.append(carry_out(leg, ALONE if leg.alone else group))
            group.tell("")
    if group.leads:
        (plan.parent / "told.json").write_text(json.dumps(told, default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    end_process(0)
