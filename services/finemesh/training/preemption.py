"""Which attempts stop so that a job of higher priority starts: those that lose the least work.

What an attempt loses is what it has done since its last checkpoint, in GPU-seconds (in core-seconds where it
has no GPU). It is asked to save first, so this is the most that it can lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from finemesh.training.claims import Claim
from finemesh.training.rooms import Gang, Room, Site

PREEMPTION_DISTANCE: Final = 10


@dataclass(frozen=True, slots=True)
class Eviction:
    """Who stops, and where the gang starts then. Nobody stops when those that are stopping already do."""

    spots: dict[str, int]
    victims: tuple[Claim, ...]
    loss: float


def may_stop(claim: Claim, priority: int) -> bool:
    """Whether an attempt, which has been taken up, may be stopped for a job of this priority."""
    live = claim.end_time is None and claim.start_time is not None and not claim.stopping
    return live and claim.priority + PREEMPTION_DISTANCE <= priority


def loss_of(claim: Claim, now: datetime) -> float:
    """What stopping an attempt may lose, in GPU-seconds or core-seconds."""
    begun = max(claim.began, claim.saved_time or claim.began)
    total = claim.gang.total
    return max((now - begun).total_seconds(), 0.0) * (total.gpus or total.cpus)


def evict(
    site: Site, gang: Gang, claims: Sequence[Claim], able: set[str], reserved: set[str], now: datetime
) -> Eviction | None:
    """The eviction on `site` that loses least; None if all of those in `able` would not make enough room.

    `able` names the jobs that may stop; `reserved` the nodes that are kept for others.
    """
    plans = [
        plan
        for node_id, mine in _on_nodes(claims).items()
        if node_id in site.nodes and node_id not in reserved and not site.nodes[node_id].draining
        for plan in [_Plan(node_id, site.nodes[node_id].free, mine, able, gang, now)]
        if plan.workers
    ]
    if site.wants_one_node(gang):
        full = [plan.eviction() for plan in plans if plan.workers == gang.workers]
        return min(full, key=lambda each: (each.loss, len(each.victims), min(each.spots)), default=None)
    return _several(plans, gang)


def _several(plans: Sequence[_Plan], gang: Gang) -> Eviction | None:
    """The cheapest nodes per worker first."""
    spots: dict[str, int] = {}
    victims: dict[str, Claim] = {}
    missing, loss = gang.workers, 0.0
    for plan in sorted(plans, key=lambda each: (each.eviction().loss / each.workers, each.node_id)):
        if missing:
            spots[plan.node_id] = min(missing, plan.workers)
            missing -= spots[plan.node_id]
            loss += plan.eviction().loss
            victims |= {claim.job: claim for claim in plan.eviction().victims}
    return None if missing else Eviction(spots, tuple(victims.values()), loss)


class _Plan:
    """What one node could give, and at which loss."""

    def __init__(
        self, node_id: str, free: Room, claims: Iterable[Claim], able: set[str], gang: Gang, now: datetime
    ) -> None:
        self.node_id = node_id
        self._gang = gang
        self._now = now
        self._room = free
        self._victims: list[Claim] = []
        choices: list[Claim] = []
        for claim in claims:
            if claim.stopping:
                self._room = self._with(claim)
            elif claim.job in able:
                choices.append(claim)
        for claim in sorted(choices, key=lambda each: (loss_of(each, now), each.job)):
            if self.workers == gang.workers:
                break
            self._victims.append(claim)
            self._room = self._with(claim)
        self._spare_the_dear()

    @property
    def workers(self) -> int:
        return self._gang.fits_into(self._room)

    def _with(self, claim: Claim, sign: int = 1) -> Room:
        return self._room.plus(claim.gang.each, sign * claim.spots().get(self.node_id, 0))

    def _spare_the_dear(self) -> None:
        """Take out victims that are not needed after all, those that lose most first."""
        for claim in sorted(self._victims, key=lambda each: (-loss_of(each, self._now), each.job)):
            without = self._with(claim, -1)
            if self._gang.fits_into(without) == self.workers:
                self._victims.remove(claim)
                self._room = without

    def eviction(self) -> Eviction:
        loss = sum(loss_of(claim, self._now) for claim in self._victims)
        return Eviction({self.node_id: self.workers}, tuple(self._victims), loss)


def _on_nodes(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.end_time is None:
            for node_id in claim.spots():
                found.setdefault(node_id, []).append(claim)
    return found
