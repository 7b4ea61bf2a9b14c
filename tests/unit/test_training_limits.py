"""Limits of time, the classes of errors, and the estimate of a job's end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from finemesh.core.attempts import Attempt, AttemptRef, AttemptState, Directive
from finemesh.core.error_classes import ErrorClass, classify, is_hopeless
from finemesh.core.errors import ErrorRecord
from finemesh.core.names import Name
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.core.states import TrainingJobState as State
from finemesh.training.job import TrainingJob
from finemesh.training.limits import LimitSettings, passed
from finemesh.training.pace import HALF_LIFE_SECONDS, Pace

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = LimitSettings(validate_seconds=60, launch_seconds=100)
JOB = TrainingJob(
    Name("p", "trainingJobs", "j"),
    FineTuneSpec(Task.LANGUAGE, "base", "projects/p/datasets/d"),
    *("run", "uri", START, START),
    state_time=START,
)
ATTEMPT = Attempt(
    AttemptRef(str(JOB.name), 1, 1),
    *("c", AttemptState.RUNNING, Directive.CONTINUE, b"", START, START),
    start_time=START,
)


@pytest.mark.parametrize(
    ("job", "limit_seconds", "reason"),
    [
        (JOB, 60, "VALIDATE_TIMEOUT"),
        (replace(JOB, state=State.STARTING), 100, "LAUNCH_TIMEOUT"),
        (replace(JOB, state=State.RUNNING, max_run_seconds=50, run_seconds=20), 30, "RUN_TIMEOUT"),
    ],
)
def test_a_limit_is_passed_when_its_time_is_up_and_not_before(
    job: TrainingJob, limit_seconds: float, reason: str
) -> None:
    up = START + timedelta(seconds=limit_seconds)
    assert passed(job, ATTEMPT, up - timedelta(seconds=0.1), SETTINGS) is None
    error = passed(job, ATTEMPT, up, SETTINGS)
    assert error is not None
    assert error.reason == reason
    told = replace(ATTEMPT, directive=Directive.PAUSE)
    if job.state is not State.VALIDATING:  # it is stopping already
        assert passed(job, told, up, SETTINGS) is None


def test_a_job_without_a_limit_runs_for_ever_and_a_waiting_one_waits_for_ever() -> None:
    later = START + timedelta(days=400)
    assert passed(replace(JOB, state=State.RUNNING), ATTEMPT, later, SETTINGS) is None
    for state in (State.QUEUED, State.PAUSED, State.STARTING):
        assert passed(replace(JOB, state=state), None, later, SETTINGS) is None


def test_errors_are_tried_again_by_their_class() -> None:
    user, system, unknown = (ErrorRecord(code, "X", "x") for code in ("NOT_FOUND", "UNAVAILABLE", "INTERNAL"))
    assert [classify(each) for each in (user, system, unknown)] == list(ErrorClass)
    assert classify(ErrorRecord("DEADLINE_EXCEEDED", "RUN_TIMEOUT", "x")) is ErrorClass.USER
    assert is_hopeless(user, None, progressed=True)
    assert not is_hopeless(system, system, progressed=False)
    assert not is_hopeless(unknown, system, progressed=False)
    assert is_hopeless(unknown, unknown, progressed=False)
    assert not is_hopeless(unknown, unknown, progressed=True)


def test_the_end_is_estimated_from_the_pace_of_the_last_minutes() -> None:
    pace, now = Pace(START, 10), START
    assert pace.end_time(100) is None
    for step in range(11, 21):  # a step every 2 seconds
        now += timedelta(seconds=2)
        pace = pace.seen(step, now)
        pace = pace.seen(step, now)  # a report without a new step
    assert pace.end_time(100) == now + timedelta(seconds=160)
    # Twice as fast from now on: after many half-lives nothing is left of what was before.
    for step in range(21, 21 + 40):
        now += timedelta(seconds=HALF_LIFE_SECONDS)
        pace = pace.seen(step * 300 - 21 * 300 + 21, now)
    left = 1_000_000 - pace.step
    assert pace.end_time(1_000_000) == pytest.approx(now + timedelta(seconds=left), abs=timedelta(seconds=60))
