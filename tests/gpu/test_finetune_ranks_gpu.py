"""Two ranks with a GPU each compute what one does, whole and sharded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finemesh.core.spec.finetune import Full, Lora, Precision, Resources, Strategy, Task, Tower
from finemesh.finetune.distributed import ALONE

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset
from tests.support.ranks import Leg, carry_out, run_legs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FP32, 1e-3), (Precision.BF16, 5e-2)])
def test_two_gpus_compute_what_one_does(tmp_path: Path, precision: Precision, tolerance: float) -> None:
    base = str(tiny_model(tmp_path / "base", "llama"))
    dataset = str(write_dataset(tmp_path / "data", list(text_rows({"train": 20, "val": 4}))))
    one = Resources(cpus=2, gpus=1)
    legs: list[Leg] = []
    for method in (Lora(rank=4), Full((Tower.LANGUAGE,))):
        alone = spec(Task.LANGUAGE, method=method, precision=precision, validation_split="val", resources=one)
        for strategy in (Strategy.DDP, Strategy.FSDP):
            both = replace(alone, resources=Resources(cpus=2, gpus=2, strategy=strategy))
            legs.append(Leg(both.to_dict(), base, dataset, str(tmp_path / f"{len(legs)}")))
        legs.append(Leg(alone.to_dict(), base, dataset, str(tmp_path / f"{len(legs)}")))
    told = [carry_out(leg, ALONE) for leg in legs[2::3]]
    shared = run_legs([leg for index, leg in enumerate(legs) if index % 3 < 2], tmp_path)
    for index, by_two in enumerate(shared):
        expected = list(told[index // 2]["losses"].values())
        assert list(by_two["losses"].values()) == pytest.approx(expected, rel=tolerance)
