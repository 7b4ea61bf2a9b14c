"""What is asked of a preflight: a look, on a CPU, at what a fine-tune would be trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.spec.finetune import FineTuneSpec

MAX_SHOWN_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class PreflightOptions:
    """What is asked.

    Attributes:
        spec: the fine-tune. What only the optimiser reads has no effect.
        detect_task: take the task that the base model can do, in place of the spec's.
        shown_rows: rows of the training split that are shown token by token.
        max_masked_fraction: above this share of rows without any token to learn from, 0 to 1, it fails.
    """

    spec: FineTuneSpec
    detect_task: bool = False
    shown_rows: int = 5
    max_masked_fraction: float = 0.05

    def __post_init__(self) -> None:
        wrong: list[FieldViolation] = []
        if not 0 <= self.shown_rows <= MAX_SHOWN_ROWS:
            wrong.append(
                FieldViolation("options.shown_rows", f"{self.shown_rows} is not in 0 to {MAX_SHOWN_ROWS}")
            )
        if not 0 <= self.max_masked_fraction <= 1:
            wrong.append(FieldViolation("options.max_masked_fraction", "must lie in [0, 1]"))
        if wrong:
            message = "; ".join(f"{each.field}: {each.description}" for each in wrong)
            raise InvalidError(message, violations=wrong, reason="INVALID_OPTIONS")
