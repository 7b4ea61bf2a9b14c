"""The scheduling pass: what must hold of every decision, and of days of them.

Every step of `World` checks by itself that no node is given more than it has, that gangs start whole, and
that quotas hold; what is asserted here comes on top of that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from finemesh.core.spec.finetune import Resources
from finemesh.training.placement import decide
from finemesh.training.preemption import PREEMPTION_DISTANCE
from finemesh.training.quotas import Quota
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.scheduling_world import World

PROJECTS = ("p", "q", "r")
nodes = st.tuples(st.sampled_from([2.0, 8.0, 16.0]), st.sampled_from([0.0, 1.0, 2.0, 8.0]))
clusters = st.lists(st.lists(nodes, min_size=1, max_size=4), min_size=1, max_size=3)
resources = st.one_of(
    st.builds(Resources, cpus=st.integers(1, 8).map(float)),
    st.integers(1, 12).map(lambda gpus: Resources(cpus=float(gpus), gpus=gpus)),
    st.sampled_from([0.25, 0.5]).map(lambda share: Resources(gpus=share)),
    st.integers(2, 4).map(lambda workers: Resources(cpus=2.0 * workers, workers=workers)),
)


@dataclass(frozen=True)
class Wish:
    """A job to be submitted."""

    resources: Resources
    seconds: float
    project: str
    priority: int
    told: bool


wishes = st.builds(
    Wish,
    resources,
    st.sampled_from([60.0, 600.0, 3600.0, 20000.0]),
    st.sampled_from(PROJECTS),
    st.sampled_from([0, 0, 0, 1, 5, 20]),
    st.booleans(),
)
quotas = st.dictionaries(
    st.sampled_from(PROJECTS),
    st.builds(
        lambda gpus, jobs, weight: Quota("", weight, gpus, jobs),
        st.none() | st.sampled_from([0.0, 2.0, 8.0]),
        st.none() | st.integers(0, 3),
        st.sampled_from([0.5, 1.0, 3.0]),
    ),
)


def world_of(sizes: list[list[tuple[float, float]]], limits: dict[str, Quota]) -> World:
    named = {
        project: Quota(project, quota.weight, quota.max_gpus, quota.max_jobs)
        for project, quota in limits.items()
    }
    return World(sizes, named)


def submit(world: World, wish: Wish, name: str) -> str:
    return world.submit(
        name,
        wish.resources,
        wish.seconds,
        project=wish.project,
        priority=wish.priority,
        told=wish.told,
    )


@settings(database=None, deadline=None, max_examples=150)
@given(clusters, st.lists(st.lists(wishes, max_size=8), min_size=1, max_size=6), quotas)
def test_days_of_passes_add_up(
    sizes: list[list[tuple[float, float]]], arrivals: list[list[Wish]], limits: dict[str, Quota]
) -> None:
    world = world_of(sizes, limits)
    for round_number, batch in enumerate(arrivals):
        for i, wish in enumerate(batch):
            submit(world, wish, f"j{round_number}-{i}")
        before = dict(world.waiting.entries)
        again = decide(world.snapshot(), world.limit)
        priorities = {name: claim.priority for name, (claim, _) in world.running.items()}
        decided = world.step(300.0)
        assert decided == again, "the same snapshot gives the same decisions"
        started = {placed.name for placed in decided.placed}
        for name in started:  # of jobs that are alike, nobody passes an earlier one
            mine = before[name]
            alike = [e for e in before.values() if e.kind == mine.kind]
            ahead = [e for e in alike if e.demand.project == mine.demand.project and e.place < mine.place]
            assert all(e.demand.name in started for e in ahead)
        for victim, job in decided.preempted.items():
            assert priorities[victim] + PREEMPTION_DISTANCE <= before[job].demand.priority
        for name in before.keys() - started - decided.blocked.keys():
            assert before[name].demand.message in {"", "waiting for resources"}


@settings(database=None, deadline=None, max_examples=60)
@given(clusters, st.lists(wishes, min_size=1, max_size=20), quotas)
def test_everybody_who_can_start_does_in_the_end(
    sizes: list[list[tuple[float, float]]], batch: list[Wish], limits: dict[str, Quota]
) -> None:
    world = world_of(sizes, limits)
    names = [submit(world, wish, f"j{i}") for i, wish in enumerate(batch)]
    for _ in range(400):
        if not world.waiting.entries and not world.running:
            break
        world.step(3600.0)
    for name in set(names) - world.started.keys():
        why = world.step(1.0).blocked[name]
        assert why.startswith(("waiting for a larger cluster", "waiting for the quota")), why


@settings(database=None, deadline=None, max_examples=60)
@given(
    st.lists(nodes, min_size=1, max_size=3),
    st.lists(wishes, min_size=1, max_size=12),
    st.integers(0, 2**16),
)
def test_a_large_job_starts_under_any_stream_of_smaller_ones(
    size: list[tuple[float, float]], stream: list[Wish], seed: int
) -> None:
    """Each pass finds as many small jobs as could fit, of unknown length, and of all projects."""
    cpus, gpus = max(size, key=lambda each: (each[1], each[0]))
    world, rng = World([size]), random.Random(seed)
    for i, wish in enumerate(stream):
        submit(world, wish, f"first-{i}")
    large = world.submit("large", Resources(cpus=cpus, gpus=int(gpus), workers=int(gpus) or 1), 600.0)
    longest = max(wish.seconds for wish in stream)
    rounds = 0
    while large not in world.started:
        rounds += 1
        assert rounds < 60 * (len(stream) + 2), "the large job is starved"
        for i in range(3):
            wish = stream[rng.randrange(len(stream))]
            small = Resources(cpus=1.0, gpus=min(1, wish.resources.gpus))
            lower = Wish(small, wish.seconds, wish.project, 0, wish.told)
            submit(world, lower, f"small-{rounds}-{i}")
        world.step(max(longest / 20.0, 60.0))


@settings(database=None, deadline=None, max_examples=80)
@given(
    st.lists(nodes, min_size=1, max_size=4),
    st.lists(wishes, min_size=2, max_size=14),
    st.lists(wishes, max_size=14),
)
def test_backfill_never_delays_what_is_reserved(
    size: list[tuple[float, float]], first: list[Wish], later: list[Wish]
) -> None:
    """With exact expectations, a job starts no later than was expected when its room was reserved."""
    world = World([size])
    exact = [Wish(w.resources, w.seconds, "p", 0, told=True) for w in (*first, *later)]
    for i, wish in enumerate(exact[: len(first)]):
        submit(world, wish, f"first-{i}")
    promised: dict[str, datetime] = {}
    for step in range(60):
        if step and len(first) + step <= len(exact):
            submit(world, exact[len(first) + step - 1], f"later-{step}")
        decided_at = world.now
        world.step(30.0)
        for name, until in promised.items():
            assert name in world.started or decided_at < until + timedelta(seconds=30), name
        for each in world.reservations:
            promised.setdefault(each.job, each.until)


def test_shares_converge_to_the_weights_over_a_day() -> None:
    """Projects that always want more get GPU-hours by their weights."""
    weights = {"p": 1.0, "q": 2.0, "r": 5.0}
    rng = random.Random(7)
    world = World([[(64.0, 8.0)] * 16], {name: Quota(name, weight=w) for name, w in weights.items()})
    made = 0
    for _ in range(24 * 20):
        for project in weights:
            line = sum(e.demand.project == project for e in world.waiting.entries.values())
            for _ in range(max(0, 60 - line)):
                gpus = rng.choice([1, 1, 2])
                made += 1
                seconds = rng.uniform(600, 7200)
                world.submit(f"j{made}", Resources(cpus=gpus, gpus=gpus), seconds, project=project)
        world.step(180.0)
    total = sum(world.gpu_seconds.values())
    assert total >= 0.97 * 16 * 8 * 86400
    for project, weight in weights.items():
        share = world.gpu_seconds[project] / total
        assert abs(share * 8 / weight - 1) <= 0.02, (project, share)


def test_a_gang_is_on_one_node_if_there_is_one_that_is_large_enough() -> None:
    world = World([[(8.0, 2.0), (8.0, 2.0), (8.0, 4.0)]])
    busy = world.submit("busy", Resources(cpus=1, gpus=1), 600.0)
    world.step(1.0)
    four = world.submit("four", Resources(cpus=4, gpus=4), 60.0)
    world.step(1.0)
    placed = {name: claim.nodes for name, (claim, _) in world.running.items()}
    assert set(placed[four]) == {"n2"}
    assert placed[busy] != ("n2",)
    six = world.submit("six", Resources(cpus=6, gpus=6), 60.0)
    world.step(700.0)
    world.step(1.0)
    assert len(set(world.running[six][0].nodes)) == 2
