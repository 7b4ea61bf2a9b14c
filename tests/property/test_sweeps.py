"""Sweeps against independent arithmetic: combinations, rungs, who goes on, and how they end."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from finemesh.core.errors import ErrorRecord, PreconditionError
from finemesh.core.metrics import Goal
from finemesh.core.names import Name
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.core.states import SweepState, TrainingJobState
from finemesh.training.checkpoints import Checkpoint
from finemesh.training.job import TrainingJob
from finemesh.training.sweeps import halving, space
from finemesh.training.sweeps.domain import (
    OPEN,
    Deed,
    Order,
    Seen,
    Sweep,
    Trial,
    TrialState,
    cancel_asked,
    decide,
)
from finemesh.training.sweeps.metrics import Target
from finemesh.training.sweeps.space import Choices, Integers, Parameter, Uniform
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = FineTuneSpec(Task.LANGUAGE, "base", "projects/p/datasets/d")
Job = TrainingJobState

choices = st.lists(st.integers(-50, 50), min_size=1, max_size=4, unique=True).map(
    lambda xs: Choices(tuple(xs))
)
ranges = st.tuples(st.floats(1e-6, 1e3), st.floats(1.1, 1e3)).flatmap(
    lambda pair: st.sampled_from([Uniform(pair[0], pair[0] * pair[1], log=log) for log in (False, True)])
)
integers = st.tuples(st.integers(-20, 20), st.integers(0, 30)).map(lambda p: Integers(p[0], p[0] + p[1]))


def parameters(domains: list[Choices | Uniform | Integers]) -> list[Parameter]:
    return [Parameter(f"f{index}", domain) for index, domain in enumerate(domains)]


@given(st.lists(choices, min_size=1, max_size=3))
def test_a_grid_is_the_product_in_order(domains: list[Choices]) -> None:
    found = [tuple(values.values()) for values in space.grid(parameters(list(domains)))]
    assert found == list(itertools.product(*(domain.items for domain in domains)))
    assert len(found) == space.size(parameters(list(domains)))


@given(
    st.lists(choices | ranges | integers, min_size=1, max_size=3), st.integers(1, 12), st.integers(0, 2**40)
)
def test_draws_are_distinct_reproducible_and_within_bounds(
    domains: list[Choices | Uniform | Integers], count: int, seed: int
) -> None:
    drawn_from = parameters(domains)
    if count > space.size(drawn_from):
        with pytest.raises(PreconditionError):
            space.sample(drawn_from, count, seed)
        return
    drawn = space.sample(drawn_from, count, seed)
    assert drawn == space.sample(drawn_from, count, seed)
    assert len({tuple(each.values()) for each in drawn}) == count
    # More of them are the same ones, and others after them.
    assert space.sample(drawn_from, max(1, count - 1), seed) == drawn[: max(1, count - 1)]
    for each in drawn:
        for name, domain in zip(each, domains, strict=True):
            value = each[name]
            if isinstance(domain, Choices):
                assert value in domain.items
            else:
                assert domain.low <= value <= domain.high


def test_a_logarithmic_range_gives_each_magnitude_its_share() -> None:
    drawn = space.sample([Parameter("rate", Uniform(1e-6, 1e-2, log=True))], 400, seed=1)
    counts = [sum(10**m <= each["rate"] < 10 ** (m + 1) for each in drawn) for m in range(-6, -2)]
    assert sum(counts) == 400
    # Four magnitudes, 100 each expected, standard deviation 8.7: five of them.
    assert all(abs(count - 100) < 44 for count in counts)


@given(st.integers(1, 400), st.integers(1, 3000), st.integers(2, 5), st.integers(1, 50))
def test_rungs_are_those_of_the_paper(trials: int, max_steps: int, reduction: int, min_steps: int) -> None:
    made = halving.rungs(trials, max_steps, reduction, min_steps)
    steps = [rung.steps or max_steps for rung in made]
    sizes = [rung.trials for rung in made]
    last = len(made) - 1
    assert made[-1].steps == 0
    for k in range(len(made)):
        assert sizes[k] == math.floor(Fraction(trials, reduction**k))
        assert steps[k] == math.floor(Fraction(max_steps, reduction ** (last - k)))
    assert steps == sorted(set(steps))
    assert sizes[-1] >= 1
    # One more rung would leave nobody, or judge too early.
    assert trials < reduction ** (last + 1) or max_steps < min_steps * reduction ** (last + 1)
    assert last == 0 or steps[0] >= min_steps
    # No rung takes more optimiser steps from the start than the first one's trials to the end.
    budget = sum(n * (end - start) for n, start, end in zip(sizes, [0, *steps], steps, strict=False))
    assert budget <= trials * max_steps


@pytest.mark.parametrize(
    ("trials", "max_steps", "reduction", "expected"),
    [
        (81, 81, 3, [(1, 81), (3, 27), (9, 9), (27, 3), (81, 1)]),  # Hyperband's table 1, bracket s = 4
        (27, 81, 3, [(3, 27), (9, 9), (27, 3), (81, 1)]),  # as bracket s = 3, in which r is 3
        (9, 9, 3, [(1, 9), (3, 3), (9, 1)]),  # figure 1 of the ASHA paper, bracket 0
        (4, 6, 2, [(1, 4), (3, 2), (6, 1)]),
        (1, 100, 3, [(100, 1)]),
    ],
)
def test_rungs_of_published_tables(
    trials: int, max_steps: int, reduction: int, expected: list[tuple[int, int]]
) -> None:
    made = halving.rungs(trials, max_steps, reduction, 1)
    assert [(rung.steps or max_steps, rung.trials) for rung in made] == expected


# The life of a sweep, over jobs that obey its orders.


@dataclass
class World:
    """Jobs that do as they are told: each of a curve of its own, moved by one stop at a time."""

    sweep: Sweep
    curves: list[int]
    horizon: int
    jobs: dict[int, Seen] = field(default_factory=dict[int, Seen])
    promoted: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])
    most: int = 0

    def look(self) -> None:
        """Decide until there is nothing more to say: a job that waits is cancelled at once."""
        for _ in range(3):
            before, decision = self.sweep, decide(self.sweep, self.jobs, NOW)
            self.sweep = decision.sweep
            self.promoted += [fact.promoted for fact in decision.facts if fact.name == "rung_completed"]
            for order in decision.orders:
                self.obey(order)
            if not decision.orders and decision.sweep == before:
                break
        else:
            raise AssertionError("it never comes to rest")
        at_work = [seen for seen in self.jobs.values() if seen.job.state is Job.RUNNING]
        self.most = max(self.most, len(at_work))

    def obey(self, order: Order) -> None:
        number = order.number
        if order.deed is Deed.BEGIN:
            assert number not in self.jobs
            job = TrainingJob(self.sweep.job_name(number), SPEC, "", "", NOW, NOW, state=Job.RUNNING)
            self.jobs[number] = Seen(replace(job, pause_at_step=order.pause_at_step))
            return
        seen = self.jobs[number]
        target = Job.CANCELLED if order.deed is Deed.CANCEL else Job.RUNNING
        assert seen.job.state is Job.PAUSED or order.deed is Deed.CANCEL
        self.jobs[number] = replace(
            seen, job=replace(seen.job, state=target, pause_at_step=order.pause_at_step)
        )

    def run(self, number: int) -> None:
        """The job comes to its pause, or to its end."""
        seen = self.jobs[number]
        step = seen.job.pause_at_step or self.horizon
        loss = self.curves[number - 1] + 1.0 / step
        saved = Checkpoint(step, f"s3://{step}", "0" * 64, 1, 1, NOW, {"val/loss": loss})
        state = Job.PAUSED if seen.job.pause_at_step else Job.SUCCEEDED
        self.jobs[number] = Seen(replace(seen.job, state=state), (*seen.checkpoints, saved))

    def fail(self, number: int) -> None:
        seen = self.jobs[number]
        error = ErrorRecord("INTERNAL", "BROKEN", "broken")
        self.jobs[number] = replace(seen, job=replace(seen.job, state=Job.FAILED, error=error))


def world(curves: list[int], horizon: int, reduction: int, max_parallel: int) -> World:
    rungs = halving.rungs(len(curves), horizon, reduction, 1)
    trials = tuple(Trial(number, {"rate": number}) for number in range(1, len(curves) + 1))
    name, target = Name("p", "sweeps", "s"), Target("val/loss", Goal.MINIMIZE)
    return World(Sweep(name, {}, target, rungs, max_parallel, NOW, NOW, trials, horizon), curves, horizon)


curves_of = st.lists(st.integers(0, 100), min_size=2, max_size=14, unique=True)


@given(curves_of, st.integers(4, 60), st.integers(2, 4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_best_is_never_eliminated_when_curves_do_not_cross(
    curves: list[int], horizon: int, reduction: int, max_parallel: int, chance: object
) -> None:
    made = world(curves, horizon, reduction, max_parallel)
    made.look()
    while made.sweep.state is SweepState.RUNNING:
        at_work = [n for n, seen in made.jobs.items() if seen.job.state is Job.RUNNING]
        assert at_work, "nobody is at work, and the sweep has not ended"
        made.run(chance.choice(at_work))  # type: ignore[attr-defined]
        made.look()
    assert made.sweep.state is SweepState.SUCCEEDED
    assert made.most <= max_parallel
    order = sorted(range(1, len(curves) + 1), key=lambda number: curves[number - 1])
    assert made.sweep.best == order[0]
    assert made.promoted == [tuple(order[: rung.trials]) for rung in made.sweep.rungs[1:]]
    ended = {trial.number: trial.state for trial in made.sweep.trials}
    winners = order[: made.sweep.rungs[-1].trials]
    assert all(ended[number] is TrialState.SUCCEEDED for number in winners)
    assert all(ended[number] is TrialState.ELIMINATED for number in order[len(winners) :])
    taken = sum(seen.checkpoints[-1].step for seen in made.jobs.values())
    ends = [rung.steps or horizon for rung in made.sweep.rungs]
    assert taken == sum(
        rung.trials * (end - start)
        for rung, start, end in zip(made.sweep.rungs, [0, *ends], ends, strict=False)
    )


@given(
    curves_of,
    st.integers(4, 60),
    st.integers(1, 5),
    st.lists(
        st.tuples(st.sampled_from(["run", "run", "run", "fail", "drop", "stop", "quit"]), st.integers(0, 99))
    ),
)
def test_whatever_happens_to_jobs_a_sweep_ends_and_leaves_none_alive(
    curves: list[int], horizon: int, max_parallel: int, happenings: list[tuple[str, int]]
) -> None:
    made = world(curves, horizon, 2, max_parallel)
    made.look()
    for what, pick in [*happenings, *[("run", n) for n in range(200)]]:
        alive = [n for n, seen in made.jobs.items() if not seen.job.terminal]
        if not alive or made.sweep.terminal:
            break
        number = alive[pick % len(alive)]
        at_work = made.jobs[number].job.state is Job.RUNNING
        if what == "run" and at_work:
            made.run(number)
        elif what == "fail" and at_work:
            made.fail(number)
        elif what == "drop":
            made.obey(Order(Deed.CANCEL, number))
        elif what == "stop":
            made.obey(Order(Deed.CANCEL, number))
            del made.jobs[number]
        elif what == "quit" and made.sweep.state is SweepState.RUNNING:
            made.sweep = cancel_asked(made.sweep, NOW).sweep
        made.look()
    assert made.sweep.terminal
    assert all(seen.job.terminal for seen in made.jobs.values())
    assert not [trial for trial in made.sweep.trials if trial.state in OPEN]
    done = [trial for trial in made.sweep.trials if trial.state is TrialState.SUCCEEDED]
    if made.sweep.state is SweepState.SUCCEEDED:
        assert made.sweep.best in {trial.number for trial in done}
    if made.sweep.state is SweepState.FAILED:
        assert not done
        assert made.sweep.error


def test_a_trial_without_the_metric_fails_and_says_what_there_is() -> None:
    made = world([1, 2], 4, 2, 2)
    made.look()
    made.run(2)
    made.run(1)
    saved = replace(made.jobs[1].checkpoints[0], metrics={"train/loss": 1.0, "val/loss": math.nan})
    made.jobs[1] = replace(made.jobs[1], checkpoints=(saved,))
    made.look()
    assert made.sweep.trials[0].state is TrialState.FAILED
    assert "val/loss; it has train/loss" in made.sweep.trials[0].message
    assert made.promoted == [(2,)]
