"""`ExportSpec`: which checkpoint of a training job becomes which packages, and how far they may differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.names import parse_name
from finemesh.core.spec import codec


class ExportFormat(StrEnum):
    """ADAPTER: LoRA weights in peft's layout, to be put on the base. MERGED: a whole transformers model."""

    ADAPTER = "ADAPTER"
    MERGED = "MERGED"


class CheckpointSelection(StrEnum):
    """BEST by validation loss (the last checkpoint when nothing was validated), LAST, or the one at STEP."""

    BEST = "BEST"
    LAST = "LAST"
    STEP = "STEP"


@dataclass(frozen=True, slots=True)
class ParityTolerance:
    """How far a package may lie from the trained model on the golden items before the export is rejected.

    Attributes:
        max_logit_difference: largest absolute difference of any logit.
        min_token_agreement: smallest fraction of equal greedy tokens, in [0, 1].
    """

    max_logit_difference: float = 1e-3
    min_token_agreement: float = 1.0


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """One export.

    Attributes:
        training_job: resource name `projects/{project}/trainingJobs/{training_job}`.
        step: the checkpoint's optimiser step, only with `CheckpointSelection.STEP`.
        golden_items: rows of the test split whose outputs the package must reproduce.
    """

    training_job: str
    formats: tuple[ExportFormat, ...]
    checkpoint: CheckpointSelection = CheckpointSelection.BEST
    step: int = 0
    tolerance: ParityTolerance = field(default_factory=ParityTolerance)
    golden_items: int = 16

    def validate(self) -> None:
        """Raises InvalidError (reason INVALID_SPEC) with every violation, field paths starting at `spec`."""
        violations = [FieldViolation(f"spec.{path}", description) for path, description in _violations(self)]
        if violations:
            listed = "; ".join(f"{v.field}: {v.description}" for v in violations)
            raise InvalidError(listed, violations=violations, reason="INVALID_SPEC")

    def to_dict(self) -> dict[str, Any]:
        return codec.encode(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> ExportSpec:
        """The inverse of `to_dict`. Raises InvalidError (reason MALFORMED_SPEC) naming every wrong field."""
        return codec.decode(cls, value, "spec")

    def fingerprint(self) -> str:
        """SHA-256 in hex of the spec's canonical JSON."""
        return codec.digest(self.to_dict())


def _violations(spec: ExportSpec) -> Iterator[tuple[str, str]]:
    try:
        parse_name(spec.training_job, "trainingJobs", "training_job")
    except InvalidError as error:
        yield "training_job", error.violations[0].description
    if not spec.formats:
        yield "formats", "name at least one format"
    if len(set(spec.formats)) != len(spec.formats):
        yield "formats", "names a format twice"
    if spec.checkpoint is CheckpointSelection.STEP and spec.step < 1:
        yield "step", "name the step of the checkpoint, 1 or more"
    if spec.checkpoint is not CheckpointSelection.STEP and spec.step != 0:
        yield "step", "is only read with checkpoint STEP: set that, or leave step 0"
    # `not (a >= b)` also catches NaN.
    if not spec.tolerance.max_logit_difference >= 0:
        yield "tolerance.max_logit_difference", "must not be negative"
    if not 0 <= spec.tolerance.min_token_agreement <= 1:
        yield "tolerance.min_token_agreement", "must lie in [0, 1]"
    if spec.golden_items < 1:
        yield "golden_items", "must be at least 1: a package is not shipped unchecked"
