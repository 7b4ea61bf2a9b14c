"""SIGKILL of a process that trains, after a random step: resumed from disk it is the same run, to the bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from finemesh.core.spec.finetune import Evaluation, Full, Lora, Sequence, Task, Tower
from finemesh.finetune.certify import certify

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

METHODS = (Lora(rank=2, dropout=0.1), Full((Tower.LANGUAGE,)))


def test_a_killed_run_goes_on_as_if_nothing_had_been(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    chosen = spec(
        Task.LANGUAGE,
        method=chance.choice(METHODS),
        sequence=chance.choice([Sequence(), Sequence(packing=False, length_grouping=True)]),
        validation_split="val",
        evaluation=Evaluation(every_steps=chance.randint(1, 5)),
    )
    model = tiny_model(tmp_path / "llama", "llama")
    dataset = write_dataset(tmp_path / "texts", list(text_rows({"train": 20, "val": 4})))
    steps = chance.randint(2, 20)
    certificate = certify(chosen, model, dataset, tmp_path / "work", steps=steps, seed=seed)
    said = "\n".join(certificate.lines())
    assert certificate.green, said
    assert (certificate.steps, certificate.exact) == (max(4, min(steps, 6)), True), said
    assert certificate.resumed_from_step <= certificate.killed_after_step < certificate.steps, said
