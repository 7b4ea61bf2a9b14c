"""Who runs next, and where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from finemesh.core.attempts import Cluster, ClusterCapacity
from finemesh.core.spec.finetune import Resources
from finemesh.training.placement import Claim, Demand, free_room, plan
from hypothesis import given, settings
from hypothesis import strategies as st

SEEN = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE, AFTER = SEEN - timedelta(seconds=1), SEEN + timedelta(seconds=1)


def cluster(name: str, cpus: float = 4, gpus: float = 0, *, free: float | None = None) -> Cluster:
    capacity = ClusterCapacity(
        cpus=cpus, cpus_free=cpus if free is None else free, gpus=gpus, gpus_free=gpus, nodes=1
    )
    return Cluster(name, capacity, SEEN)


def job(name: str, cpus: float = 1, gpus: int = 0) -> Demand:
    return Demand(name, Resources(cpus=cpus, gpus=gpus))


def test_jobs_go_in_their_order_while_there_is_room() -> None:
    decided = plan([job("a", 2), job("b", 2), job("c", 2)], [cluster("x")], [])
    assert decided.placed == {"a": "x", "b": "x"}
    assert decided.blocked == {"c": "waiting for resources"}


def test_a_large_job_is_not_starved_by_small_ones_behind_it() -> None:
    decided = plan([job("large", 4), job("small", 1)], [cluster("x", free=2)], [])
    assert decided.placed == {}


def test_a_job_that_no_cluster_can_hold_stops_nobody() -> None:
    decided = plan([job("huge", 64), job("small", 1)], [cluster("x")], [])
    assert decided.placed == {"small": "x"}
    assert "needs 64 CPUs" in decided.blocked["huge"]
    assert plan([job("small")], [], []).blocked == {"small": "waiting for a cluster: none is live"}


def test_workers_share_what_their_job_holds() -> None:
    """No worker comes on top of what the job asks for; a cluster may hold them on several nodes."""
    waiting = [Demand("a", Resources(cpus=4, workers=4)), Demand("b", Resources(cpus=2, gpus=2))]
    assert plan(waiting, [cluster("x", 4), cluster("y", 2, 2)], []).placed == {"a": "x", "b": "y"}
    assert not plan(waiting, [cluster("x", 3), cluster("y", 1, 2)], []).placed


def test_cpu_jobs_leave_the_cluster_with_gpus_alone() -> None:
    decided = plan([job("cpu"), job("gpu", 1, 1)], [cluster("gpus", 8, 4), cluster("plain", 4)], [])
    assert decided.placed == {"cpu": "plain", "gpu": "gpus"}


def test_a_job_that_waits_for_one_cluster_leaves_the_others_open() -> None:
    waiting = [job("gpu", 1, 4), job("cpu")]
    busy = Claim("gpus", Resources(gpus=2))
    decided = plan(waiting, [cluster("gpus", 8, 4), cluster("plain", 4)], [busy])
    assert decided.placed == {"cpu": "plain"}


def test_free_room_counts_what_the_report_could_not_know() -> None:
    two = Resources(cpus=2)
    sent = Claim("x", two)
    taken_up_before, taken_up_after = Claim("x", two, BEFORE), Claim("x", two, AFTER)
    ended_after = Claim("x", two, BEFORE, AFTER)
    elsewhere = Claim("y", two)
    reported = cluster("x", free=2)
    assert free_room(reported, []).cpus == 2
    assert free_room(reported, [sent]).cpus == 0
    assert free_room(reported, [taken_up_before]).cpus == 2
    assert free_room(reported, [taken_up_after]).cpus == 0
    assert free_room(reported, [ended_after]).cpus == 4
    assert free_room(reported, [ended_after, ended_after]).cpus == 4  # never more than there is
    assert free_room(reported, [elsewhere]).cpus == 2


jobs = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), max_size=12)
clusters = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 4)), max_size=4)


@settings(database=None)
@given(jobs, clusters)
def test_no_cluster_is_given_more_than_it_has(
    wanted: list[tuple[int, int]], sizes: list[tuple[int, int]]
) -> None:
    demands = [job(f"j{i}", cpus, gpus) for i, (cpus, gpus) in enumerate(wanted)]
    live = [cluster(f"c{i}", cpus, gpus) for i, (cpus, gpus) in enumerate(sizes)]
    decided = plan(demands, live, [])
    assert decided.placed.keys() | decided.blocked.keys() == {demand.name for demand in demands}
    assert not decided.placed.keys() & decided.blocked.keys()
    for each in live:
        given_away = [d.resources for d in demands if decided.placed.get(d.name) == each.id]
        assert sum(r.cpus for r in given_away) <= each.capacity.cpus
        assert sum(r.gpus for r in given_away) <= each.capacity.gpus
    if live and demands and any(each.capacity.cpus >= demands[0].resources.cpus for each in live):
        fits = any(
            each.capacity.cpus >= demands[0].resources.cpus
            and each.capacity.gpus >= demands[0].resources.gpus
            for each in live
        )
        assert (demands[0].name in decided.placed) == fits
