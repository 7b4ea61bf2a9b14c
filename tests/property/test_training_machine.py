"""The life of training jobs against a model, with commands, deaths, late messages and restarts interleaved.

The service, its scheduler, the queue and SQLite are the real ones; time is a clock that the test moves. The
model below says in plain words what each step should do. After every step the jobs, their attempts and the
facts that were written for publication are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from finemesh.chassis.attempts import AttemptQueue, AttemptSettings
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.migrations import migrate
from finemesh.chassis.outbox import Outbox
from finemesh.chassis.sql import Database
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import (
    AttemptRef,
    AttemptState,
    ClusterCapacity,
    Completion,
    Directive,
    Outcome,
    Phase,
    RestartPolicy,
    WorkReport,
)
from finemesh.core.clock import ManualClock
from finemesh.core.errors import ErrorRecord, FencedError, PreconditionError, UnavailableError
from finemesh.core.names import Name
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.core.states import TRAINING_JOB
from finemesh.training.attempts import JobAttempts
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.domain import TrainingJob, TrainingResult
from finemesh.training.ports import DatasetFacts
from finemesh.training.scheduler import Scheduler, SchedulerSettings
from finemesh.training.service import Layout, TrainingService
from finemesh.training.store import SqlStore
from finemesh.training.tables import CHASSIS
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

LEASE, START_TIMEOUT, GRACE, RETRY, DELAY = 10.0, 20.0, 15.0, 2.0, 1.0
CLUSTER, CPUS, MAX_RESTARTS = "c1", 2, 1
ENDINGS = st.sampled_from(["again", "again", "again", "result", "final", "stop"])
TIMES = AttemptSettings(lease_seconds=LEASE, start_timeout_seconds=START_TIMEOUT, cancel_grace_seconds=GRACE)


class Datasets:
    """A DataPrep that answers as the test says."""

    answer = "fit"

    async def describe(self, name: str) -> DatasetFacts:
        if self.answer == "away":
            raise UnavailableError("DataPrep is away")
        rows = {"train": 70} if self.answer == "fit" else {}
        return DatasetFacts(name, "SUCCEEDED", True, rows, 100, 0, True, "")


class NoFiles:
    """Nothing is deleted here."""

    async def delete(self, uri: str) -> None:
        raise AssertionError(uri)


@dataclass
class Live:
    """An attempt that has not ended, as the model sees it."""

    lease_until: datetime
    started: bool = False
    cancel_until: datetime | None = None


@dataclass
class Model:
    """A job, as it should be."""

    name: Name
    priority: int
    created: datetime
    state: str = "VALIDATING"
    live: Live | None = None
    attempts: int = 0
    restarts: int = 0
    not_before: datetime | None = None
    saved_step: int = 0
    seen_running: bool = False
    facts: list[str] = field(default_factory=list[str])

    @property
    def terminal(self) -> bool:
        return self.state in {"SUCCEEDED", "FAILED", "CANCELLED"}

    def due(self, now: datetime) -> bool:
        return self.not_before is None or self.not_before <= now

    def run(self) -> None:
        """It was seen at work."""
        self.state = "RUNNING"
        self.facts.append("resumed" if self.seen_running else "started")
        self.seen_running = True

    def end(self, state: str) -> None:
        self.state, self.live = state, None
        self.facts.append(state.lower())

    def lose(self, now: datetime, *, counts: bool) -> None:
        """Its attempt is gone without a verdict on the job."""
        if self.state == "CANCELLING":
            self.end("CANCELLED")
        elif counts and self.restarts >= MAX_RESTARTS:
            self.end("FAILED")
        else:
            delay = DELAY * 2**self.restarts if counts else DELAY
            self.restarts += counts
            self.state, self.live, self.not_before = "STARTING", None, now + timedelta(seconds=delay)


class TrainingMachine(RuleBasedStateMachine):
    """One service, one cluster of two cores, jobs of one core each."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="finemesh-machine-"))
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.datasets = Datasets()
        self.key = SigningKey.generate()
        self.models: list[Model] = []

    @initialize()
    def start(self) -> None:
        self.runner.run(self._start())
        for _ in range(2):
            self.create(0)
        self.admit("fit")
        self.place()

    async def _start(self) -> None:
        self.db = Database(f"sqlite:///{self.folder / 'jobs.db'}")
        await migrate(self.db, "finemesh.training")
        outbox = Outbox(CHASSIS, self.clock)
        self.queue: AttemptQueue[TrainingResult] = AttemptQueue(self.db, outbox, TIMES)
        self.store = SqlStore(self.db, outbox, self.queue, Notifier(), on_change=lambda: None)
        layout = Layout("bucket")
        policy = RestartPolicy(first_delay_seconds=DELAY)
        self.service = TrainingService(self.store, NoFiles(), layout, policy, self.clock)
        self.queue.bind(JobAttempts(self.store, self.service, self.key, self.clock))
        times = SchedulerSettings(live_seconds=1e9, retry_seconds=RETRY)
        self.scheduler = Scheduler(self.store, self.datasets, layout, times, self.clock)

    def teardown(self) -> None:
        self.runner.run(self.db.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    # What happens

    @rule(priority=st.integers(0, 2))
    @precondition(lambda self: sum(not model.terminal for model in self.models) < 4)
    def create(self, priority: int) -> None:
        name = Name("p", "trainingJobs", f"j{len(self.models):03}")
        spec = FineTuneSpec(Task.LANGUAGE, "base", "projects/p/datasets/d")
        now = self.clock.now()
        job = TrainingJob(name, spec, "", "", now, now, priority=priority, max_restarts=MAX_RESTARTS)
        self.runner.run(self.service.create(job, None))
        self.models.append(Model(name, priority, now))

    @rule(answer=st.sampled_from(["fit", "fit", "fit", "unfit", "away"]))
    @precondition(lambda self: any(model.state == "VALIDATING" for model in self.models))
    def admit(self, answer: str) -> None:
        self.datasets.answer = answer
        self.runner.run(self.scheduler.admit())
        now = self.clock.now()
        for model in self.models:
            if model.state == "VALIDATING" and model.due(now):
                if answer == "away":
                    model.not_before = now + timedelta(seconds=RETRY)
                elif answer == "unfit":
                    model.end("FAILED")
                else:
                    model.state, model.not_before = "QUEUED", None
                    model.facts.append("queued")

    @rule()
    @precondition(lambda self: any(m.state in {"QUEUED", "STARTING"} and not m.live for m in self.models))
    def place(self) -> None:
        live = sum(model.live is not None for model in self.models)
        capacity = ClusterCapacity(cpus=CPUS, cpus_free=CPUS - live, nodes=1)
        # The report is older than what is dispatched now, so that it cannot count it.
        self.runner.run(self.queue.sync(CLUSTER, capacity, []))
        self.clock.advance(0.001)
        self.runner.run(self.scheduler.place())
        now = self.clock.now()
        waiting = [m for m in self.models if m.state in {"QUEUED", "STARTING"} and not m.live and m.due(now)]
        waiting.sort(key=lambda m: (-m.priority, m.created, str(m.name)))
        # Attempts that nobody has taken up count twice until the next report, which is on the safe side.
        unseen = sum(m.live is not None and not m.live.started for m in self.models)
        for model in waiting[: max(0, CPUS - live - unseen)]:
            model.state, model.attempts, model.not_before = "STARTING", model.attempts + 1, None
            model.live = Live(now + timedelta(seconds=START_TIMEOUT))

    @rule(pick=st.integers(0, 63), phase=st.sampled_from(list(Phase)))
    @precondition(lambda self: any(model.attempts for model in self.models))
    def renew(self, pick: int, phase: Phase) -> None:
        model, now = self._picked(pick), self.clock.now()
        call = self.queue.renew(self._ref(model), WorkReport(phase, message="at it"))
        cut_off = model.live and model.live.cancel_until and now >= model.live.cancel_until
        if not self._holds(model) or cut_off:
            with pytest.raises(FencedError):
                self.runner.run(call)
            return
        lease = self.runner.run(call)
        assert model.live is not None
        model.live.started, model.live.lease_until = True, now + timedelta(seconds=LEASE)
        assert (lease.directive is Directive.CANCEL) == (model.state == "CANCELLING")
        if model.state == "STARTING" and phase is not Phase.STARTING:
            model.run()

    @rule(pick=st.integers(0, 63))
    @precondition(lambda self: any(model.attempts for model in self.models))
    def commit(self, pick: int) -> None:
        model = self._picked(pick)
        step = model.saved_step + 10
        uri = f"s3://bucket/{model.name}/checkpoints/step-{step:08}-a{model.attempts}"
        checkpoint = Checkpoint(step, uri, f"{step:064x}", 1, model.attempts, self.clock.now())
        call = self.service.commit_checkpoint(self._ref(model), checkpoint)
        if not self._holds(model):
            with pytest.raises(FencedError):
                self.runner.run(call)
            return
        self.runner.run(call)
        model.saved_step = step
        model.facts.append("checkpointed")

    @rule(pick=st.integers(0, 63), how=ENDINGS)
    @precondition(lambda self: any(model.attempts for model in self.models))
    def complete(self, pick: int, how: str) -> None:
        model, now = self._picked(pick), self.clock.now()
        completion: Completion[TrainingResult]
        if how == "result":
            completion = Completion(Outcome.SUCCEEDED, result=TrainingResult(model.saved_step))
        elif how == "stop":
            completion = Completion(Outcome.CANCELLED)
        else:
            code = "INVALID_ARGUMENT" if how == "final" else "INTERNAL"
            completion = Completion(Outcome.FAILED, error=ErrorRecord(code, "X", "it broke"))
        call = self.queue.complete(self._ref(model), completion)
        if not self._holds(model):
            # A repetition of what it said before changes nothing; anything else is refused.
            with contextlib.suppress(FencedError):
                self.runner.run(call)
            return
        assert model.live is not None
        if how == "result" and not model.live.started:
            with pytest.raises(PreconditionError):
                self.runner.run(call)
            return
        self.runner.run(call)
        if model.state == "CANCELLING":
            model.end("CANCELLED")
        elif how == "result":
            if model.state == "STARTING":
                model.run()
            model.end("SUCCEEDED")
        elif how == "final":
            model.end("FAILED")
        else:
            model.lose(now, counts=True)

    @rule(pick=st.integers(0, 63), phase=st.sampled_from(list(Phase)), how=ENDINGS)
    @precondition(lambda self: any(m.state in {"QUEUED", "STARTING"} and not m.live for m in self.models))
    def carry_out_an_attempt(self, pick: int, phase: Phase, how: str) -> None:
        """The steps of an attempt in a row: what single steps alone would rarely come to."""
        self.wait(9.0)
        self.place()
        self.renew(pick, phase)
        self.complete(pick, how)

    @rule(pick=st.integers(0, 63))
    @precondition(lambda self: self.models)
    def cancel(self, pick: int) -> None:
        model = self._picked(pick)
        if model.state in {"SUCCEEDED", "FAILED"}:
            with pytest.raises(PreconditionError):
                self.runner.run(self.service.cancel(model.name))
            return
        self.runner.run(self.service.cancel(model.name))
        if model.state in {"CANCELLING", "CANCELLED"}:
            return
        if model.live and model.live.started:
            model.state = "CANCELLING"
            model.live.cancel_until = self.clock.now() + timedelta(seconds=GRACE)
        else:
            model.end("CANCELLED")

    @rule(pick=st.integers(0, 63))
    @precondition(lambda self: any(model.attempts > 1 for model in self.models))
    def speak_too_late(self, pick: int) -> None:
        """An attempt that was replaced comes back from a partition."""
        replaced = [model for model in self.models if model.attempts > 1]
        model = replaced[pick % len(replaced)]
        ref = AttemptRef(str(model.name), model.attempts - 1, model.attempts - 1)
        with pytest.raises(FencedError):
            self.runner.run(self.queue.renew(ref, WorkReport(Phase.RUNNING)))
        uri = f"s3://bucket/{model.name}/checkpoints/late"
        late = Checkpoint(model.saved_step + 10, uri, "0" * 64, 1, ref.attempt, self.clock.now())
        with pytest.raises(FencedError):
            self.runner.run(self.service.commit_checkpoint(ref, late))

    @rule(seconds=st.sampled_from([1.0, 4.0, 9.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([0.0, 11.0, 21.0]))
    @precondition(lambda self: any(model.live for model in self.models))
    def expire(self, seconds: float) -> None:
        """Time passes without a word from anybody, then the queue looks after its attempts."""
        self.clock.advance(seconds)
        self.runner.run(self.queue.expire_overdue())
        now = self.clock.now()
        for model in self.models:
            if model.live and model.live.lease_until <= now:
                model.lose(now, counts=model.live.started)

    @rule()
    def restart_the_service(self) -> None:
        self.runner.run(self.db.close())
        self.runner.run(self._start())

    # What must hold

    @invariant()
    def agrees_with_the_model(self) -> None:
        if self.models:
            self.runner.run(self._compare())

    async def _compare(self) -> None:
        async with self.db.read() as tx:
            attempts = await tx.rows(select(CHASSIS.attempts))
            messages = await tx.rows(select(CHASSIS.outbox).order_by(CHASSIS.outbox.c.sequence))
        facts: dict[str, list[str]] = {}
        for message in messages:
            if ".command." not in message["subject"]:
                facts.setdefault(message["resource"], []).append(message["subject"].split(".")[3])
        async with self.store.read() as view:
            for model in self.models:
                job = await view.job(model.name)
                assert (job.state, job.restarts) == (model.state, model.restarts)
                assert job.attempt == model.attempts
                saved = job.latest_checkpoint.step if job.latest_checkpoint else 0
                assert saved == model.saved_step
                assert job.terminal == model.terminal == (job.end_time is not None)
                assert facts.get(str(model.name), []) == model.facts
                own = [each for each in attempts if each["resource"] == str(model.name)]
                assert [each["fence"] for each in sorted(own, key=lambda each: each["attempt"])] == list(
                    range(1, model.attempts + 1)
                )
                live = [each for each in own if each["state"] != AttemptState.ENDED]
                assert len(live) == (model.live is not None)
        assert sum(model.live is not None for model in self.models) <= CPUS
        assert {model.state for model in self.models} <= set(TRAINING_JOB.states)

    def _picked(self, pick: int) -> Model:
        """A job; mostly one that somebody works on, because more can happen to it."""
        live = [model for model in self.models if model.live]
        choices = self.models if pick % 8 == 0 or not live else live
        return choices[pick % len(choices)]

    def _ref(self, model: Model) -> AttemptRef:
        return AttemptRef(str(model.name), model.attempts, model.attempts)

    def _holds(self, model: Model) -> bool:
        return model.live is not None and model.live.lease_until > self.clock.now()


TestTrainingMachine = pytest.mark.timeout(300)(TrainingMachine.TestCase)  # a failure takes long to shrink
TestTrainingMachine.settings = settings(
    max_examples=25,
    stateful_step_count=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
