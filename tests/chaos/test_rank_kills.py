"""SIGKILL of one of two ranks after a random step: the other says so, and any number of ranks goes on."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.spec.finetune import Checkpointing, FineTuneSpec, Full, Resources, Strategy, Task, Tower
from finemesh.finetune.distributed import ALONE

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset
from tests.support.ranks import Leg, carry_out, environments
from tests.support.servers import PATIENCE_SECONDS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def test_a_run_goes_on_after_the_death_of_a_rank(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    strategies = [chance.choice([Strategy.DDP, Strategy.FSDP]) for _ in range(2)]
    chosen = spec(
        Task.LANGUAGE,
        method=Full((Tower.LANGUAGE,)),
        checkpoint=Checkpointing(every_steps=chance.randint(1, 3), keep_last=2),
    )
    chosen = replace(chosen, optimization=replace(chosen.optimization, max_steps=12))
    tiny_model(tmp_path / "base", "llama")
    write_dataset(tmp_path / "data", list(text_rows({"train": 20})))
    folders = (str(tmp_path / "base"), str(tmp_path / "data"), str(tmp_path / "straight"))
    straight = carry_out(Leg(chosen.to_dict(), *folders), ALONE)

    killed, killed_after = chance.randrange(2), chance.randint(4, 10)
    codes, _, errors = launch(shared(chosen, strategies[0]), tmp_path, killed, killed_after)
    assert codes[killed] == -9
    assert codes[1 - killed] == 1
    assert "error RANK_LOST" in errors[1 - killed]

    codes, told, errors = launch(shared(chosen, strategies[1]), tmp_path, resume=True)
    assert codes == [0, 0], errors
    steps = [line["step"] for line in told if "train/loss" in line]
    assert 1 < steps[0] <= killed_after + 2
    assert steps == list(range(steps[0], 13))
    assert told[-1]["certificate"]["sample_hash"] == straight["sample_hash"]
    losses = {line["step"]: line["train/loss"] for line in told if "train/loss" in line}
    assert losses == pytest.approx({step: straight["losses"][step] for step in losses}, rel=1e-3)


def shared(chosen: FineTuneSpec, strategy: Strategy) -> FineTuneSpec:
    return replace(chosen, resources=Resources(cpus=2, workers=2, strategy=strategy))


def launch(
    chosen: FineTuneSpec, folder: Path, killed: int = -1, killed_after: int = 0, *, resume: bool = False
) -> tuple[list[int], list[dict[str, Any]], list[str]]:
    """Two ranks of the command; exit codes, what rank 0 printed, and what each wrote to standard error."""
    (folder / "spec.json").write_text(json.dumps(chosen.to_dict()))
    command = [sys.executable, "-m", "finemesh.finetune", str(folder / "spec.json")]
    command += ["--base", str(folder / "base"), "--dataset", str(folder / "data")]
    command += ["--work", str(folder / "work"), *(["--resume"] if resume else [])]
    told: list[dict[str, Any]] = []
    errors = [folder / "errors-0", folder / "errors-1"]
    first, second = environments(2)
    with (
        errors[0].open("w") as of_leader,
        errors[1].open("w") as of_other,
        subprocess.Popen(command, env=first, stdout=subprocess.PIPE, stderr=of_leader, text=True) as leader,
        subprocess.Popen(command, env=second, stdout=subprocess.DEVNULL, stderr=of_other) as other,
    ):
        try:
            assert leader.stdout
            for line in leader.stdout:
                told.append(json.loads(line))
                if told[-1].get("step") == killed_after and "train/loss" in told[-1]:
                    (leader, other)[killed].kill()
            codes = [leader.wait(PATIENCE_SECONDS), other.wait(PATIENCE_SECONDS)]
        finally:
            leader.kill()
            other.kill()
    return codes, told, [path.read_text() for path in errors]
