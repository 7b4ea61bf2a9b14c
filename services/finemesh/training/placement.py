"""Who runs next, and where: a pure function of what waits, what clusters report and what attempts hold.

The project with the least score (`fairness`) is next, with its job of the highest priority, of which the
oldest (`waiting`). It starts if its quota allows and all its workers have room at once. The first job on
each cluster that has to wait for room gets a reservation, which later jobs cannot delay (`reservations`); or
others are told to stop for it (`preemption`). A job that no live cluster could ever hold stops nobody.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from finemesh.core.attempts import Cluster
from finemesh.training import fairness, preemption, quotas
from finemesh.training.claims import STOPPING_SECONDS, Claim, by_cluster, site_of
from finemesh.training.quotas import Quota
from finemesh.training.reservations import Reservation, close_room, open_room, reserve
from finemesh.training.rooms import NOTHING, Gang, Room, Site, Spots
from finemesh.training.waiting import Entry, Kind, Place, Waiting

WAITING_FOR_ROOM: Final = "waiting for resources"
NODES_PER_RESERVATION: Final = 8  # so many nodes of a cluster for each job that room is kept for
RESERVATIONS_AT_MOST: Final = 4  # on one cluster
TOLD: Final = 100  # so many jobs of each line say why they wait; those behind them wait for these


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a pass decides on.

    Attributes:
        live: the clusters that get work.
        claims: what attempts hold, or held until after the last report of their cluster.
        usage: decayed usage of each project up to `now`, see `fairness.aged`.
        quotas: of the projects that have one.
        gpu_hours: used by projects within the window of their quota, where it limits them.
        reservations: as the pass before left them.
    """

    now: datetime
    waiting: Waiting
    live: Sequence[Cluster]
    claims: Sequence[Claim] = ()
    usage: fairness.Usage = field(default_factory=dict[str, Room])
    quotas: Mapping[str, Quota] = field(default_factory=dict[str, Quota])
    gpu_hours: Mapping[str, float] = field(default_factory=dict[str, float])
    reservations: Sequence[Reservation] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A job that starts: its cluster, and the node of each worker; no nodes where the cluster names none."""

    name: str
    cluster: str
    nodes: tuple[str, ...] = ()


@dataclass(slots=True)
class Decisions:
    """What a pass decided: who starts, why others wait, for whom room is kept, and who stops for whom."""

    placed: list[Placed] = field(default_factory=list[Placed])
    blocked: dict[str, str] = field(default_factory=dict[str, str])
    reservations: list[Reservation] = field(default_factory=list[Reservation])
    preempted: dict[str, str] = field(default_factory=dict[str, str])


def decide(snapshot: Snapshot, limit: int) -> Decisions:
    """One pass, which starts at most `limit` jobs."""
    return _Pass(snapshot, limit).run()


class _Line:
    """The jobs of a project that may still start in this pass, in their order."""

    def __init__(self, lines: Mapping[Kind, list[Place]]) -> None:
        self._lines = lines
        self._heads: list[tuple[Place, int, Kind]] = [(line[0], 0, kind) for kind, line in lines.items()]
        heapq.heapify(self._heads)

    def head(self) -> tuple[Place, Kind] | None:
        return (self._heads[0][0], self._heads[0][2]) if self._heads else None

    def skip(self) -> None:
        """The head has started: the next of its kind follows."""
        _, index, kind = heapq.heappop(self._heads)
        line = self._lines[kind]
        if index + 1 < len(line):
            heapq.heappush(self._heads, (line[index + 1], index + 1, kind))

    def close(self) -> None:
        """Nobody else of the head's kind starts."""
        heapq.heappop(self._heads)

    def close_all(self, *, with_gpus_only: bool) -> None:
        self._heads = [each for each in self._heads if with_gpus_only and each[2].gang.each.gpus <= 0]
        heapq.heapify(self._heads)


class _Pass:
    def __init__(self, snapshot: Snapshot, limit: int) -> None:
        self.now = snapshot.now
        self._all = snapshot
        self._limit = limit
        self._claims = by_cluster(snapshot.claims)
        self._sites = {each.id: site_of(each, self._claims.get(each.id, ())) for each in snapshot.live}
        self._total = NOTHING
        for site in self._sites.values():
            self._total = self._total.plus(site.total)
        self._held = fairness.held_by_project(snapshot.claims)
        self._jobs: dict[str, int] = {}
        for claim in snapshot.claims:
            if claim.end_time is None:
                self._jobs[claim.project] = self._jobs.get(claim.project, 0) + 1
        self._least_priority = min((claim.priority for claim in snapshot.claims), default=0)
        self._possible: dict[Gang, list[Site]] = {}
        self._full: set[Kind] = set()
        self._kept: dict[str, Room] = {}  # what is reserved for projects
        self._waited_for: Counter[str] = Counter()  # how many wait for room on each cluster
        self._done = Decisions()

    def run(self) -> Decisions:
        self._keep_reservations()
        lines = {project: _Line(kinds) for project, kinds in self._all.waiting.projects.items()}
        started = {placed.name for placed in self._done.placed}
        turns = [(self._turn(project, line), project) for project, line in lines.items()]
        heapq.heapify(turns)
        while turns and len(self._done.placed) < self._limit:
            _, project = heapq.heappop(turns)
            line = lines[project]
            head = line.head()
            if head is None:
                continue
            entry = self._all.waiting.entries[head[0].name]
            if entry.demand.name in started:
                line.skip()
            else:
                self._consider(entry, line)
            heapq.heappush(turns, (self._turn(project, line), project))
        return self._done

    def _turn(self, project: str, line: _Line) -> float:
        """When it is the project's turn: its score with half of the next job, see `fairness`.

        A job that cannot start is told so at once: its size must not hold up those behind it.
        """
        head = line.head()
        if head is None:
            return math.inf
        entry = self._all.waiting.entries[head[0].name]
        if not self._sites_for(entry.kind.gang) or self._excess(entry) is not None:
            return 0.0
        return self._score(project, entry.kind.gang.total)

    def _score(self, project: str, added: Room = NOTHING) -> float:
        quota = self._all.quotas.get(project)
        usage = self._all.usage.get(project, NOTHING)
        held = self._held.get(project, NOTHING).plus(self._kept.get(project, NOTHING)).plus(added, 0.5)
        return fairness.score(usage, held, self._total, quota.weight if quota else 1.0)

    def _consider(self, entry: Entry, line: _Line) -> None:
        over = self._excess(entry)
        if over is not None:
            self._tell(entry, over.message)
            if over.ever:  # smaller ones must not use up for ever what it waits for
                line.close_all(with_gpus_only=not over.every_job)
            else:
                line.close()
            return
        found = None if entry.kind in self._full else self._find(entry.kind)
        if found is not None:
            self._start(entry, *found)
            line.skip()
            return
        self._full.add(entry.kind)
        if self._wait(entry):
            line.skip()  # so may the next of its kind, if it is still the project's turn
        else:
            line.close()

    def _excess(self, entry: Entry) -> quotas.Excess | None:
        project = entry.demand.project
        quota = self._all.quotas.get(project)
        if quota is None:
            return None
        held, hours = self._held.get(project, NOTHING), self._all.gpu_hours.get(project, 0.0)
        usage = quotas.Usage(self._jobs.get(project, 0), held, hours)
        return quotas.excess(quota, usage, entry.kind.gang)

    # Starting

    def _sites_for(self, gang: Gang) -> list[Site]:
        if gang not in self._possible:
            self._possible[gang] = [site for site in self._sites.values() if site.could_hold(gang)]
        return self._possible[gang]

    def _find(self, kind: Kind) -> tuple[Site, Spots, bool] | None:
        """Where a job of this kind has room now, and whether that is lent out of a reservation."""
        fits = [(site, site.fit(kind.gang)) for site in self._sites_for(kind.gang)]
        found = [(site, spots) for site, spots in fits if spots]
        if found:
            site, spots = min(found, key=lambda each: _tightness(kind.gang, *each))
            return site, spots, False
        for each in self._done.reservations:
            if each.lets_in(kind.seconds, self.now):
                site = self._sites[each.cluster]
                for node_id in each.spots:
                    if kind.gang.fits_into(site.nodes[node_id].free) == kind.gang.workers:
                        return site, {node_id: kind.gang.workers}, True
        return None

    def _start(self, entry: Entry, site: Site, spots: Spots, lent: bool = False) -> None:
        gang, project = entry.kind.gang, entry.demand.project
        site.take(gang, spots, lent=lent)
        nodes = tuple(node_id for node_id, workers in spots.items() if node_id for _ in range(workers))
        self._done.placed.append(Placed(entry.demand.name, site.id, nodes))
        self._held[project] = self._held.get(project, NOTHING).plus(gang.total)
        self._jobs[project] = self._jobs.get(project, 0) + 1

    # Waiting

    def _tell(self, entry: Entry, message: str) -> None:
        """Why this job waits; those behind it in its line say the same."""
        if message == WAITING_FOR_ROOM == entry.demand.message:
            return  # as all of the line have said since they were admitted
        waiting = self._all.waiting
        for place in waiting.projects[entry.demand.project][entry.kind][:TOLD]:
            if place >= entry.place:
                self._done.blocked[place.name] = message

    def _wait(self, entry: Entry) -> bool:
        """Say why a job waits, and keep room for it if it is its turn. Whether room is kept for it."""
        possible = self._sites_for(entry.kind.gang)
        if not possible:
            self._tell(entry, _impossible(entry.kind.gang, self._sites))
            return False
        self._tell(entry, WAITING_FOR_ROOM)
        kept = next((each for each in self._done.reservations if each.job == entry.demand.name), None)
        if kept is not None and kept.preempting:
            return True
        made = self._make_room(entry, possible)
        if kept is None:
            made = made or self._reserve(entry, possible)
        elif made is not None:
            self._release(kept)
        if made is not None:
            self._hold(made)
        return made is not None or kept is not None

    def _reserve(self, entry: Entry, possible: Sequence[Site]) -> Reservation | None:
        """The earliest start on the cluster on which the fewest wait, if there are not too many."""
        for site in sorted(possible, key=lambda each: (self._waited_for[each.id], each.id)):
            most = min(max(1, len(site.nodes) // NODES_PER_RESERVATION), RESERVATIONS_AT_MOST)
            if self._waited_for[site.id] < most:
                mine, others = self._claims.get(site.id, []), self._reserved_on(site)
                found = reserve(site, entry.demand.name, entry.kind.gang, mine, others, self.now)
                if found is not None:
                    self._waited_for[site.id] += 1
                    return found
        return None

    def _make_room(self, entry: Entry, possible: Sequence[Site]) -> Reservation | None:
        """Stop others for this job, if that is allowed and enough."""
        if entry.demand.priority < self._least_priority + preemption.PREEMPTION_DISTANCE:
            return None
        mine = self._score(entry.demand.project)
        able = {
            claim.job
            for claim in self._all.claims
            if preemption.may_stop(claim, entry.demand.priority) and claim.job not in self._done.preempted
            if claim.project == entry.demand.project or self._score(claim.project) > mine
        }
        if not able:
            return None
        gang = entry.kind.gang
        found = [
            (eviction, site)
            for site in possible
            for claims in [self._claims.get(site.id, [])]
            for eviction in [preemption.evict(site, gang, claims, able, self._reserved_on(site), self.now)]
            if eviction is not None
        ]
        if not found:
            return None
        eviction, site = min(found, key=lambda each: (each[0].loss, each[1].id))
        self._done.preempted |= {claim.job: entry.demand.name for claim in eviction.victims}
        until = self.now + timedelta(seconds=STOPPING_SECONDS)
        return Reservation(entry.demand.name, site.id, gang, eviction.spots, self.now, until, self.now)

    # Reservations

    def _reserved_on(self, site: Site) -> set[str]:
        return {i for each in self._done.reservations if each.cluster == site.id for i in each.spots}

    def _hold(self, reservation: Reservation) -> None:
        self._done.reservations.append(reservation)
        self._keep(reservation, 1)
        claims = self._claims.get(reservation.cluster, [])
        close_room(self._sites[reservation.cluster], reservation, claims, self.now)

    def _keep(self, reservation: Reservation, sign: int) -> None:
        project = reservation.job.split("/", 2)[1]
        room = self._kept.get(project, NOTHING)
        self._kept[project] = room.plus(reservation.gang.total, sign)

    def _release(self, reservation: Reservation) -> None:
        self._done.reservations.remove(reservation)
        self._keep(reservation, -1)
        if not reservation.preempting:
            self._waited_for[reservation.cluster] -= 1
        open_room(self._sites[reservation.cluster], reservation)

    def _keep_reservations(self) -> None:
        """Hold what the pass before has reserved, then start those whose room has come."""
        for kept in self._all.reservations:
            each = kept.seen_by(self._claims.get(kept.cluster, []), self._sites, self.now)
            if self._is_wanted(each):
                self._hold(each)
                if not each.preempting:
                    self._waited_for[each.cluster] += 1
        for each in list(self._done.reservations):
            if len(self._done.placed) < self._limit:
                self._use(each)

    def _use(self, reservation: Reservation) -> None:
        """Start the job on its nodes, or elsewhere: then the next of its line inherits what is half free."""
        entry, site = self._all.waiting.entries[reservation.job], self._sites[reservation.cluster]
        if self._excess(entry) is not None:  # another one of its project has started just now
            self._release(reservation)
            return
        if reservation.ready_in(site):
            self._release(reservation)
            self._start(entry, site, reservation.spots)
            return
        found = self._find(entry.kind._replace(seconds=None))
        if found is None:
            return
        self._release(reservation)
        self._start(entry, *found)
        heir = self._heir(entry)
        if heir is not None:
            self._hold(replace(reservation, job=heir))
            self._waited_for[reservation.cluster] += not reservation.preempting

    def _heir(self, entry: Entry) -> str | None:
        line = self._all.waiting.projects[entry.demand.project][entry.kind]
        taken = {each.job for each in self._done.reservations} | {each.name for each in self._done.placed}
        return next((place.name for place in line if place.name not in taken), None)

    def _is_wanted(self, reservation: Reservation) -> bool:
        """Whether the job still waits for it, as the first of its project that could ever start."""
        entry = self._all.waiting.entries.get(reservation.job)
        if entry is None or entry.kind.gang != reservation.gang or not reservation.stands_in(self._sites):
            return False
        if self._excess(entry) is not None:
            return False
        if reservation.stopping_seen is not None:
            # A cluster reports the room of an attempt some time after its end: nobody else stops meanwhile.
            return self.now - reservation.stopping_seen <= timedelta(seconds=STOPPING_SECONDS)
        served = {each.job for each in self._all.reservations}
        lines = self._all.waiting.projects[entry.demand.project].values()
        heads = [next((place for place in line if place.name not in served), None) for line in lines]
        return not any(h and h < entry.place and self._may_start_some_time(h) for h in heads)

    def _may_start_some_time(self, place: Place) -> bool:
        entry = self._all.waiting.entries[place.name]
        over = self._excess(entry)
        return (over is None or over.ever) and bool(self._sites_for(entry.kind.gang))


def _tightness(gang: Gang, site: Site, spots: Spots) -> tuple[bool, Room, str]:
    """The fullest place first, and one without GPUs for what needs none."""
    node = site.nodes[next(iter(spots))]
    return gang.each.gpus <= 0 < node.total.gpus, node.open, site.id


def _impossible(gang: Gang, sites: Mapping[str, Site]) -> str:
    if not sites:
        return "waiting for a cluster: none is live"
    have = "; ".join(f"{name} has {site}" for name, site in sorted(sites.items()))
    todo = "ask for less in spec.resources, or add a larger node"
    if any(node.draining for site in sites.values() for node in site.nodes.values()):
        todo = f"{todo}, or take one into use again (`finemesh workers undrain`)"
    return f"waiting for a larger cluster: needs {gang}; {have}: {todo}"
