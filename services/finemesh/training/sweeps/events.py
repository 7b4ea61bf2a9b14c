"""The facts of a sweep as events."""

from __future__ import annotations

from typing import Any, Final

from finemesh.chassis.events import Event
from finemesh.core.states import SWEEP
from finemesh.events.v1 import sweep_events_pb2 as pb
from finemesh.training.events import SOURCE
from finemesh.training.sweeps.convert import sweep_to_proto
from finemesh.training.sweeps.domain import Fact, Sweep

_PAYLOADS: Final[dict[str, Any]] = {
    "started": pb.SweepStarted,
    "rung_completed": pb.SweepRungCompleted,
    "succeeded": pb.SweepSucceeded,
    "failed": pb.SweepFailed,
    "cancelled": pb.SweepCancelled,
}


def event_of(sweep: Sweep, fact: Fact) -> Event:
    """The event that tells `fact` about `sweep` as it is now."""
    payload = _PAYLOADS[fact.name](sweep=sweep_to_proto(sweep))
    if fact.name == "rung_completed":
        payload.rung = fact.rung
        payload.promoted.extend(fact.promoted)
        payload.eliminated.extend(fact.eliminated)
    noun = SWEEP.event_noun
    return Event.of(noun, fact.name, str(sweep.name), payload, source=SOURCE, time=sweep.update_time)
