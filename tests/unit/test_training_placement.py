"""Who runs next, and where: single cases. What holds in all cases is in tests/property/test_scheduling.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from finemesh.core.attempts import Cluster, ClusterCapacity, NodeCapacity
from finemesh.core.spec.finetune import Resources
from finemesh.training.claims import Claim, site_of
from finemesh.training.placement import Decisions, Snapshot, decide
from finemesh.training.quotas import Quota
from finemesh.training.reservations import Reservation
from finemesh.training.rooms import Gang, Room
from finemesh.training.waiting import Demand, Waiting

SEEN = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE, AFTER = SEEN - timedelta(seconds=1), SEEN + timedelta(seconds=1)


def cluster(name: str, cpus: float = 4, gpus: float = 0, *, free: float | None = None) -> Cluster:
    capacity = ClusterCapacity(
        cpus=cpus, cpus_free=cpus if free is None else free, gpus=gpus, gpus_free=gpus, nodes=1
    )
    return Cluster(name, capacity, SEEN)


def job(name: str, cpus: float = 1, gpus: int = 0, *, project: str = "p", **more: Any) -> Demand:
    resources = Resources(cpus=cpus, gpus=gpus)
    return Demand(f"projects/{project}/trainingJobs/{name}", resources, SEEN, **more)


def held(name: str, resources: Resources, *, project: str = "p", on: str = "x", **more: Any) -> Claim:
    given: dict[str, Any] = {"create_time": BEFORE, "start_time": BEFORE} | more
    return Claim(f"projects/{project}/trainingJobs/{name}", project, on, Gang.of(resources), **given)


def plan(
    jobs: Sequence[Demand], live: Sequence[Cluster], claims: Sequence[Claim] = (), **more: Any
) -> Decisions:
    waiting = Waiting()
    for each in jobs:
        waiting.put(each)
    return decide(Snapshot(AFTER, waiting, live, claims, **more), 100)


def placed(decided: Decisions) -> dict[str, str]:
    return {short(each.name): each.cluster for each in decided.placed}


def short(name: str) -> str:
    return name.rpartition("/")[2]


def test_jobs_go_in_their_order_while_there_is_room() -> None:
    decided = plan([job("a", 2), job("b", 2), job("c", 2)], [cluster("x")])
    assert placed(decided) == {"a": "x", "b": "x"}
    assert set(decided.blocked.values()) == {"waiting for resources"}


def test_priority_counts_within_a_project_and_a_day_of_waiting_is_worth_a_point_of_it() -> None:
    later = SEEN + timedelta(hours=25)
    waiting = [job("a", 4), job("b", 4, priority=1)]
    assert placed(plan(waiting, [cluster("x")])) == {"b": "x"}
    urgent = Demand("projects/p/trainingJobs/c", Resources(cpus=4), later, priority=1)
    assert placed(plan([job("a", 4), urgent], [cluster("x")])) == {"a": "x"}


def test_a_large_job_is_not_starved_by_small_ones_behind_it() -> None:
    decided = plan([job("large", 4), job("small", 1)], [cluster("x", free=2)])
    assert placed(decided) == {}
    assert [short(each.job) for each in decided.reservations] == ["large"]


def test_a_job_that_no_cluster_can_hold_says_so_and_stops_nobody() -> None:
    decided = plan([job("huge", 64), job("twin", 64), job("small", 1)], [cluster("x")])
    assert placed(decided) == {"small": "x"}
    assert len(decided.blocked) == 2
    for why in decided.blocked.values():
        has = "x has 4 CPUs, 0 GPUs and 0.0 GB"
        todo = "ask for less in spec.resources, or add a larger node"
        assert why == f"waiting for a larger cluster: needs 64 CPUs; {has}: {todo}"
    [why] = plan([job("small")], []).blocked.values()
    assert why == "waiting for a cluster: none is live"


@pytest.mark.parametrize(
    ("sizes", "has"),
    [
        ([], "drained nodes alone"),
        ([2], "2 CPUs, 0 GPUs and 0.0 GB (and 1 drained)"),
    ],
)
def test_a_job_that_would_fit_on_a_drained_node_is_told_so(sizes: list[float], has: str) -> None:
    drained = NodeCapacity("d", "", 8, 8, 0, 0, draining=True)
    nodes = (drained, *(NodeCapacity(f"n{cpus}", "", cpus, cpus, 0, 0) for cpus in sizes))
    made = Cluster("x", ClusterCapacity(8, 8, 0, 0, nodes=len(nodes), node_capacities=nodes), SEEN)
    [why] = plan([job("j", 4)], [made]).blocked.values()
    assert why == (
        f"waiting for a larger cluster: needs 4 CPUs; x has {has}: ask for less in spec.resources, or add a "
        "larger node, or take one into use again (`finemesh workers undrain`)"
    )


def test_a_job_that_no_node_can_hold_is_told_of_the_largest() -> None:
    nodes = tuple(
        NodeCapacity(name, "", cpus, cpus, gpus, gpus) for name, cpus, gpus in (("a", 2, 1), ("b", 8, 0))
    )
    reported = Cluster("x", ClusterCapacity(10, 10, 1, 1, nodes=2, node_capacities=nodes), SEEN)
    [why] = plan([job("huge", 9)], [reported]).blocked.values()
    assert (
        "10 CPUs, 1 GPUs and 0.0 GB on 2 nodes, of which none has more than 8 CPUs, 1 GPUs and 0.0 GB" in why
    )


def test_a_job_that_no_cluster_can_hold_does_not_hold_up_its_project() -> None:
    """Its size is no reason to let others go first."""
    waiting = [job("huge", 64), job("mine", 4), job("other", 4, project="q")]
    before = {"q": Room(3600.0, 0, 0)}  # so it is the turn of the first project, by an hour of a CPU
    assert placed(plan(waiting, [cluster("x")], usage=before)) == {"mine": "x"}


def test_workers_share_what_their_job_holds() -> None:
    """No worker comes on top of what the job asks for."""
    four, two = Resources(cpus=4, workers=4), Resources(cpus=2, gpus=2)
    waiting = [Demand("projects/p/t/a", four, SEEN), Demand("projects/p/t/b", two, SEEN)]
    assert placed(plan(waiting, [cluster("x", 4), cluster("y", 2, 2)])) == {"a": "x", "b": "y"}
    assert not placed(plan(waiting, [cluster("x", 3), cluster("y", 1, 2)]))


def test_cpu_jobs_leave_the_cluster_with_gpus_alone() -> None:
    decided = plan([job("cpu"), job("gpu", 1, 1)], [cluster("gpus", 8, 4), cluster("plain", 4)])
    assert placed(decided) == {"cpu": "plain", "gpu": "gpus"}


def test_a_job_that_waits_for_one_cluster_leaves_the_others_open() -> None:
    busy = held("r", Resources(gpus=2), on="gpus", start_time=None)
    decided = plan([job("gpu", 1, 4), job("cpu")], [cluster("gpus", 8, 4), cluster("plain", 4)], [busy])
    assert placed(decided) == {"cpu": "plain"}


def test_free_room_counts_what_the_report_could_not_know() -> None:
    two = Resources(cpus=2)
    sent = held("a", two, start_time=None)
    taken_up_before, taken_up_after = held("b", two), held("c", two, start_time=AFTER)
    ended_after = held("d", two, end_time=AFTER)
    reported = cluster("x", free=2)

    def free(*claims: Claim) -> float:
        return site_of(reported, claims).nodes[""].free.cpus

    assert free() == 2
    assert free(sent) == 0
    assert free(taken_up_before) == 2
    assert free(taken_up_after) == 0
    assert free(ended_after) == 4
    assert free(ended_after, ended_after) == 4  # never more than there is


def test_nobody_gets_what_a_live_attempt_was_given_before_a_report_shows_it_there() -> None:
    """It was taken up, then the cluster looked, and then it reserved its room."""
    taken_up = held("first", Resources(gpus=1), start_time=BEFORE)
    assert placed(plan([job("second", gpus=1)], [cluster("x", gpus=1)], [taken_up])) == {}


def test_the_project_that_had_less_by_its_weight_is_next() -> None:
    waiting = [job("a", 4, project="p"), job("b", 4, project="q")]
    running = [held("r", Resources(cpus=2), project="p", on="y")]
    live = [cluster("x"), cluster("y", free=2)]
    assert placed(plan(waiting, live, running)) == {"b": "x"}
    heavy = {"p": Quota("p", weight=10), "q": Quota("q", weight=1)}
    both = [*running, held("s", Resources(cpus=1), project="q", on="y")]
    assert placed(plan(waiting, live, both, quotas=heavy)) == {"a": "x"}


def test_a_quota_says_which_it_is_and_lets_no_smaller_job_pass() -> None:
    running = [held("r", Resources(gpus=2))]
    limited = {"p": Quota("p", max_gpus=4)}
    waiting = [job("four", 1, 4, priority=1), job("one", 1, 1), job("cpu", 1), job("many", 1, 6)]
    decided = plan(waiting, [cluster("x", 8, 8)], running, quotas=limited)
    assert placed(decided) == {"cpu": "x"}
    assert "at most 4 GPUs at once (max_gpus)" in decided.blocked[waiting[0].name]
    never = plan([waiting[3], job("one", 1, 1)], [cluster("x", 8, 8)], running, quotas=limited)
    assert placed(never) == {"one": "x"}
    assert "this job asks for 6: ask for less, or have the quota raised" in never.blocked[waiting[3].name]


def test_two_that_room_is_kept_for_start_within_the_quota_when_both_have_it() -> None:
    busy = [held(name, Resources(cpus=4), project="q", on=name) for name in ("x", "y")]
    waiting, limits = [job("a", 4), job("b", 4)], {"p": Quota("p", max_jobs=1)}
    kept = plan(waiting, [cluster("x", free=0), cluster("y", free=0)], busy, quotas=limits).reservations
    assert len(kept) == 2
    decided = plan(waiting, [cluster("x"), cluster("y")], quotas=limits, reservations=kept)
    assert list(placed(decided)) == ["a"]


def test_quotas_of_jobs_and_gpu_hours() -> None:
    one_at_once, used_up = {"p": Quota("p", max_jobs=1)}, {"p": Quota("p", max_gpu_hours=5)}
    waiting, live = [job("a", 1, 1), job("b", 1, 1)], [cluster("x", 8, 8)]
    first = plan(waiting, live, quotas=one_at_once)
    assert placed(first) == {"a": "x"}
    assert ["at most 1 jobs at once (max_jobs)" in why for why in first.blocked.values()] == [True]
    second = plan(waiting, live, quotas=used_up, gpu_hours={"p": 5.0})
    assert placed(second) == {}
    assert all("5 GPU-hours in 24 hours are used up" in why for why in second.blocked.values())


def test_what_is_known_to_end_in_time_is_lent_reserved_room() -> None:
    running = [held("r", Resources(cpus=3), expected_end_time=AFTER + timedelta(minutes=10))]
    live = [cluster("x", free=1)]
    large = job("large", 4, priority=5)
    assert placed(plan([large, job("unknown")], live, running)) == {}
    assert placed(plan([large, job("long", seconds=3600.0)], live, running)) == {}
    assert placed(plan([large, job("short", seconds=60.0)], live, running)) == {"short": "x"}


def test_the_cheapest_of_lower_priority_stop_for_a_job_far_above_them() -> None:
    def running(name: str, minutes: float, priority: int = 0, **more: Any) -> Claim:
        began = AFTER - timedelta(minutes=minutes)
        return held(name, Resources(cpus=2), start_time=began, priority=priority, **more)

    live = [cluster("x", 6, free=0)]
    claims = [running("old", 60), running("new", 5), running("near", 1, priority=15)]
    decided = plan([job("urgent", 2, priority=20)], live, claims)
    assert {short(victim) for victim in decided.preempted} == {"new"}
    saved = [running("old", 60, saved_time=BEFORE), *claims[1:]]
    assert {short(v) for v in plan([job("urgent", 2, priority=20)], live, saved).preempted} == {"old"}
    assert not plan([job("hardly", 2, priority=9)], live, claims).preempted
    kept = [running("old", 60, priority=15), running("new", 5, stopping=True)]
    again = plan([job("urgent", 2, priority=20)], [cluster("x", 4, free=0)], kept)
    assert not again.preempted  # the one that stops already makes room enough
    assert [short(each.job) for each in again.reservations] == ["urgent"]


def test_nobody_else_stops_while_the_room_of_one_that_has_stopped_is_not_reported_yet() -> None:
    def look(seconds: float, claims: Sequence[Claim], reservations: Sequence[Reservation]) -> Decisions:
        waiting, now = Waiting(), AFTER + timedelta(seconds=seconds)
        waiting.put(job("urgent", 2, priority=20))
        live = [replace(cluster("x", 4, free=0), last_seen_time=now)]
        return decide(Snapshot(now, waiting, live, claims, reservations=reservations), 100)

    old, new = held("old", Resources(cpus=2)), held("new", Resources(cpus=2), start_time=SEEN)
    told = look(0, [old, new], [])
    assert {short(victim) for victim in told.preempted} == {"new"}
    stops = look(100, [old, replace(new, stopping=True)], told.reservations)  # it takes its time to save
    ended = look(150, [old], stops.reservations)
    assert not stops.preempted | ended.preempted
    assert [short(each.job) for each in ended.reservations] == ["urgent"]
    taken = look(161, [old], ended.reservations)  # something else has taken the room
    assert {short(victim) for victim in taken.preempted} == {"old"}


def test_an_attempt_that_nobody_has_taken_up_is_not_told_to_stop() -> None:
    waits, runs = (held(name, Resources(cpus=2), start_time=at) for name, at in (("w", None), ("r", BEFORE)))
    decided = plan([job("urgent", 2, priority=20)], [cluster("x", 4, free=2)], [waits, runs])
    assert {short(victim) for victim in decided.preempted} == {"r"}
