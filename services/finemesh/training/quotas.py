"""How much a project may have: GPUs and jobs at once, GPU-hours per window, and its weight among others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from finemesh.training.claims import Claim
from finemesh.training.rooms import NOTHING, Gang, Room

DEFAULT_WINDOW_HOURS: Final = 24.0


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits of one project; None where there is none.

    Attributes:
        weight: its share among projects that all want more than there is.
        max_gpus: GPUs that its jobs may hold at once.
        max_jobs: jobs that may be at work at once.
        max_gpu_hours: GPU-hours within the last `window_hours`, counted when a job is about to start.
        update_time: when it was last set; None where it never was.
    """

    project: str
    weight: float = 1.0
    max_gpus: float | None = None
    max_jobs: int | None = None
    max_gpu_hours: float | None = None
    window_hours: float = DEFAULT_WINDOW_HOURS
    update_time: datetime | None = None

    def window_begin(self, now: datetime) -> datetime:
        return now - timedelta(hours=self.window_hours)

    def hours_used(self, claims: Iterable[Claim], now: datetime) -> float:
        """GPU-hours that the project's `claims` have come to within the window that ends `now`."""
        begin, total = self.window_begin(now), 0.0
        for claim in claims:
            seconds = ((claim.end_time or now) - max(claim.create_time, begin)).total_seconds()
            total += claim.gang.total.gpus * max(seconds, 0.0) / 3600.0
        return total


@dataclass(frozen=True, slots=True)
class Usage:
    """What a project has at the moment, and has had: what its quota is compared with."""

    jobs: int = 0
    held: Room = field(default=NOTHING)
    gpu_hours: float = 0.0


@dataclass(frozen=True, slots=True)
class Excess:
    """Why a job does not start, and whether it ever can under this quota."""

    message: str
    ever: bool
    every_job: bool  # whether jobs without GPUs have to wait as well


def excess(quota: Quota, usage: Usage, gang: Gang) -> Excess | None:
    """What keeps `gang` from starting now, or None."""
    wanted = gang.total.gpus
    owner = f"quota of projects/{quota.project}"
    if quota.max_jobs is not None and usage.jobs + 1 > quota.max_jobs:
        text = f"waiting for the {owner}: at most {quota.max_jobs} jobs at once (max_jobs)"
        return Excess(text, ever=quota.max_jobs > 0, every_job=True)
    if wanted <= 0:
        return None
    if quota.max_gpus is not None and usage.held.gpus + wanted > quota.max_gpus + 1e-9:
        text = f"waiting for the {owner}: at most {quota.max_gpus:g} GPUs at once (max_gpus)"
        if wanted > quota.max_gpus:
            text += f", and this job asks for {wanted:g}: ask for less, or have the quota raised"
        return Excess(text, ever=wanted <= quota.max_gpus, every_job=False)
    if quota.max_gpu_hours is not None and usage.gpu_hours >= quota.max_gpu_hours:
        text = f"waiting for the {owner}: {quota.max_gpu_hours:g} GPU-hours in {quota.window_hours:g} hours"
        return Excess(f"{text} are used up (max_gpu_hours)", ever=quota.max_gpu_hours > 0, every_job=False)
    return None
