"""How fast a job trains, measured: what the time of its end is estimated from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

HALF_LIFE_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds and steps between the reports of one attempt, older ones counting less.

    Both sums halve every `HALF_LIFE_SECONDS`, so that their quotient is a mean over the last minutes that has
    validations and checkpoints in it as often as they come. An attempt starts a new one: what lies between
    two attempts (a pause, a wait, a restart) is no training.

    Attributes:
        time: of the last report; UTC.
        step: optimiser steps taken by then.
    """

    time: datetime
    step: int
    seconds: float = 0.0
    steps: float = 0.0

    def seen(self, step: int, now: datetime) -> Pace:
        """After a report of `step`. One without a new step changes nothing: its time counts with the next."""
        passed = (now - self.time).total_seconds()
        if step <= self.step or passed <= 0:
            return self
        kept = 0.5 ** (passed / HALF_LIFE_SECONDS)
        return replace(
            self,
            time=now,
            step=step,
            seconds=kept * self.seconds + passed,
            steps=kept * self.steps + (step - self.step),
        )

    def end_time(self, total_steps: int) -> datetime | None:
        """When the last of `total_steps` is done at this pace; None while there is nothing to go by."""
        if not self.steps or total_steps <= 0:
            return None
        left = max(0, total_steps - self.step) * self.seconds / self.steps
        return self.time + timedelta(seconds=left)
