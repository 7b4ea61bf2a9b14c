"""The verdict over a run that was killed and resumed: green for the same, and red with what differs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finemesh.core.errors import PreconditionError
from finemesh.core.spec.finetune import Precision, Task
from finemesh.finetune.certify import Certificate, Told, certify, compare, kills, shortened, watched
from safetensors.torch import save_file

from tests.support.conversations import spec, text_rows, tiny_model, write_dataset

# The last as batch norms count their batches.
WEIGHTS = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2), "c": torch.tensor(7)}


def told(folder: Path, losses: dict[int, float], digest: str = "d", samples: str = "s") -> Told:
    (folder / "weights").mkdir(parents=True)
    save_file(WEIGHTS, folder / "weights" / "trainable.safetensors")
    certificate = {"step": 4, "sample_hash": samples, "loss_digest": digest}
    return Told({"step": 4, "checkpoint": {"path": str(folder)}, "certificate": certificate}, losses)


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Certificate]:
    straight = told(tmp_path / "straight", {1: 0.5, 2: 0.4, 3: 0.3, 4: 0.2})
    same = told(tmp_path / "resumed", {3: 0.3, 4: 0.2})
    killed = Told({}, {1: 0.5, 2: 0.4, 3: 0.3})

    def judge(
        precision: Precision = Precision.FP32, resumed: Told = same, killed: Told = killed
    ) -> Certificate:
        return compare(straight, killed, resumed, spec(Task.LANGUAGE, precision=precision), 3)

    return judge


def test_the_same_is_green(judge: Callable[..., Certificate]) -> None:
    certificate = judge()
    assert certificate.green
    assert (certificate.killed_after_step, certificate.resumed_from_step) == (3, 2)
    assert (certificate.loss_difference, certificate.weight_difference) == (0, 0)
    assert [*certificate.lines()] == [
        "resume certificate: green",
        "  killed by SIGKILL after step 3 of 4, resumed from step 2",
        "  samples: the same, in the same order",
        "  losses: equal bit for bit",
        "  weights: equal bit for bit",
    ]


def test_what_differs_is_red_and_named(judge: Callable[..., Certificate], tmp_path: Path) -> None:
    cases = {
        "the loss of step 3": {"losses": {3: 0.3 + 1e-9, 4: 0.2}},
        "the loss of step 4": {"losses": {3: 0.3}},
        "the digest of all losses": {"losses": {3: 0.3, 4: 0.2}, "digest": "other"},
    }
    for number, (name, harm) in enumerate(cases.items()):
        certificate = judge(resumed=told(tmp_path / str(number), **harm))  # pyright: ignore[reportArgumentType]
        assert (certificate.green, certificate.differing) == (False, (name,))
        assert f"  differs: {name}" in certificate.lines()
    others = judge(resumed=told(tmp_path / "others", {3: 0.3, 4: 0.2}, samples="other"))
    assert not others.green
    assert "  samples: OTHERS" in others.lines()


def test_weights_are_compared_one_by_one(judge: Callable[..., Certificate], tmp_path: Path) -> None:
    resumed = told(tmp_path / "moved", {3: 0.3, 4: 0.2})
    path = tmp_path / "moved" / "weights" / "trainable.safetensors"
    save_file({**WEIGHTS, "a": torch.tensor([3.0, 4.05])}, path)
    moved = judge(resumed=resumed)
    assert moved.differing == ("a",)
    assert moved.weight_difference == pytest.approx(0.01, rel=1e-4)
    assert judge(Precision.BF16, resumed).green  # 1% is within what is stated for inexact arithmetic
    save_file({"a": WEIGHTS["a"], "c": WEIGHTS["c"]}, path)
    assert judge(Precision.BF16, resumed).differing == ("b",)


def test_within_a_tolerance_where_arithmetic_is_not_exact(
    judge: Callable[..., Certificate], tmp_path: Path
) -> None:
    near = told(tmp_path / "near", {3: 0.301, 4: 0.2}, digest="other")
    far = told(tmp_path / "far", {3: 0.4, 4: 0.2}, digest="other")
    assert judge(Precision.BF16, near).green
    assert judge(Precision.BF16, far).differing == ("the loss of step 3",)
    assert not judge(Precision.BF16, told(tmp_path / "nan", {3: float("nan"), 4: 0.2})).green


def test_the_spec_is_cut_short_and_not_tested() -> None:
    long = replace(spec(test_split="test"), optimization=replace(spec().optimization, max_steps=0))
    cut = shortened(long, 20)
    assert (cut.optimization.max_steps, cut.checkpoint.every_steps, cut.test_split) == (20, 4, "")
    assert shortened(spec(), 1).optimization.max_steps == 4
    assert shortened(spec(), 20).optimization.max_steps == spec().optimization.max_steps == 6


@pytest.mark.parametrize("steps", [4, 6, 20])
def test_the_probe_is_killed_behind_a_checkpoint_and_before_the_end(steps: int) -> None:
    cut = shortened(replace(spec(), optimization=replace(spec().optimization, max_steps=0)), steps)
    for seed in range(20):
        chosen = kills(cut, seed)
        assert min(cut.checkpoint.every_steps + 1, steps - 1) <= chosen.start < chosen.stop == steps


def program(*told: str) -> list[str]:
    """A process that tells of steps (numbers) and checkpoints as a run does; then it sleeps, or is over."""
    lines = [
        json.dumps({"step": int(each), "train/loss": 0.5} if each.isdecimal() else {each: ""})
        for each in told
    ]
    end = "import time; time.sleep(60)" if told[-1] != "over" else ""
    return [sys.executable, "-c", f"print({chr(10).join(lines)!r}, flush=True); {end}"]


def test_the_probe_is_killed_once_a_checkpoint_is_on_disk() -> None:
    killed = watched(program("1", "2", "checkpoint", "3"), range(2, 4))
    assert sorted(killed.losses) == [1, 2, 3]
    with pytest.raises(PreconditionError, match=r"without evaluation\.patience") as caught:
        watched(program("1", "2", "3", "over"), range(2, 4))
    assert caught.value.reason == "PROBE_FAILED"


def test_a_run_that_fails_is_no_certificate(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "llama", "llama")
    dataset = write_dataset(tmp_path / "texts", list(text_rows({"val": 4})))
    with pytest.raises(PreconditionError, match="SPLIT_EMPTY") as caught:
        certify(spec(Task.LANGUAGE), model, dataset, tmp_path / "work", steps=3, seed=0)
    assert caught.value.reason == "PROBE_FAILED"
