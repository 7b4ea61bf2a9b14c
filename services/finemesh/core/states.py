"""The state machines of Finemesh: one table per noun, read by the code, the docs and the property tests.

A table names its states, the transitions between them, and the facts (events) a transition publishes. Two
rules hold for every noun and are derived, not written out: FAILED can be reached from any live state, and
CANCELLING from any live state but itself. A new state is therefore one line in the enum and one line per
transition of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from finemesh.core.errors import PreconditionError


class DatasetState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


class ValidationReportState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


class PreflightReportState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


class TrainingJobState(StrEnum):
    VALIDATING = "VALIDATING"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    PREEMPTING = "PREEMPTING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


class SweepState(StrEnum):
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


class ExportState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    VERIFYING = "VERIFYING"
    SUCCEEDED = "SUCCEEDED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


S = TypeVar("S", bound=StrEnum)


# Cases that decide which fact a step publishes.
FIRST_ATTEMPT = "first attempt"
LATER_ATTEMPT = "later attempt"


@dataclass(frozen=True, slots=True)
class Fact:
    """An event that a transition publishes: always, or only in the case that `when` names."""

    name: str
    when: str = ""


@dataclass(frozen=True)
class Transition(Generic[S]):
    source: S
    target: S
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class StateTable(Generic[S]):
    """The state machine of one noun.

    Attributes:
        noun: as people read it, e.g. `training job`.
        event_noun: token in event subjects, e.g. `training_job`.
        states: the enum of all states, in the order of a usual life.
        initial: where a new resource starts.
        terminal: states that are never left.
        transitions: every allowed step, the derived ones included.
        cases: the words that `facts_of` takes as `case`, e.g. how a dataset came to be.
    """

    noun: str
    event_noun: str
    states: type[S]
    initial: S
    terminal: frozenset[S]
    transitions: tuple[Transition[S], ...]
    cases: frozenset[str]

    @property
    def live(self) -> frozenset[S]:
        return frozenset(self.states) - self.terminal

    def targets(self, source: S) -> tuple[S, ...]:
        """Where one step from `source` may lead."""
        return tuple(t.target for t in self.transitions if t.source == source)

    def find(self, source: S, target: S) -> Transition[S] | None:
        return next((t for t in self.transitions if (t.source, t.target) == (source, target)), None)


def check_transition(table: StateTable[S], source: S, target: S) -> Transition[S]:
    """The transition from `source` to `target`. Raises PreconditionError, reason ILLEGAL_TRANSITION."""
    found = table.find(source, target)
    if found is not None:
        return found
    allowed = ", ".join(table.targets(source)) or "nowhere: it is a final state"
    raise PreconditionError(
        f"a {table.noun} cannot go from {source} to {target}; from {source} it can go to {allowed}",
        reason="ILLEGAL_TRANSITION",
        metadata={"noun": table.event_noun, "from": str(source), "to": str(target)},
    )


def facts_of(table: StateTable[S], source: S, target: S, case: str = "") -> tuple[str, ...]:
    """Names of the facts to publish for a step, in order; `case` is one of `table.cases`.

    Raises:
        PreconditionError: ILLEGAL_TRANSITION.
        ValueError: the step publishes by case and `case` is unknown (a programming error).
    """
    facts = check_transition(table, source, target).facts
    if case not in table.cases and any(fact.when for fact in facts):
        raise ValueError(f"{table.noun} {source} → {target}: case {case!r} is none of {sorted(table.cases)}")
    return tuple(fact.name for fact in facts if fact.when in {"", case})


def _table(
    noun: str,
    states: type[S],
    *,
    initial: S,
    terminal: Iterable[S],
    own: Iterable[Transition[S]],
    event_noun: str = "",
    cases: Iterable[str] = (),
) -> StateTable[S]:
    """A table from its own transitions plus the derived ones to FAILED, CANCELLING and CANCELLED."""
    ends = frozenset(terminal)
    failed, cancelling, cancelled = states("FAILED"), states("CANCELLING"), states("CANCELLED")
    live = [state for state in states if state not in ends]
    derived = [
        *(Transition(state, failed, (Fact("failed"),)) for state in live),
        *(Transition(state, cancelling) for state in live if state != cancelling),
        Transition(cancelling, cancelled, (Fact("cancelled"),)),
    ]
    return StateTable(
        noun=noun,
        event_noun=event_noun or noun.replace(" ", "_"),
        states=states,
        initial=initial,
        terminal=ends,
        transitions=(*own, *derived),
        cases=frozenset(cases),
    )


_D, _V, _P = DatasetState, ValidationReportState, PreflightReportState
_T, _E, _W = TrainingJobState, ExportState, SweepState

DATASET = _table(
    "dataset",
    _D,
    cases=("import", "convert", "split"),
    initial=_D.QUEUED,
    terminal=(_D.SUCCEEDED, _D.FAILED, _D.CANCELLED),
    own=(
        Transition(_D.QUEUED, _D.RUNNING),
        Transition(_D.RUNNING, _D.QUEUED),  # its attempt was lost; another one follows
        Transition(
            _D.RUNNING,
            _D.SUCCEEDED,
            (Fact("imported", "import"), Fact("converted", "convert"), Fact("split", "split")),
        ),
    ),
)

VALIDATION_REPORT = _table(
    "validation report",
    _V,
    event_noun="dataset",
    initial=_V.QUEUED,
    terminal=(_V.SUCCEEDED, _V.FAILED, _V.CANCELLED),
    own=(
        Transition(_V.QUEUED, _V.RUNNING),
        Transition(_V.RUNNING, _V.QUEUED),
        Transition(_V.RUNNING, _V.SUCCEEDED, (Fact("validated"),)),
    ),
)

PREFLIGHT_REPORT = _table(
    "preflight report",
    _P,
    event_noun="dataset",
    initial=_P.QUEUED,
    terminal=(_P.SUCCEEDED, _P.FAILED, _P.CANCELLED),
    own=(
        Transition(_P.QUEUED, _P.RUNNING),
        Transition(_P.RUNNING, _P.QUEUED),
        Transition(_P.RUNNING, _P.SUCCEEDED, (Fact("preflighted"),)),
    ),
)

TRAINING_JOB = _table(
    "training job",
    _T,
    cases=(FIRST_ATTEMPT, LATER_ATTEMPT),
    initial=_T.VALIDATING,
    terminal=(_T.SUCCEEDED, _T.FAILED, _T.CANCELLED),
    own=(
        Transition(_T.VALIDATING, _T.QUEUED, (Fact("queued"),)),
        Transition(_T.QUEUED, _T.STARTING),
        Transition(_T.STARTING, _T.RUNNING, (Fact("started", FIRST_ATTEMPT), Fact("resumed", LATER_ATTEMPT))),
        Transition(_T.RUNNING, _T.STARTING),  # a restart from the last committed checkpoint
        Transition(_T.RUNNING, _T.SUCCEEDED, (Fact("succeeded"),)),
        *(
            Transition(state, _T.PAUSING)
            for state in (_T.VALIDATING, _T.QUEUED, _T.STARTING, _T.RUNNING, _T.PREEMPTING)
        ),
        Transition(_T.PAUSING, _T.PAUSED, (Fact("paused"),)),
        Transition(_T.PAUSING, _T.SUCCEEDED, (Fact("succeeded"),)),  # it was quicker than the pause
        Transition(_T.PAUSED, _T.QUEUED, (Fact("queued"),)),
        Transition(_T.PAUSED, _T.VALIDATING),  # it was paused before its checks were made
        *(Transition(state, _T.PREEMPTING) for state in (_T.STARTING, _T.RUNNING)),
        Transition(_T.PREEMPTING, _T.QUEUED, (Fact("preempted"),)),
        Transition(_T.PREEMPTING, _T.SUCCEEDED, (Fact("succeeded"),)),
    ),
)

SWEEP = _table(
    "sweep",
    _W,
    initial=_W.RUNNING,
    terminal=(_W.SUCCEEDED, _W.FAILED, _W.CANCELLED),
    own=(Transition(_W.RUNNING, _W.SUCCEEDED, (Fact("succeeded"),)),),
)

EXPORT = _table(
    "export",
    _E,
    cases=(FIRST_ATTEMPT, LATER_ATTEMPT),
    initial=_E.QUEUED,
    terminal=(_E.SUCCEEDED, _E.REJECTED, _E.FAILED, _E.CANCELLED),
    own=(
        Transition(_E.QUEUED, _E.RUNNING, (Fact("started", FIRST_ATTEMPT),)),
        Transition(_E.RUNNING, _E.QUEUED),
        Transition(_E.RUNNING, _E.VERIFYING),
        Transition(_E.VERIFYING, _E.QUEUED),
        Transition(_E.VERIFYING, _E.SUCCEEDED, (Fact("verified"), Fact("succeeded"))),
        Transition(_E.VERIFYING, _E.REJECTED, (Fact("verified"), Fact("rejected"))),
    ),
)


def markdown() -> str:
    """The tables as a page of documentation, one section per noun."""
    tables = (DATASET, VALIDATION_REPORT, PREFLIGHT_REPORT, TRAINING_JOB, SWEEP, EXPORT)
    return "\n\n".join(_section(table) for table in tables) + "\n"


def _section(table: StateTable[Any]) -> str:
    states: type[StrEnum] = table.states
    final = ", ".join(f"`{state}`" for state in states if state in table.terminal)
    head = f"## {table.noun.capitalize()}\n\nStarts as `{table.initial}`; final states: {final}."
    rows = [f"| `{t.source}` | `{t.target}` | {_publishes(table, t)} |" for t in table.transitions]
    return "\n".join([head, "", "| from | to | publishes |", "|---|---|---|", *rows])


def _publishes(table: StateTable[Any], transition: Transition[Any]) -> str:
    return ", ".join(
        f"`{table.event_noun}.{fact.name}`" + (f" ({fact.when})" if fact.when else "")
        for fact in transition.facts
    )
