"""What a training run tells its surroundings, and what it asks them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from finemesh.core.spec.ledger import LedgerSummary


class StopReason(StrEnum):
    """Why a run is asked to stop. Either way it writes a checkpoint first."""

    CANCEL = "CANCEL"
    PAUSE = "PAUSE"


class Outcome(StrEnum):
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    PAUSED = "PAUSED"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a resumed run must agree on with one that was never stopped, at the same step.

    Attributes:
        step: optimiser steps done.
        sample_hash: rolling hash over the ids of the samples consumed, in order.
        loss_digest: rolling hash over the exact losses of all steps.
    """

    step: int
    sample_hash: str
    loss_digest: str


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint on local disk.

    Attributes:
        manifest_digest: SHA-256 of its manifest.json in hex.
        best: whether no checkpoint before had a better validation.
    """

    path: Path
    step: int
    metrics: dict[str, float]
    manifest_digest: str
    certificate: Certificate
    best: bool = False


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended.

    Attributes:
        step: optimiser steps done, of `total_steps`.
        checkpoint: the last one.
        best_step: step of the checkpoint with the lowest validation loss; None if nothing was validated.
        tested_step: step of the weights that were tested; None if nothing was.
        metrics: the last value of every metric, the test's included.
        ledgers: per split, what became of its rows; `truncated` counts rows per split.
    """

    outcome: Outcome
    step: int
    total_steps: int
    checkpoint: CheckpointInfo
    best_step: int | None
    tested_step: int | None
    metrics: dict[str, float]
    certificate: Certificate
    ledgers: dict[str, LedgerSummary] = field(default_factory=dict[str, LedgerSummary])
    truncated: dict[str, int] = field(default_factory=dict[str, int])


class Hooks(Protocol):
    """Called from the training thread, between steps. What a hook raises ends the run."""

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        """New values after `step` steps. A resumed run repeats those after its checkpoint."""
        ...

    def on_evaluation(self, split: str, step: int, folder: Path) -> None:
        """The weights of `step` were evaluated on `val` or `test`; `item_results` reads `folder`."""
        ...

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        """A whole checkpoint, maybe of some steps ago, is at `info.path` until `keep_last` later ones are."""
        ...

    def on_resume(self, certificate: Certificate, sample_hash: str) -> None:
        """The run goes on from a checkpoint; `sample_hash` was computed anew, from the order alone."""
        ...

    def on_progress(self, fraction: float, message: str) -> None:
        """How far the run is, from 0 to 1."""
        ...

    def should_stop(self) -> StopReason | None:
        """Asked before every step, and before every pass through the model in a validation or test."""
        ...


class NoHooks:
    """Hooks that do nothing: the base of those that care for some."""

    def on_metrics(self, step: int, values: dict[str, float]) -> None: ...
    def on_evaluation(self, split: str, step: int, folder: Path) -> None: ...
    def on_checkpoint(self, info: CheckpointInfo) -> None: ...
    def on_resume(self, certificate: Certificate, sample_hash: str) -> None: ...
    def on_progress(self, fraction: float, message: str) -> None: ...
    def should_stop(self) -> StopReason | None:
        return None
