"""Runs, batches of points and curves, as immutable values.

Arrays are columns of equal length, one entry per point: `steps` int64 (optimiser step), `values` float64,
`times_us` int64 (microseconds since 1970 UTC), `attempts` int16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.metrics import Goal, goal_of
from finemesh.core.names import Name

MAX_BATCH_POINTS: Final = 200_000
MAX_KEY_LENGTH: Final = 200
MAX_ATTEMPT: Final = 2**15 - 1
MAX_STEP: Final = 2**53  # what JSON and spreadsheets read exactly
MAX_TIME_US: Final = 253_402_300_800_000_000  # the year 10000

Int16s = npt.NDArray[np.int16]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class RunState(StrEnum):
    """RUNNING leads to any of the others, which are final."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        return self is not RunState.RUNNING


@dataclass(frozen=True, slots=True)
class Summary:
    """Last and best of one metric over its resolved curve, where each step counts once.

    Attributes:
        last_value: value at `last_step`, the highest one.
        best_value: best finite value by the goal that the name tells; NaN if there is none, of either.
        best_step: the first step with the best value; `last_step` if there is none.
        point_count: points on the curve.
        min_value, max_value: smallest and largest finite value; NaN if there is none.
    """

    key: str
    last_value: float
    last_step: int
    best_value: float
    best_step: int
    point_count: int
    min_value: float = math.nan
    max_value: float = math.nan

    @property
    def goal(self) -> Goal | None:
        return goal_of(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was measured while something was trained.

    Attributes:
        training_job: full name of the job that makes it; empty for runs of other programs.
        spec: the job's FineTuneSpec, serialised as it came; empty without a job.
        attempt: highest attempt that is known, by its points or by an event about the job.
        fence: highest fencing token seen; a lower one has been superseded.
        summarized: per attempt, the last batch that `summaries` include.
        experiment: the group of runs that it belongs to.
        parent_run: name of the run that it goes on from or belongs to; empty if there is none.
        lineage: what it was made of: the message `Lineage` as JSON; empty if nothing is known.
        start_time: when its program began, if not when the run was created.
    """

    name: Name
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    training_job: str = ""
    spec: bytes = b""
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    state: RunState = RunState.RUNNING
    attempt: int = 0
    fence: int = 0
    summarized: Mapping[int, int] = field(default_factory=dict[int, int])
    create_time: datetime
    end_time: datetime | None = None
    update_time: datetime
    summaries: tuple[Summary, ...] = ()
    tags: tuple[str, ...] = ()
    notes: str = ""
    experiment: str = ""
    parent_run: str = ""
    lineage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    start_time: datetime | None = None

    def summary(self, key: str) -> Summary | None:
        return next((each for each in self.summaries if each.key == key), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFact:
    """What an event says about the job of a run.

    Attributes:
        event_id: the same for every delivery of the event.
        end_state: how the run ended, for an event that ends it.
        time: when the fact became true.
    """

    event_id: str
    run: Name
    training_job: str
    display_name: str
    labels: Mapping[str, str]
    params: Mapping[str, str]
    spec: bytes
    attempt: int
    end_state: RunState | None
    time: datetime
    experiment: str = ""
    lineage: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Points of one run as columns; (run, attempt, sequence) names it, so that a replay is recognised.

    Attributes:
        key_indices: int64, pointing into `keys`.
        lengths: points of each number that it carries, of which `sequence` is the last; empty for one alone.
        thinned_points: what the sender left out of all its numbers.
        thinned_counts: how many of these belong to each number; empty if all do to the first.
    """

    run: str
    attempt: int
    sequence: int
    keys: tuple[str, ...]
    key_indices: Int64s
    steps: Int64s
    values: Floats
    times_us: Int64s
    lengths: tuple[int, ...] = ()
    thinned_points: int = 0
    thinned_counts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def first_sequence(self) -> int:
        return self.sequence - max(len(self.lengths) - 1, 0)

    def after(self, durable: int) -> Batch:
        """What it carries above the number `durable`; its own last number is."""
        known = durable + 1 - self.first_sequence
        if known <= 0:
            return self
        start = sum(self.lengths[:known])
        return replace(
            self,
            key_indices=self.key_indices[start:],
            steps=self.steps[start:],
            values=self.values[start:],
            times_us=self.times_us[start:],
            lengths=self.lengths[known:],
            thinned_points=sum(self.thinned_counts[known:]),
            thinned_counts=self.thinned_counts[known:],
        )

    def check(self) -> None:
        """Raises InvalidError, reason MALFORMED_BATCH, naming every wrong field."""
        violations = [FieldViolation(f"batch.{path}", text) for path, text in self._violations()]
        if violations:
            listed = "; ".join(f"{each.field}: {each.description}" for each in violations)
            raise InvalidError(listed, violations=violations, reason="MALFORMED_BATCH")

    def _violations(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        if not 1 <= self.attempt <= MAX_ATTEMPT:
            found.append(("attempt", f"is {self.attempt}: count attempts from 1 to {MAX_ATTEMPT}"))
        if self.first_sequence < 1:
            found.append(("sequence", f"is {self.sequence}: number the batches of an attempt from 1"))
        if self.lengths and sum(self.lengths) != len(self):
            found.append(("lengths", f"add up to {sum(self.lengths)}, but there are {len(self)} points"))
        if self.thinned_points < 0:
            found.append(("thinned_points", "must not be negative"))
        if counts := self.thinned_counts:
            if len(counts) != len(self.lengths) or min(counts) < 0:
                found.append(("thinned_counts", "has a count from 0 for each of `lengths`"))
            if sum(counts) != self.thinned_points:
                text = f"add up to {sum(counts)}, but thinned_points is {self.thinned_points}"
                found.append(("thinned_counts", text))
        if len(set(self.keys)) != len(self.keys):
            found.append(("keys", "names a metric twice"))
        if any(not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isprintable() for key in self.keys):
            found.append(("keys", f"a metric's name has 1 to {MAX_KEY_LENGTH} printable characters"))
        lengths = {len(self.key_indices), len(self.steps), len(self.values), len(self.times_us)}
        if len(lengths) > 1:
            found.append(("steps", "key_indices, steps, values and times_us differ in length"))
        elif len(self) > MAX_BATCH_POINTS:
            found.append(("steps", f"{len(self)} points are too many: send at most {MAX_BATCH_POINTS}"))
        elif len(self):
            found += self._column_violations()
        return found

    def _column_violations(self) -> list[tuple[str, str]]:
        columns = (
            ("key_indices", self.key_indices, len(self.keys) - 1, "an index into `keys`"),
            ("steps", self.steps, MAX_STEP, "a step from 0 to 2^53"),
            ("times_us", self.times_us, MAX_TIME_US, "microseconds since 1970"),
        )
        return [
            (name, f"holds something that is not {wanted}")
            for name, column, highest, wanted in columns
            if column.min() < 0 or column.max() > highest
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One metric of one run: columns, with `steps` strictly increasing once resolved."""

    steps: Int64s
    values: Floats
    times_us: Int64s
    attempts: Int16s

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, indices: Int64s | slice) -> Curve:
        """The points at `indices`."""
        return Curve(
            self.steps[indices], self.values[indices], self.times_us[indices], self.attempts[indices]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A curve with its names.

    Attributes:
        total_points: those before downsampling.
        thinned_points: what the senders of the run left out, of whatever metric.
    """

    run: str
    key: str
    curve: Curve
    total_points: int
    thinned_points: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class RunPoints:
    """The points of a run at one instant: columns per metric in the order they were appended.

    `marks` gives the last durable batch of each attempt.
    """

    curves: Mapping[str, Curve]
    marks: Mapping[int, int]


def joined(parts: Sequence[Curve]) -> Curve:
    """One curve of several, in their order; at least one."""
    if len(parts) == 1:
        return parts[0]
    return Curve(
        np.concatenate([each.steps for each in parts]),
        np.concatenate([each.values for each in parts]),
        np.concatenate([each.times_us for each in parts]),
        np.concatenate([each.attempts for each in parts]),
    )


def resolve(curve: Curve) -> Curve:
    """Each step once, in order: of several values the highest attempt's, of one attempt's the last appended.

    A resumed attempt measures the steps since its checkpoint again, and its values are the ones that count.
    """
    if bool(np.all(curve.steps[1:] > curve.steps[:-1])):
        return curve
    order = np.lexsort((curve.attempts, curve.steps))  # stable: equal (step, attempt) stay as appended
    steps = curve.steps[order]
    is_last_of_step = np.append(np.diff(steps) > 0, True)
    return curve.take(order[is_last_of_step])


def after_fact(run: Run | None, fact: JobFact, now: datetime) -> Run | None:
    """A run after an event about its job, or None if the run belongs to another program and stays as it is.

    Events of one job come in order, but a run may exist before the first of them: points were quicker.
    """
    if run is None:
        run = Run(name=fact.run, training_job=fact.training_job, create_time=fact.time, update_time=now)
    if run.training_job != fact.training_job:
        return None
    told = replace(
        run,
        params=fact.params,
        spec=fact.spec,
        attempt=max(run.attempt, fact.attempt),
        lineage={**fact.lineage, **run.lineage},
        update_time=now,
    )
    if not run.spec:  # heard of for the first time: later people may have changed this
        told = replace(told, display_name=fact.display_name, labels=fact.labels, experiment=fact.experiment)
    if fact.end_state is None or run.state.ended:
        return told
    return replace(told, state=fact.end_state, end_time=fact.time)
