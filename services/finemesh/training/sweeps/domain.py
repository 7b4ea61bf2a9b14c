"""A sweep, and what follows from what the jobs of its trials have come to: values and pure functions.

`decide` is all there is to running a sweep. It looks at the sweep as it was stored and at the jobs as they
are now, and says what the sweep is after that and what is to be done to jobs. Called again before anything
has happened to a job, it says nothing more: it does not matter when or how often it is called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from finemesh.core.errors import ErrorRecord
from finemesh.core.names import Name
from finemesh.core.states import SWEEP, SweepState, TrainingJobState, facts_of
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.job import TrainingJob
from finemesh.training.sweeps.halving import Rung, ranked
from finemesh.training.sweeps.metrics import Target
from finemesh.training.sweeps.space import Values

State = SweepState
Job = TrainingJobState
LABEL: Final = "sweep"
JOB_ENDED: Final = frozenset({Job.SUCCEEDED, Job.FAILED, Job.CANCELLED})


class TrialState(StrEnum):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    MEASURED = "MEASURED"
    SUCCEEDED = "SUCCEEDED"
    ELIMINATED = "ELIMINATED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


OPEN: Final = frozenset({TrialState.WAITING, TrialState.RUNNING, TrialState.MEASURED})


@dataclass(frozen=True, slots=True)
class Trial:
    """One training job of a sweep.

    Attributes:
        rung: index of the rung that it goes to, or came to last.
        measured: its objective at each rung that it came to.
        message: why it failed.
    """

    number: int
    values: Values
    state: TrialState = TrialState.WAITING
    rung: int = 0
    measured: tuple[float, ...] = ()
    message: str = ""

    @property
    def objective(self) -> float:
        """What it is ranked by; NaN before it was measured."""
        return self.measured[-1] if self.measured else math.nan


@dataclass(frozen=True, slots=True)
class Sweep:
    """The same fine-tune with different values. Times are UTC.

    Attributes:
        asked: what its user asked for, as JSON of the contract: spec, parameters, strategy.
        trials: by number, from 1; empty where a sweep was listed.
        max_steps: optimiser steps of a whole trial; 0 if only its dataset tells.
        best: number of the best trial so far; 0 if none was measured.
        fraction: share of the optimiser steps that were taken, 0 to 1, as of the last change.
        revision: counts every change.
    """

    name: Name
    asked: Mapping[str, Any]
    target: Target
    rungs: tuple[Rung, ...]
    max_parallel: int
    create_time: datetime
    update_time: datetime
    trials: tuple[Trial, ...] = ()
    max_steps: int = 0
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    priority: int = 0
    max_restarts: int = 3
    state: State = State.RUNNING
    best: int = 0
    fraction: float = 0.0
    message: str = ""
    error: ErrorRecord | None = None
    end_time: datetime | None = None
    revision: int = 0

    @property
    def terminal(self) -> bool:
        return self.state in SWEEP.terminal

    def job_name(self, number: int) -> Name:
        """The name of a trial's job."""
        return Name(self.name.project, "trainingJobs", f"{self.name.id}-{number}")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that became true of a sweep; of a rung also who goes on, best first, and who does not."""

    name: str
    rung: int = 0
    promoted: tuple[int, ...] = ()
    eliminated: tuple[int, ...] = ()


class Deed(StrEnum):
    """What is to be done to the job of a trial."""

    BEGIN = "BEGIN"
    CONTINUE = "CONTINUE"
    CANCEL = "CANCEL"


@dataclass(frozen=True, slots=True)
class Order:
    """A deed; a job that begins or continues pauses at `pause_at_step`, 0 for never."""

    deed: Deed
    number: int
    pause_at_step: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """The sweep as it is now, what became true, and what is to be done."""

    sweep: Sweep
    facts: tuple[Fact, ...] = ()
    orders: tuple[Order, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A trial's job as it is, with the checkpoints that are kept, oldest first."""

    job: TrainingJob
    checkpoints: Sequence[Checkpoint] = ()


def started(sweep: Sweep) -> Decision:
    """A new sweep; its trials begin with the next decision."""
    return Decision(sweep, (Fact("started"),))


def cancel_asked(sweep: Sweep, now: datetime) -> Decision:
    """The user wants the sweep to end. Raises PreconditionError, reason ILLEGAL_TRANSITION."""
    return _move(sweep, State.CANCELLING, now, message="stopping the trials")


def decide(sweep: Sweep, jobs: Mapping[int, Seen], now: datetime) -> Decision:
    """What follows from the jobs, by trial number. One that is missing was never begun, or was deleted."""
    if sweep.terminal:
        return Decision(sweep)
    seen = replace(
        sweep, trials=tuple(_observed(sweep, trial, jobs.get(trial.number)) for trial in sweep.trials)
    )
    if sweep.state is State.CANCELLING:
        decision = _cancel(seen, jobs, now)
    else:
        decision = _advance(seen, jobs, now)
    if decision.sweep == sweep:
        return Decision(sweep, decision.facts, decision.orders)
    told = replace(
        decision.sweep, best=_best(decision.sweep), fraction=_fraction(decision.sweep), update_time=now
    )
    return Decision(told, decision.facts, decision.orders)


def _observed(sweep: Sweep, trial: Trial, seen: Seen | None) -> Trial:
    """The trial, after a look at its job."""
    begun = trial.state in {TrialState.RUNNING, TrialState.MEASURED} or (
        trial.state in OPEN and trial.rung > 0
    )
    if not begun:
        return trial
    if seen is None:
        return replace(trial, state=TrialState.CANCELLED, message="its job was deleted")
    if seen.job.state is Job.CANCELLED:
        return replace(trial, state=TrialState.CANCELLED, message="its job was cancelled")
    if trial.state is not TrialState.RUNNING:
        return trial
    if seen.job.state is Job.FAILED:
        why = seen.job.error.message if seen.job.error else "its job failed"
        return replace(trial, state=TrialState.FAILED, message=why)
    rung = sweep.rungs[trial.rung]
    latest = seen.checkpoints[-1] if seen.checkpoints else None
    paused_there = seen.job.state is Job.PAUSED and latest is not None and 0 < rung.steps <= latest.step
    if seen.job.state is Job.SUCCEEDED or paused_there:
        return _measured(sweep, trial, seen)
    return trial


def _measured(sweep: Sweep, trial: Trial, seen: Seen) -> Trial:
    """The trial at its rung, by the last checkpoint; once it has ended, by that or the one marked best."""
    ended = seen.job.state is Job.SUCCEEDED
    last = seen.checkpoints[-1:]
    judged = [*last, *(each for each in seen.checkpoints[:-1] if ended and each.best)]
    values = [
        value for each in judged if not math.isnan(value := each.metrics.get(sweep.target.metric, math.nan))
    ]
    if not values:
        told = ", ".join(sorted(last[0].metrics)) if last else "none"
        why = f"its checkpoint has no number for {sweep.target.metric}; it has {told}"
        return replace(trial, state=TrialState.FAILED, measured=(*trial.measured, math.nan), message=why)
    value = max(values) if sweep.target.higher_is_better else min(values)
    is_last = trial.rung == len(sweep.rungs) - 1
    state = TrialState.SUCCEEDED if is_last else TrialState.MEASURED
    return replace(trial, state=state, measured=(*trial.measured, value))


def _advance(sweep: Sweep, jobs: Mapping[int, Seen], now: datetime) -> Decision:
    """Complete the rungs that can be, start those whose turn it is, and end when nobody is left."""
    facts, orders = list[Fact](), list[Order]()
    while _rung_is_complete(sweep):
        sweep, fact = _promote(sweep)
        facts.append(fact)
        orders += [Order(Deed.CANCEL, number) for number in fact.eliminated if _goes_on(jobs.get(number))]
    free = sweep.max_parallel - sum(trial.state is TrialState.RUNNING for trial in sweep.trials)
    waiting = [trial for trial in sweep.trials if trial.state is TrialState.WAITING]
    turn = {trial.number for trial in waiting[: max(0, free)]}
    for trial in waiting:
        if trial.number in turn:
            deed = Deed.CONTINUE if trial.rung else Deed.BEGIN
            orders.append(Order(deed, trial.number, sweep.rungs[trial.rung].steps))
    sweep = _changed(sweep, dict.fromkeys(turn, TrialState.RUNNING))
    if any(trial.state in OPEN for trial in sweep.trials):
        return Decision(replace(sweep, message=_doing(sweep)), tuple(facts), tuple(orders))
    ended = _ended(sweep, now)
    return Decision(ended.sweep, (*facts, *ended.facts), tuple(orders))


def _rung_is_complete(sweep: Sweep) -> bool:
    """Whether every trial that is left was measured at its rung. All that are left are at the same one."""
    left = {trial.state for trial in sweep.trials if trial.state in OPEN}
    return left == {TrialState.MEASURED}


def _promote(sweep: Sweep) -> tuple[Sweep, Fact]:
    """The best of the measured go on to the next rung, the others end."""
    measured = {trial.number: trial for trial in sweep.trials if trial.state is TrialState.MEASURED}
    rung = next(iter(measured.values())).rung
    order = ranked(
        {number: trial.objective for number, trial in measured.items()},
        higher_is_better=sweep.target.higher_is_better,
    )
    promoted, eliminated = order[: sweep.rungs[rung + 1].trials], order[sweep.rungs[rung + 1].trials :]
    trials = tuple(
        replace(trial, rung=rung + 1) if trial.number in promoted else trial for trial in sweep.trials
    )
    states = dict.fromkeys(promoted, TrialState.WAITING) | dict.fromkeys(eliminated, TrialState.ELIMINATED)
    fact = Fact("rung_completed", rung, tuple(promoted), tuple(eliminated))
    return _changed(replace(sweep, trials=trials), states), fact


def _ended(sweep: Sweep, now: datetime) -> Decision:
    """Nobody is left."""
    if any(trial.state is TrialState.SUCCEEDED for trial in sweep.trials):
        return _move(sweep, State.SUCCEEDED, now, message="")
    first = next(trial for trial in sweep.trials if trial.state is not TrialState.ELIMINATED)
    error = ErrorRecord(
        "FAILED_PRECONDITION",
        "SWEEP_WITHOUT_RESULT",
        f"no trial of {sweep.name} came to its end; the first that did not, {sweep.job_name(first.number)}:"
        f" {first.message}",
        {"sweep": str(sweep.name), "training_job": str(sweep.job_name(first.number))},
    )
    return _move(sweep, State.FAILED, now, error=error, message="")


def _cancel(sweep: Sweep, jobs: Mapping[int, Seen], now: datetime) -> Decision:
    """Stop every job that is live; when none is left, the sweep is cancelled."""
    live = [trial.number for trial in sweep.trials if _is_live(jobs.get(trial.number))]
    over = [trial.number for trial in sweep.trials if trial.state in OPEN and trial.number not in live]
    sweep = _changed(sweep, dict.fromkeys(over, TrialState.CANCELLED))
    if not live:
        return _move(sweep, State.CANCELLED, now, message="")
    orders = [Order(Deed.CANCEL, number) for number in live if _goes_on(jobs[number])]
    return Decision(sweep, (), tuple(orders))


def _move(sweep: Sweep, target: State, now: datetime, **changes: Any) -> Decision:
    names = facts_of(SWEEP, sweep.state, target)
    if target in SWEEP.terminal:
        changes["end_time"] = now
    moved = replace(sweep, state=target, update_time=now, **changes)
    return Decision(moved, tuple(Fact(name) for name in names))


def _changed(sweep: Sweep, states: Mapping[int, TrialState]) -> Sweep:
    trials = (replace(trial, state=states.get(trial.number, trial.state)) for trial in sweep.trials)
    return replace(sweep, trials=tuple(trials))


def _is_live(seen: Seen | None) -> bool:
    return seen is not None and seen.job.state not in JOB_ENDED


def _goes_on(seen: Seen | None) -> bool:
    """Whether a job is live, and was not told to end."""
    return _is_live(seen) and seen is not None and seen.job.state is not Job.CANCELLING


def _best(sweep: Sweep) -> int:
    """Of the trials that came furthest, the one with the best objective; 0 if none was measured."""
    counted = {
        trial.number: trial
        for trial in sweep.trials
        if trial.measured and trial.state is not TrialState.FAILED
    }
    furthest = max((len(trial.measured) for trial in counted.values()), default=0)
    values = {n: trial.objective for n, trial in counted.items() if len(trial.measured) == furthest}
    return next(iter(ranked(values, higher_is_better=sweep.target.higher_is_better)), 0)


def _fraction(sweep: Sweep) -> float:
    """The share of what there is to do that was measured, rungs weighted by their steps."""
    if sweep.terminal:
        return 1.0
    ends = [rung.steps or sweep.max_steps or 1 for rung in sweep.rungs]
    weights = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    total = sum(weight * rung.trials for weight, rung in zip(weights, sweep.rungs, strict=True))
    done = 0
    for trial in sweep.trials:
        over = len(trial.measured) if trial.state in OPEN else trial.rung + 1
        done += sum(weights[:over])
    return min(1.0, done / total)


def _doing(sweep: Sweep) -> str:
    """What is going on, a few words for people."""
    rung = max(trial.rung for trial in sweep.trials if trial.state in OPEN)
    here = [trial for trial in sweep.trials if trial.rung == rung]
    done = sum(trial.state not in {TrialState.WAITING, TrialState.RUNNING} for trial in here)
    if len(sweep.rungs) == 1:
        return f"{done} of {len(here)} trials are done"
    until = sweep.rungs[rung].steps or sweep.max_steps
    return f"rung {rung + 1} of {len(sweep.rungs)}, to step {until}: {done} of {len(here)} trials are there"
