"""Rules about metrics, and when they fire: pure functions of points in the order of their steps.

What a rule has seen of one metric of one run is a `State`. A point at or before the last step seen changes
nothing, so that points may be shown again: after a restart, all of them from the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.labels import describe_violations
from finemesh.core.metrics import Goal, goal_of
from finemesh.core.names import Name
from finemesh.tracking.domain import MAX_KEY_LENGTH, Curve

DEFAULT_POINTS: Final = 3
MIN_HEARTBEAT_SECONDS: Final = 1.0
_LARGEST: Final = 1e300


@dataclass(frozen=True, slots=True)
class Threshold:
    above: float | None = None
    below: float | None = None


@dataclass(frozen=True, slots=True)
class Stall:
    steps: int
    min_improvement: float = 0.0
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Divergence:
    margin: float
    points: int = DEFAULT_POINTS
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class NonFinite:
    pass


@dataclass(frozen=True, slots=True)
class NoHeartbeat:
    seconds: float


Condition = Threshold | Stall | Divergence | NonFinite | NoHeartbeat
_KINDS: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind for kind in (Threshold, Stall, Divergence, NonFinite, NoHeartbeat)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What to look for, in a run or in all of a project; see `finemesh.v1.AlertRule`."""

    name: Name
    condition: Condition
    display_name: str = ""
    run: str = ""
    metric: str = ""
    create_time: datetime

    def is_about(self, run: Name) -> bool:
        return run.project == self.name.project and self.run in {"", str(run)}

    def looks_at(self, metric: str) -> bool:
        """Whether points of this metric concern it."""
        return not isinstance(self.condition, NoHeartbeat) and self.metric in {"", metric}

    @property
    def goal(self) -> Goal | None:
        return getattr(self.condition, "goal", None) or goal_of(self.metric)

    def check(self) -> None:
        """Raises InvalidError, reason INVALID_ALERT_RULE, naming every wrong field."""
        violations = [*describe_violations(self.display_name, {}, "alert_rule"), *self._violations()]
        if violations:
            listed = "; ".join(f"{each.field}: {each.description}" for each in violations)
            raise InvalidError(listed, violations=violations, reason="INVALID_ALERT_RULE")

    def _violations(self) -> Iterator[FieldViolation]:
        def wrong(path: str, text: str) -> FieldViolation:
            return FieldViolation(f"alert_rule.{path}", text)

        if len(self.metric) > MAX_KEY_LENGTH or not self.metric.isprintable():
            yield wrong("metric", f"a metric's name has at most {MAX_KEY_LENGTH} printable characters")
        if not self.metric and not isinstance(self.condition, NonFinite | NoHeartbeat):
            yield wrong("metric", "name the metric to look at, e.g. val/loss")
        match self.condition:
            case Threshold(above, below):
                limits = [each for each in (above, below) if each is not None]
                if not limits or not all(math.isfinite(each) for each in limits):
                    yield wrong("threshold", "give `above`, `below` or both, as finite numbers")
            case Stall(steps, least):
                if steps < 1 or not 0 <= least < math.inf:
                    yield wrong("stall", "give `steps` of at least 1, and no negative `min_improvement`")
                if self.metric and self.goal is None:
                    yield wrong("stall.goal", f"{self.metric} is better neither high nor low: give a goal")
            case Divergence(margin, points):
                if not 0 < margin < math.inf or points < 1:
                    yield wrong("divergence", "give a positive `margin`, and `points` of at least 1")
                if self.metric and self.goal is None:
                    yield wrong(
                        "divergence.goal", f"{self.metric} is better neither high nor low: give a goal"
                    )
            case NoHeartbeat(seconds):
                if not MIN_HEARTBEAT_SECONDS <= seconds < math.inf:
                    yield wrong("no_heartbeat.seconds", f"must be at least {MIN_HEARTBEAT_SECONDS:g}")
                if self.metric:
                    yield wrong("metric", "must be empty: a heartbeat is a point of any metric")
            case NonFinite():
                pass


@dataclass(frozen=True, slots=True)
class State:
    """What a rule has seen of a metric of a run.

    Attributes:
        last_step: the highest step seen; -1 before the first.
        best, best_step: the best finite value, where the rule asks for one.
        streak: points in a row that were much worse.
        alert: name of the alert that lasts; empty if none does.
    """

    last_step: int = -1
    best: float | None = None
    best_step: int = -1
    streak: int = 0
    alert: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A rule fired, or what it had fired for is over."""

    fired: bool
    step: int
    value: float
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One time that a rule fired; see `finemesh.v1.Alert`."""

    name: Name
    rule: str
    run: str
    metric: str
    step: int
    value: float
    message: str
    fire_time: datetime
    clear_time: datetime | None = field(default=None)


def condition_to_json(condition: Condition) -> dict[str, Any]:
    return {"kind": type(condition).__name__, **asdict(condition)}


def condition_from_json(stored: Mapping[str, Any]) -> Condition:
    values = {key: value for key, value in stored.items() if key != "kind"}
    if values.get("goal"):
        values["goal"] = Goal(values["goal"])
    return _KINDS[stored["kind"]](**values)


def look(rule: Rule, metric: str, state: State, curve: Curve) -> tuple[State, list[Change]]:
    """What the points of a resolved curve behind `state` change, in the order of their steps."""
    start = int(np.searchsorted(curve.steps, state.last_step, side="right"))
    steps, values = curve.steps[start:], curve.values[start:]
    if not len(steps):
        return state, []
    bad, state = _bad(rule, state, steps, values)
    changes: list[Change] = []
    is_open = bool(state.alert)
    for index in np.flatnonzero(np.diff(np.concatenate([[is_open], bad]).astype(np.int8))):
        step, value, fired = int(steps[index]), float(values[index]), bool(bad[index])
        changes.append(Change(fired, step, value, _words(rule, metric, step, value) if fired else ""))
    return replace(state, last_step=int(steps[-1])), changes


def _bad(
    rule: Rule, state: State, steps: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.bool_], State]:
    """At which points the condition holds, and the state behind them but for its step."""
    match rule.condition:
        case Threshold(above, below):
            high = math.inf if above is None else above
            low = -math.inf if below is None else below
            return (values > high) | (values < low), state
        case NonFinite():
            return ~np.isfinite(values), state
        case Stall(patience, least):
            return _stalled(state, steps, _costs(rule, values), patience, least)
        case Divergence(margin, points):
            return _diverged(state, _costs(rule, values), margin, points)
        case NoHeartbeat():
            return np.zeros(len(steps), np.bool_), state


def _costs(rule: Rule, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values turned so that lower is better; what is not finite is worst."""
    turned = values if rule.goal is Goal.MINIMIZE else -values
    return np.where(np.isfinite(turned), np.clip(turned, -_LARGEST, _LARGEST), np.inf)


def _stalled(
    state: State, steps: npt.NDArray[np.int64], costs: npt.NDArray[np.float64], patience: int, least: float
) -> tuple[npt.NDArray[np.bool_], State]:
    best, best_step = math.inf if state.best is None else state.best, state.best_step
    bad = np.zeros(len(steps), np.bool_)
    for index, (step, cost) in enumerate(zip(steps.tolist(), costs.tolist(), strict=True)):
        if best_step < 0 or cost < best - least:
            best, best_step = cost, step
        bad[index] = step - best_step >= patience
    return bad, replace(state, best=best if math.isfinite(best) else None, best_step=best_step)


def _diverged(
    state: State, costs: npt.NDArray[np.float64], margin: float, points: int
) -> tuple[npt.NDArray[np.bool_], State]:
    best, streak = state.best, state.streak
    bad = np.zeros(len(costs), np.bool_)
    for index, cost in enumerate(costs.tolist()):
        if best is not None and cost > best + margin * abs(best):
            streak += 1
        else:
            streak = 0
        if math.isfinite(cost) and (best is None or cost < best):
            best = cost
        bad[index] = streak >= points
    return bad, replace(state, best=best, streak=streak)


def _words(rule: Rule, metric: str, step: int, value: float) -> str:
    found = f"{metric} is {value:.6g} at step {step}"
    match rule.condition:
        case Threshold(above, below):
            over = above is not None and value > above
            return f"{found}, {'above' if over else 'below'} {above if over else below:g}"
        case Stall(steps, least):
            by = f" by more than {least:g}" if least else ""
            return f"{found}: not better{by} for {steps} steps"
        case Divergence(margin, points):
            return f"{found}: worse than its best by more than {margin:.0%}, {points} points in a row"
        case _:
            return found
