"""Which checkpoints count, and which of them stay."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.finetune import Checkpointing
from finemesh.training.checkpoints import Checkpoint, check, find_repeat, retain
from hypothesis import given, settings
from hypothesis import strategies as st

OUTPUT = "s3://bucket/projects/p/trainingJobs/j"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def checkpoint(step: int, *, best: bool = False, digest: str = "a" * 64, attempt: int = 1) -> Checkpoint:
    uri = f"{OUTPUT}/checkpoints/step-{step:08}-a{attempt}"
    return Checkpoint(step, uri, digest, 1, attempt, NOW, best=best)


@settings(database=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 4), st.booleans())
def test_the_last_n_and_the_best_stay(records: list[bool], keep_last: int, keep_best: bool) -> None:
    """`records` says of each step whether its validation was better than all before."""
    policy = Checkpointing(keep_last=keep_last, keep_best=keep_best)
    kept: tuple[Checkpoint, ...] = ()
    for step, best in enumerate(records, 1):
        before = {each.step for each in kept} | {step}
        retention = retain(kept, checkpoint(step, best=best), policy)
        kept = retention.kept
        assert {each.step for each in (*kept, *retention.expired)} == before
    steps = [each.step for each in kept]
    last = list(range(1, len(records) + 1))[-keep_last:]
    assert steps[-len(last) :] == last
    best = max((step for step, record in enumerate(records, 1) if record), default=0)
    if keep_best and best:
        assert set(steps) == {*last, best}
        assert [each.step for each in kept if each.best] == [best]
    else:
        assert steps == last


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("checkpoint.step", Checkpoint(0, f"{OUTPUT}/checkpoints/x", "a" * 64, 1, 1, NOW)),
        ("checkpoint.uri", Checkpoint(1, f"{OUTPUT}/checkpoints/", "a" * 64, 1, 1, NOW)),
        ("checkpoint.uri", Checkpoint(1, f"{OUTPUT}/checkpoints/../../other", "a" * 64, 1, 1, NOW)),
        ("checkpoint.uri", Checkpoint(1, f"{OUTPUT}2/checkpoints/x", "a" * 64, 1, 1, NOW)),
        ("checkpoint.manifest_sha256", Checkpoint(1, f"{OUTPUT}/checkpoints/x", "A" * 64, 1, 1, NOW)),
        ("checkpoint.size_bytes", Checkpoint(1, f"{OUTPUT}/checkpoints/x", "a" * 64, 0, 1, NOW)),
    ],
)
def test_what_cannot_be_a_checkpoint_is_refused(field: str, wrong: Checkpoint) -> None:
    with pytest.raises(InvalidError) as refused:
        check(wrong, OUTPUT)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_a_repeated_commit_is_recognised_and_a_contradiction_refused() -> None:
    committed = [checkpoint(10), checkpoint(20)]
    assert find_repeat(committed, checkpoint(30)) is None
    assert find_repeat(committed, checkpoint(20)) == committed[1]
    with pytest.raises(PreconditionError) as other:
        find_repeat(committed, checkpoint(20, digest="b" * 64))
    assert other.value.reason == "STEP_COMMITTED"
    with pytest.raises(PreconditionError) as behind:
        find_repeat(committed, checkpoint(15))
    assert behind.value.reason == "STALE_CHECKPOINT"


def test_an_attempt_that_resumed_before_damaged_checkpoints_commits_in_their_place() -> None:
    committed = [checkpoint(10), checkpoint(20), checkpoint(30, best=True)]
    anew = checkpoint(20, best=True, digest="b" * 64, attempt=2)
    assert find_repeat(committed, anew) is None
    retention = retain(committed, anew, Checkpointing(keep_last=3))
    assert [(each.step, each.attempt, each.best) for each in retention.kept] == [
        (10, 1, False),
        (20, 2, True),
    ]
    assert [(each.step, each.attempt) for each in retention.expired] == [(30, 1)]
