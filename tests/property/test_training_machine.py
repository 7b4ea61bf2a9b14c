"""The life of training jobs against a model, with commands, deaths, late messages and restarts interleaved.

The service, its scheduler, the queue and SQLite are the real ones; time is a clock that the test moves. The
model (tests/support/training_model.py) says in plain words what each step should do. After every step the
jobs, their attempts, their histories and the facts that were written for publication are compared; in the
end, when nothing fails any more, every job has to come to its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeAlias

import pytest
from finemesh.core.attempts import (
    AttemptRef,
    AttemptState,
    ClusterCapacity,
    Completion,
    Outcome,
    Phase,
    WorkReport,
)
from finemesh.core.clock import ManualClock
from finemesh.core.errors import ErrorRecord, FencedError, PreconditionError
from finemesh.core.names import Name
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.domain import TrainingResult
from finemesh.training.job import TrainingJob
from finemesh.training.tables import CHASSIS, HISTORY
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from tests.support.training_checks import check_history, check_job
from tests.support.training_model import MAX_RESTARTS, RUN_LIMIT, STOPS, Model
from tests.support.training_world import World

CLUSTER, CPUS = "c1", 2
CODES = {"user": "INVALID_ARGUMENT", "system": "UNAVAILABLE", "unknown": "INTERNAL"}
ENDINGS = st.sampled_from(["unknown", "unknown", "system", "system", "result", "user", "stop"])
PICKS = st.integers(0, 63)
Command: TypeAlias = Callable[[Name], Coroutine[Any, Any, object]]


class TrainingMachine(RuleBasedStateMachine):
    """One service, one cluster of two cores, jobs of one core each."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.models: list[Model] = []
        self.told: dict[str, list[dict[str, Any]]] = {}

    @property
    def clock(self) -> ManualClock:
        return self.world.clock

    @initialize()
    def start(self) -> None:
        for _ in range(2):
            self.create(0, limited=False)
        self.admit("fit")
        self.place()

    def teardown(self) -> None:
        try:
            self.nothing_fails_any_more()
        finally:
            self.world.close()

    # What users do

    @rule(priority=st.sampled_from([0, 1, 20]), limited=st.booleans())
    @precondition(lambda self: sum(not model.terminal for model in self.models) < 4)
    def create(self, priority: int, *, limited: bool) -> None:
        name = Name("p", "trainingJobs", f"j{len(self.models):03}")
        spec = FineTuneSpec(Task.LANGUAGE, "base", "projects/p/datasets/d")
        now, limit = self.clock.now(), RUN_LIMIT if limited else 0.0
        job = TrainingJob(
            name, spec, "", "", now, now, priority=priority, max_restarts=MAX_RESTARTS, max_run_seconds=limit
        )
        self.world.run(self.world.service.create(job, None))
        self.models.append(Model(name, priority, now, limit))

    @rule(pick=PICKS)
    @precondition(lambda self: self.models)
    def cancel(self, pick: int) -> None:
        model = self._picked(pick)
        refused = model.state in {"SUCCEEDED", "FAILED"}
        self._command(self.world.service.cancel, model, refused=refused)
        if not model.terminal and model.state != "CANCELLING":
            model.asked("CANCELLING", "CANCEL", self.clock.now())

    @rule(pick=PICKS)
    @precondition(lambda self: self.models)
    def pause(self, pick: int) -> None:
        model = self._picked(pick)
        refused = model.terminal or model.state == "CANCELLING"
        self._command(self.world.service.pause, model, refused=refused)
        if not refused and model.state not in {"PAUSING", "PAUSED"}:
            model.asked("PAUSING", "PAUSE", self.clock.now())

    @rule(pick=PICKS)
    @precondition(lambda self: any(model.state in {"PAUSING", "PAUSED"} for model in self.models))
    def resume(self, pick: int) -> None:
        paused = [model for model in self.models if model.state == "PAUSED"]
        model = paused[pick % len(paused)] if paused and pick % 4 else self._picked(pick)
        if model.state == "PAUSED":
            self._resume(model)
        else:
            refused = model.terminal or model.state in {"CANCELLING", "PAUSING"}
            self._command(self.world.service.resume, model, refused=refused)

    @rule(pick=PICKS, priority=st.sampled_from([0, 1, 20]))
    @precondition(lambda self: self.models)
    def prioritise(self, pick: int, priority: int) -> None:
        model = self._picked(pick)
        refused = model.terminal and model.priority != priority
        set_priority = self.world.service.set_priority
        self._command(lambda name: set_priority(name, priority), model, refused=refused)
        if not refused:
            model.priority = priority

    # What the scheduler does

    @rule(answer=st.sampled_from(["fit", "fit", "fit", "unfit", "away"]))
    @precondition(lambda self: any(model.state == "VALIDATING" for model in self.models))
    def admit(self, answer: str) -> None:
        self.world.datasets.answer = answer
        self.world.run(self.world.scheduler.admit())
        now = self.clock.now()
        for model in self.models:
            if model.state == "VALIDATING" and model.due(now):
                model.checks(answer, now)

    @rule()
    @precondition(lambda self: any(model.waits for model in self.models))
    def place(self) -> None:
        """Who starts and who has to make room is the scheduler's to say: the model takes it over."""
        live = sum(model.live is not None for model in self.models)
        capacity = ClusterCapacity(cpus=CPUS, cpus_free=CPUS - live, nodes=1)
        # The report is older than what is dispatched now, so that it cannot count it.
        self.world.run(self.world.queue.sync(CLUSTER, capacity, []))
        self.clock.advance(0.001)
        now = self.clock.now()
        may_start = {str(model.name) for model in self.models if model.waits and model.due(now)}
        self.world.run(self.world.scheduler.place())
        for model in self.models:
            job = self.world.run(self.world.service.get(model.name))
            if job.state == "PREEMPTING" != model.state or "preempted" in job.message:
                if model.live:
                    model.asked("PREEMPTING", "PREEMPT", now)
            elif job.attempt > model.attempts:
                assert str(model.name) in may_start
                model.placed(now)

    @rule(pick=PICKS)
    @precondition(lambda self: any(model.state in {"STARTING", "RUNNING"} for model in self.models))
    def preempt(self, pick: int) -> None:
        held = [model for model in self.models if model.state in {"STARTING", "RUNNING"}]
        model = held[pick % len(held)]
        self.world.run(self.world.preempt(model.name))
        model.asked("PREEMPTING", "PREEMPT", self.clock.now())

    # What attempts say

    @rule(pick=PICKS, phase=st.sampled_from(list(Phase)))
    @precondition(lambda self: any(model.attempts for model in self.models))
    def renew(self, pick: int, phase: Phase) -> None:
        model, now = self._picked(pick), self.clock.now()
        call = self.world.queue.renew(_ref(model), WorkReport(phase, message="at it"))
        if not model.holds(now) or (model.live and model.live.is_cut_off(now)):
            with pytest.raises(FencedError):
                self.world.run(call)
            return
        lease = self.world.run(call)
        assert model.live is not None
        assert lease.directive == model.live.directive
        assert (lease.stop_seconds > 0) == (model.live.directive != "CONTINUE")
        model.renewed(now, at_work=phase is not Phase.STARTING)

    @rule(pick=PICKS)
    @precondition(lambda self: any(model.attempts for model in self.models))
    def commit(self, pick: int) -> None:
        model, now = self._picked(pick), self.clock.now()
        step = model.saved_step + 10
        uri = f"s3://bucket/{model.name}/checkpoints/step-{step:08}-a{model.attempts}"
        checkpoint = Checkpoint(step, uri, f"{step:064x}", 1, model.attempts, now)
        call = self.world.service.commit_checkpoint(_ref(model), checkpoint)
        if not model.holds(now):
            with pytest.raises(FencedError):
                self.world.run(call)
            return
        self.world.run(call)
        model.saved_step, model.saved_by = step, model.attempts
        model.facts.append("checkpointed")

    @rule(pick=PICKS, how=ENDINGS)
    @precondition(lambda self: any(model.attempts for model in self.models))
    def complete(self, pick: int, how: str) -> None:
        model, now = self._picked(pick), self.clock.now()
        completion = _completion(model, how)
        call = self.world.queue.complete(_ref(model), completion)
        if not model.holds(now):
            # A repetition of what it said before changes nothing; anything else is refused.
            with contextlib.suppress(FencedError):
                self.world.run(call)
            return
        assert model.live is not None
        if how == "result" and not model.live.begun:
            with pytest.raises(PreconditionError):
                self.world.run(call)
            return
        self.world.run(call)
        self.world.run(self.world.queue.complete(_ref(model), completion))  # the answer got lost
        _take_end(model, how, now)

    @rule(pick=PICKS, phase=st.sampled_from(list(Phase)), how=ENDINGS)
    @precondition(lambda self: any(model.waits for model in self.models))
    def carry_out_an_attempt(self, pick: int, phase: Phase, how: str) -> None:
        """The steps of an attempt in a row: what single steps alone would rarely come to."""
        self.wait(9.0)
        self.place()
        self.renew(pick, phase)
        self.complete(pick, how)

    @rule(pick=st.integers(1, 7))
    @precondition(lambda self: any(model.state == "RUNNING" for model in self.models))
    def pause_then_cancel(self, pick: int) -> None:
        """A stronger signal gives no more time."""
        self.renew(pick, Phase.RUNNING)
        self.pause(pick)
        for _ in range(2):
            self.wait(9.0)
            self.renew(pick, Phase.RUNNING)
            self.cancel(pick)

    @rule(pick=PICKS)
    @precondition(lambda self: any(model.attempts > 1 for model in self.models))
    def speak_too_late(self, pick: int) -> None:
        """An attempt that was replaced comes back from a partition."""
        replaced = [model for model in self.models if model.attempts > 1]
        model = replaced[pick % len(replaced)]
        ref = AttemptRef(str(model.name), model.attempts - 1, model.attempts - 1)
        with pytest.raises(FencedError):
            self.world.run(self.world.queue.renew(ref, WorkReport(Phase.RUNNING)))
        uri = f"s3://bucket/{model.name}/checkpoints/late"
        late = Checkpoint(model.saved_step + 10, uri, "0" * 64, 1, ref.attempt, self.clock.now())
        with pytest.raises(FencedError):
            self.world.run(self.world.service.commit_checkpoint(ref, late))

    # What happens

    @rule(seconds=st.sampled_from([1.0, 4.0, 9.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([0.0, 11.0, 21.0, 3600.0]))
    @precondition(lambda self: any(model.live for model in self.models))
    def expire(self, seconds: float) -> None:
        """Time passes without a word from anybody, then the queue looks after its attempts."""
        self.clock.advance(seconds)
        self.world.run(self.world.queue.expire_overdue())
        now = self.clock.now()
        for model in self.models:
            if model.live and model.live.lease_until <= now:
                model.lose(now, "system", counts=model.live.begun is not None)

    @rule(seconds=st.sampled_from([0.0, 8.0]))
    def look_at_limits(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.world.run(self.world.limits.enforce())
        for model in self.models:
            model.look_at_limits(self.clock.now())

    @rule()
    def restart_the_service(self) -> None:
        self.world.restart()

    def nothing_fails_any_more(self) -> None:
        """No job is stuck: whatever has happened, each of them comes to its end by the ordinary steps."""
        for _ in range(12 * len(self.models)):
            if all(model.terminal for model in self.models):
                return
            self.wait(4.0)
            for each in range(len(self.models)):
                self._carry_on(each)
            self.agrees_with_the_model()
        assert [model for model in self.models if not model.terminal] == []

    def _carry_on(self, each: int) -> None:
        model, now = self.models[each], self.clock.now()
        self.expire(0.0)
        if model.state == "PAUSED":
            self._resume(model)
        elif model.state == "VALIDATING":
            self.admit("fit")
        elif model.waits:
            self.place()
        elif model.holds(now) and model.live and not model.live.is_cut_off(now):
            lease = self.world.run(self.world.queue.renew(_ref(model), WorkReport(Phase.RUNNING)))
            model.renewed(now, at_work=True)
            how = "result" if lease.directive == "CONTINUE" else "stop"
            self.world.run(self.world.queue.complete(_ref(model), _completion(model, how)))
            _take_end(model, how, now)

    def _resume(self, model: Model) -> None:
        self._command(self.world.service.resume, model, refused=False)
        facts = ["queued"] if model.checked else []
        model.enter("QUEUED" if model.checked else "VALIDATING", self.clock.now(), *facts)

    # What must hold

    @invariant()
    def agrees_with_the_model(self) -> None:
        if self.models:
            self.world.run(self._compare())

    async def _compare(self) -> None:
        async with self.world.db.read() as tx:
            attempts = await tx.rows(select(CHASSIS.attempts).order_by(CHASSIS.attempts.c.attempt))
            messages = await tx.rows(select(CHASSIS.outbox).order_by(CHASSIS.outbox.c.sequence))
            history = await tx.rows(select(HISTORY).order_by(HISTORY.c.sequence))
        facts: dict[str, list[str]] = {}
        for message in messages:
            if ".command." not in message["subject"]:
                facts.setdefault(message["resource"], []).append(message["subject"].split(".")[3])
        async with self.world.store.read() as view:
            for model in self.models:
                name = str(model.name)
                job = await view.job(model.name)
                check_job(job, model)
                assert facts.get(name, []) == model.facts
                own = [each for each in attempts if each["resource"] == name]
                assert [each["fence"] for each in own] == list(range(1, model.attempts + 1))
                live = [each for each in own if each["state"] != AttemptState.ENDED]
                assert len(live) == (model.live is not None)
                told = [dict(each) for each in history if each["job_id"] == model.name.id]
                known = self.told.get(name, [])
                assert told[: len(known)] == known, "history was rewritten"
                self.told[name] = told
                check_history(job, told, model.facts)
        assert sum(model.live is not None for model in self.models) <= CPUS

    def _command(
        self, command: Callable[[Name], Coroutine[Any, Any, object]], model: Model, *, refused: bool
    ) -> None:
        call = command(model.name)
        if refused:
            with pytest.raises(PreconditionError):
                self.world.run(call)
        else:
            self.world.run(call)

    def _picked(self, pick: int) -> Model:
        """A job; mostly one that somebody works on, because more can happen to it."""
        live = [model for model in self.models if model.live]
        choices = self.models if pick % 8 == 0 or not live else live
        return choices[pick % len(choices)]


def _ref(model: Model) -> AttemptRef:
    return AttemptRef(str(model.name), model.attempts, model.attempts)


def _completion(model: Model, how: str) -> Completion[TrainingResult]:
    if how == "result":
        return Completion(Outcome.SUCCEEDED, result=TrainingResult(model.saved_step))
    if how == "stop":
        return Completion(Outcome.CANCELLED)
    return Completion(Outcome.FAILED, error=ErrorRecord(CODES[how], "X", "it broke"))


def _take_end(model: Model, how: str, now: datetime) -> None:
    if how == "result":
        model.finish(now)
    elif how == "stop":  # unasked, it is a fault of its cluster
        model.lose(now, "none" if model.state in STOPS else "system")
    else:
        model.lose(now, how)


TestTrainingMachine = pytest.mark.timeout(300)(TrainingMachine.TestCase)  # a failure takes long to shrink
TestTrainingMachine.settings = settings(
    max_examples=20,
    stateful_step_count=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
