"""What `finemesh train certify` makes of two jobs."""

from __future__ import annotations

from typing import Any

import pytest
from finemesh.chassis.fine_tune_spec import spec_to_proto
from finemesh.client.cli.certify import compare, shortened
from finemesh.core.spec.finetune import Precision, Task
from finemesh.v1 import training_job_pb2 as pb

from tests.support.conversations import spec

LOSSES = {1: 0.5, 2: 0.4, 3: 0.3}


def job(precision: Precision = Precision.FP32, **changes: str) -> pb.TrainingJob:
    facts = {"sample_hash": "s", "loss_digest": "l", "weights_sha256": "w", **changes}
    return pb.TrainingJob(
        spec=spec_to_proto(spec(Task.LANGUAGE, precision=precision)),
        attempt=2,
        latest_checkpoint=pb.Checkpoint(step=3, **facts),  # pyright: ignore[reportArgumentType]
        resume_certificates=[pb.ResumeCertificate(attempt=2, step=1, matches=True)],
    )


def red(straight: Any, probe: Any, losses: dict[int, float] = LOSSES) -> list[str]:
    return [verdict.what for verdict in compare(straight, probe, LOSSES, losses) if not verdict.holds]


def test_the_same_is_green() -> None:
    assert red(job(), job()) == []
    said = [verdict.said for verdict in compare(job(), job(), LOSSES, LOSSES)]
    assert said[0] == "resumed from step 1"


@pytest.mark.parametrize(
    ("fact", "what"),
    [("sample_hash", "samples"), ("loss_digest", "losses"), ("weights_sha256", "weights")],
)
def test_what_differs_is_red(fact: str, what: str) -> None:
    other = job()
    setattr(other.latest_checkpoint, fact, "other")
    assert red(job(), other) == [what]


def test_a_probe_that_was_not_killed_proves_nothing() -> None:
    probe = job()
    probe.attempt = 1
    del probe.resume_certificates[:]
    assert red(job(), probe) == ["killed"]


def test_a_probe_that_started_anew_proves_nothing() -> None:
    probe = job()
    del probe.resume_certificates[:]
    assert red(job(), probe) == ["killed"]


def test_a_loss_that_differs_or_lacks_is_named_by_its_step() -> None:
    for losses in ({**LOSSES, 2: 0.4 + 1e-12}, {1: 0.5, 3: 0.3}):
        [verdict] = [each for each in compare(job(), job(), LOSSES, losses) if not each.holds]
        assert verdict.said == "DIFFER, first at step 2"


def test_inexact_arithmetic_has_a_tolerance() -> None:
    ours, theirs = job(Precision.BF16), job(Precision.BF16, loss_digest="other", weights_sha256="other")
    assert red(ours, theirs, {**LOSSES, 2: 0.401}) == []
    assert red(ours, theirs, {**LOSSES, 2: 0.5}) == ["losses"]


def test_the_spec_is_cut_short_and_not_tested() -> None:
    given = spec_to_proto(spec(test_split="test"))
    assert given.optimization.max_steps == 6
    cut = shortened(given, 20)
    assert (cut.optimization.max_steps, cut.test_split, cut.HasField("test_split")) == (6, "", True)
    given.optimization.max_steps = 2
    assert shortened(given, 20).optimization.max_steps == 4
    given.optimization.max_steps = 0
    assert shortened(given, 20).checkpoint.every_steps == 4
