"""Whose turn it is: dominant shares of what projects hold and have held, by weight.

A project's share of each resource is what it uses of all there is. What counts is its dominant share, the
largest of them (DRF: Ghodsi et al., NSDI 2011, https://www.usenix.org/conference/nsdi11). What it has used
counts too and is forgotten by half every HALF_LIFE_SECONDS, as in Slurm's multifactor priority
(https://slurm.schedmd.com/priority_multifactor.html). With the decayed usage U and the holding h of each
resource r, of which there is a total T, and the weight w of the project:

    score = max over r of (U_r + h_r * HORIZON_SECONDS) / T_r / w

so what runs now counts as if it ran on for the time that a job usually takes: the turn does not wait until it
has been used. The project with the least score is next, where half of its next job counts as held: as seats
are divided by Webster and Sainte-Laguë, which alone among the rules of divisors favours neither large parties
nor small ones (Balinski and Young, Fair Representation, 1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from finemesh.training.claims import Claim
from finemesh.training.rooms import NOTHING, Room

HALF_LIFE_SECONDS: Final = 12 * 3600.0
HORIZON_SECONDS: Final = 2 * 3600.0
_TAU: Final = HALF_LIFE_SECONDS / math.log(2)  # what usage comes to where one unit is held for ever

# Resource-seconds of each project, decayed.
Usage = Mapping[str, Room]


def score(usage: Room, held: Room, total: Room, weight: float) -> float:
    """How much of all there is a project has had and has, in seconds, by its weight; see above."""
    shares = [
        (used + has * HORIZON_SECONDS) / of
        for used, has, of in zip(usage, held, total, strict=True)
        if of > 0
    ]
    return max(shares, default=0.0) / weight


def aged(usage: Usage, held: Mapping[str, Room], seconds: float) -> dict[str, Room]:
    """Usage after `held` was held for `seconds` more: the integral of the decay over that time."""
    kept = 0.5 ** (seconds / HALF_LIFE_SECONDS)
    gained = _TAU * (1.0 - kept)
    return {
        project: NOTHING.plus(usage.get(project, NOTHING), kept).plus(held.get(project, NOTHING), gained)
        for project in usage.keys() | held.keys()
    }


def held_by_project(claims: Iterable[Claim]) -> dict[str, Room]:
    """What each project holds by its live attempts."""
    held: dict[str, Room] = {}
    for claim in claims:
        if claim.end_time is None:
            held[claim.project] = held.get(claim.project, NOTHING).plus(claim.gang.total)
    return held


def used_until(claim: Claim, now_seconds: float) -> Room:
    """The decayed usage that an attempt which has ended, or goes on, has come to; seconds since the epoch."""
    end = now_seconds if claim.end_time is None else min(claim.end_time.timestamp(), now_seconds)
    begin = min(claim.create_time.timestamp(), end)
    weight = 0.5 ** ((now_seconds - end) / HALF_LIFE_SECONDS)
    weight -= 0.5 ** ((now_seconds - begin) / HALF_LIFE_SECONDS)
    return NOTHING.plus(claim.gang.total, _TAU * weight)
