"""What happened to a job, one entry after the other: written with what it tells of, and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from finemesh.core.errors import ErrorRecord
from finemesh.core.states import TrainingJobState


class Kind(StrEnum):
    """What an entry tells of. The names are those of the contract."""

    SUBMITTED = "SUBMITTED"
    COMMAND = "COMMAND"  # somebody asked for something; `message` says what
    STATE = "STATE"  # a transition
    DISPATCHED = "DISPATCHED"  # an attempt was given to a cluster
    TAKEN_UP = "TAKEN_UP"  # the attempt renewed its lease for the first time
    DIRECTIVE = "DIRECTIVE"  # the attempt is told to stop at its next renewal
    ACKNOWLEDGED = "ACKNOWLEDGED"  # the attempt says that it acts on the directive
    CHECKPOINT = "CHECKPOINT"  # one was committed
    ENDED = "ENDED"  # the attempt ended; `error` says why unless it succeeded
    RESTART = "RESTART"  # another attempt will follow; `message` says when


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened.

    Attributes:
        time: when, UTC.
        state: the job's state from then on.
        from_state: the state it left, in entries of kind STATE.
        attempt: the attempt that it concerns; 0 for none.
        step: optimiser steps that the job had taken.
        sequence: place in the history, from 1 and without gaps; 0 until it is written.
        actor: who asked or reported: the subject of the call's token; empty for the service itself.
    """

    kind: Kind
    time: datetime
    state: TrainingJobState
    from_state: TrainingJobState | None = None
    attempt: int = 0
    step: int = 0
    message: str = ""
    error: ErrorRecord | None = None
    sequence: int = 0
    actor: str = ""
