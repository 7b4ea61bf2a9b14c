"""A mesh that is only numbers: it plays the scheduling pass for days and checks what it does.

It keeps books of its own, of what nodes have left and of what projects have used, and lets nothing through
that does not add up. Time moves when the caller says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from finemesh.core.attempts import Cluster, ClusterCapacity, NodeCapacity
from finemesh.core.spec.finetune import Resources
from finemesh.training import fairness
from finemesh.training.claims import Claim
from finemesh.training.placement import Decisions, Snapshot, decide
from finemesh.training.quotas import Quota
from finemesh.training.reservations import Reservation
from finemesh.training.rooms import Gang, Room
from finemesh.training.waiting import Demand, Waiting

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Job:
    """A job with the time that it really takes; `told` is what the scheduler knows of that."""

    demand: Demand
    seconds: float
    told: bool = False


@dataclass
class World:
    """Clusters of nodes (CPUs, GPUs each), and the jobs that come and go."""

    clusters: Sequence[Sequence[tuple[float, float]]]
    quotas: dict[str, Quota] = field(default_factory=dict[str, Quota])
    limit: int = 1000
    now: datetime = START
    waiting: Waiting = field(default_factory=Waiting)
    jobs: dict[str, Job] = field(default_factory=dict[str, Job])
    running: dict[str, tuple[Claim, datetime]] = field(default_factory=dict[str, tuple[Claim, datetime]])
    started: dict[str, datetime] = field(default_factory=dict[str, datetime])
    usage: dict[str, Room] = field(default_factory=dict[str, Room])
    gpu_seconds: Counter[str] = field(default_factory=Counter[str])
    reservations: list[Reservation] = field(default_factory=list[Reservation])
    free: dict[tuple[str, str], Room] = field(init=False)

    def __post_init__(self) -> None:
        self.free = {
            (f"c{i}", f"n{j}"): Room(cpus, gpus, 0)
            for i, nodes in enumerate(self.clusters)
            for j, (cpus, gpus) in enumerate(nodes)
        }
        self.total = dict(self.free)

    def submit(
        self,
        name: str,
        resources: Resources,
        seconds: float,
        *,
        project: str = "p",
        priority: int = 0,
        told: bool = False,
    ) -> str:
        """Add a job; returns its name."""
        full = f"projects/{project}/trainingJobs/{name}"
        known = seconds if told else None
        message = "waiting for resources"
        demand = Demand(full, resources, self.now, priority, message, seconds=known)
        self.jobs[full] = Job(demand, seconds, told)
        self.waiting.put(demand)
        return full

    def snapshot(self) -> Snapshot:
        return Snapshot(
            now=self.now,
            waiting=self.waiting,
            live=[self._report(i) for i in range(len(self.clusters))],
            claims=[claim for claim, _ in self.running.values()],
            usage=self.usage,
            quotas=self.quotas,
            reservations=self.reservations,
        )

    def step(self, seconds: float) -> Decisions:
        """One pass, carried out and checked; then time goes on, and jobs end."""
        decided = decide(self.snapshot(), self.limit)
        self.reservations = decided.reservations
        for placed in decided.placed:
            self._start(placed.name, placed.cluster, placed.nodes)
        for name in decided.preempted:
            claim, _ = self.running[name]
            self.running[name] = replace(claim, stopping=True), self.now
        self._check_quotas()
        self.advance(seconds)
        return decided

    def advance(self, seconds: float) -> None:
        held = fairness.held_by_project([claim for claim, _ in self.running.values()])
        self.usage = fairness.aged(self.usage, held, seconds)
        for project, room in held.items():
            self.gpu_seconds[project] += round(room.gpus * seconds)
        self.now += timedelta(seconds=seconds)
        for name, (claim, end) in list(self.running.items()):
            if end <= self.now:
                self._end(name, claim)

    def _end(self, name: str, claim: Claim) -> None:
        del self.running[name]
        for node in claim.nodes:
            key = (claim.cluster, node)
            self.free[key] = self.free[key].plus(claim.gang.each)
        if claim.stopping:  # preempted: it waits again, from its last checkpoint
            self.waiting.put(self.jobs[name].demand)

    def _start(self, name: str, cluster: str, nodes: tuple[str, ...]) -> None:
        assert name not in self.running, name
        job = self.jobs[name]
        gang = Gang.of(job.demand.resources)
        assert len(nodes) == gang.workers, "a gang starts with all its workers or not at all"
        for node in nodes:
            left = self.free[cluster, node].plus(gang.each, -1)
            assert min(left) > -1e-6, f"{cluster}/{node} is given more than it has"
            self.free[cluster, node] = left
        end = self.now + timedelta(seconds=job.seconds)
        self.started.setdefault(name, self.now)
        claim = Claim(
            job=name,
            project=job.demand.project,
            cluster=cluster,
            gang=gang,
            create_time=self.now,
            nodes=nodes,
            start_time=self.now,
            expected_end_time=end if job.told else None,
            priority=job.demand.priority,
        )
        self.running[name] = claim, end
        self.waiting.discard(name)

    def _check_quotas(self) -> None:
        held = fairness.held_by_project([claim for claim, _ in self.running.values()])
        jobs = Counter(claim.project for claim, _ in self.running.values())
        for project, quota in self.quotas.items():
            assert quota.max_jobs is None or jobs[project] <= quota.max_jobs
            gpus = held[project].gpus if project in held else 0.0
            assert quota.max_gpus is None or gpus <= quota.max_gpus

    def _report(self, index: int) -> Cluster:
        nodes = [
            NodeCapacity(f"n{j}", cpus=cpus, cpus_free=free.cpus, gpus=gpus, gpus_free=free.gpus)
            for j, (cpus, gpus) in enumerate(self.clusters[index])
            for free in [self.free[f"c{index}", f"n{j}"]]
        ]
        capacity = ClusterCapacity(
            cpus=sum(node.cpus for node in nodes),
            cpus_free=sum(node.cpus_free for node in nodes),
            gpus=sum(node.gpus for node in nodes),
            gpus_free=sum(node.gpus_free for node in nodes),
            nodes=len(nodes),
            node_capacities=tuple(nodes),
        )
        return Cluster(f"c{index}", capacity, self.now)
