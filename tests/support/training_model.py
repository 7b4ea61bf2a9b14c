"""How the life of a training job should go, in plain words: the model that the real service is held to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from finemesh.core.names import Name

LEASE, START_TIMEOUT, RETRY, DELAY = 10.0, 20.0, 2.0, 1.0
GRACE = {"CANCEL": 15.0, "PAUSE": 12.0, "PREEMPT": 12.0}
VALIDATE_LIMIT, LAUNCH_LIMIT, RUN_LIMIT = 60.0, 40.0, 45.0
MAX_RESTARTS = 2
STRENGTH = ("CONTINUE", "PREEMPT", "PAUSE", "CANCEL")
STOPS = {"CANCELLING": "CANCELLED", "PAUSING": "PAUSED", "PREEMPTING": "QUEUED"}
FACT_OF = {"CANCELLED": "cancelled", "PAUSED": "paused", "QUEUED": "preempted"}


@dataclass
class Live:
    """An attempt that has not ended.

    Attributes:
        begun: when it was taken up.
        told: when it was told to stop, and for which limit.
    """

    lease_until: datetime
    begun: datetime | None = None
    directive: str = "CONTINUE"
    told: datetime | None = None
    limit: str = ""

    def tell(self, directive: str, now: datetime, limit: str = "") -> None:
        if STRENGTH.index(directive) > STRENGTH.index(self.directive):
            self.directive, self.told = directive, self.told or now
            self.limit = limit or self.limit

    def is_cut_off(self, now: datetime) -> bool:
        return self.told is not None and now >= self.told + timedelta(seconds=GRACE[self.directive])


@dataclass
class Model:
    """A job. `unexplained` tells whether the last error was of the class UNKNOWN."""

    name: Name
    priority: int
    created: datetime
    max_run_seconds: float = 0.0
    state: str = "VALIDATING"
    since: datetime | None = None
    live: Live | None = None
    attempts: int = 0
    restarts: int = 0
    not_before: datetime | None = None
    saved_step: int = 0
    saved_by: int = 0
    checked: bool = False
    seen_running: bool = False
    run_seconds: float = 0.0
    unexplained: bool = False
    facts: list[str] = field(default_factory=list[str])

    @property
    def terminal(self) -> bool:
        return self.state in {"SUCCEEDED", "FAILED", "CANCELLED"}

    @property
    def waits(self) -> bool:
        return self.state in {"QUEUED", "STARTING"} and self.live is None

    def due(self, now: datetime) -> bool:
        return self.not_before is None or self.not_before <= now

    def holds(self, now: datetime) -> bool:
        return self.live is not None and self.live.lease_until > now

    def lasted(self, now: datetime) -> float:
        return (now - (self.since or self.created)).total_seconds()

    def enter(self, state: str, now: datetime, *facts: str) -> None:
        if self.state == "RUNNING":
            self.run_seconds += self.lasted(now)
        self.state, self.since = state, now
        self.facts += facts

    def checks(self, answer: str, now: datetime) -> None:
        if answer == "away":
            self.not_before = now + timedelta(seconds=RETRY)
        elif answer == "unfit":
            self.end("FAILED", now)
        else:
            self.enter("QUEUED", now, "queued")
            self.checked, self.not_before, self.unexplained = True, None, False

    def placed(self, now: datetime) -> None:
        if self.state == "QUEUED":
            self.enter("STARTING", now)
        self.attempts, self.not_before = self.attempts + 1, None
        self.live = Live(now + timedelta(seconds=START_TIMEOUT))

    def renewed(self, now: datetime, *, at_work: bool) -> None:
        assert self.live is not None
        self.live.begun = self.live.begun or now
        self.live.lease_until = now + timedelta(seconds=LEASE)
        if self.state == "STARTING" and at_work:
            self.run(now)

    def run(self, now: datetime) -> None:
        """It was seen at work."""
        self.enter("RUNNING", now, "resumed" if self.seen_running else "started")
        self.seen_running = True

    def end(self, state: str, now: datetime) -> None:
        self.live = None
        self.enter(state, now, state.lower())

    def stop(self, now: datetime) -> None:
        """Nobody works on it any more, and that was what somebody wanted."""
        target = STOPS[self.state]
        self.live = None
        self.enter(target, now, FACT_OF[target])

    def asked(self, state: str, directive: str, now: datetime) -> None:
        """Somebody wants it to stop."""
        self.enter(state, now)
        self.not_before = None
        if self.live and self.live.begun:
            self.live.tell(directive, now)
        else:
            self.stop(now)

    def finish(self, now: datetime) -> None:
        """Its attempt has finished: that counts, unless its user has turned away from it."""
        if self.state == "CANCELLING":
            self.stop(now)
            return
        if self.state == "STARTING":
            self.run(now)
        self.seen_running = True
        self.end("SUCCEEDED", now)

    def lose(self, now: datetime, error: str, *, counts: bool = True) -> None:
        """Its attempt is gone, for an error of the class `user`, `system` or `unknown`, or for `none`."""
        assert self.live is not None
        if self.live.limit and self.state not in STOPS:
            error = "user" if self.live.limit == "RUN_TIMEOUT" else "system"
        if self.state == "CANCELLING" or (self.state in STOPS and error != "user"):
            self.unexplained = error == "unknown" or (error == "none" and self.unexplained)
            self.stop(now)
            return
        again = error == "unknown" and self.unexplained and self.saved_by != self.attempts
        spent = counts and self.restarts >= MAX_RESTARTS
        self.unexplained = error == "unknown"
        if error == "user" or again or spent:
            self.end("FAILED", now)
            return
        delay = DELAY * 2**self.restarts if counts else DELAY
        self.restarts += counts
        if self.state == "RUNNING":
            self.enter("STARTING", now)
        self.live, self.not_before = None, now + timedelta(seconds=delay)

    def look_at_limits(self, now: datetime) -> None:
        if self.state == "VALIDATING" and self.lasted(now) >= VALIDATE_LIMIT:
            self.end("FAILED", now)
        if self.live is None or self.live.begun is None or self.live.directive != "CONTINUE":
            return
        launching = (now - self.live.begun).total_seconds()
        if self.state == "STARTING" and launching >= LAUNCH_LIMIT:
            self.live.tell("CANCEL", now, "LAUNCH_TIMEOUT")
        if self.state == "RUNNING" and 0 < self.max_run_seconds <= self.run_seconds + self.lasted(now):
            self.live.tell("CANCEL", now, "RUN_TIMEOUT")
