"""What a preflight found: values, and their JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

_BUCKETS: Final = 20


class Outcome(StrEnum):
    """What training does with a row."""

    TRAINED = "TRAINED"
    TRUNCATED = "TRUNCATED"
    """Trained on, its tail cut off."""
    DROPPED = "DROPPED"
    QUARANTINED = "QUARANTINED"
    REFUSED = "REFUSED"
    """The whole run stops at it, before the first step."""


class Severity(StrEnum):
    WARNING = "WARNING"
    ERROR = "ERROR"


class Verdict(StrEnum):
    PASSED = "PASSED"
    PASSED_WITH_WARNINGS = "PASSED_WITH_WARNINGS"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to mend. `rows` is how many it concerns; 0 where it concerns none in particular."""

    severity: Severity
    reason: str
    message: str
    rows: int = 0


@dataclass(frozen=True, slots=True)
class RowFigures:
    """One row in numbers. All are 0 for a row that never came to tokens; `reason` then says why.

    Attributes:
        tokens: of the whole row, image tokens included, before anything is cut.
        loss_tokens: of them, those that carry loss.
        placeholders: image tokens in the encoded text.
        features: vectors that the vision tower makes of the row's pictures.
        images: its pictures.
        cut_tokens: tokens that are cut off; of a row that is left out, those beyond the limit of the spec.
        cut_loss_tokens: of them, those that carry loss.
        cut_text: how the text of the cut tokens begins.
    """

    row_id: str
    split: str
    outcome: Outcome
    reason: str = ""
    message: str = ""
    tokens: int = 0
    loss_tokens: int = 0
    placeholders: int = 0
    features: int = 0
    images: int = 0
    cut_tokens: int = 0
    cut_loss_tokens: int = 0
    cut_text: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens that are alike: of one turn, all or none with loss, all or none image tokens.

    Attributes:
        turn: index of the message; -1 where the template does not say.
        loss: whether training learns to predict them.
        cut: whether they are among the cut tokens.
        image: placeholders of a picture: `ids` and `texts` then have one entry for all `count`.
        texts: what each token stands for; all texts of a row joined are the text that was encoded.
    """

    turn: int
    role: str
    loss: bool
    cut: bool
    image: bool
    count: int
    ids: tuple[int, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message in numbers: its template header belongs to it."""

    role: str
    tokens: int
    loss_tokens: int


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row token by token."""

    figures: RowFigures
    turns: tuple[Turn, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class SplitFigures:
    """One split in numbers: rows = kept + quarantined + dropped + refused, tokens before anything is cut."""

    split: str
    rows: int
    kept: int
    quarantined: int
    dropped: int
    refused: int
    truncated: int
    tokens: int
    loss_tokens: int
    images: int
    placeholders: int
    features: int
    mismatched: int
    over_length: int
    all_masked: int
    by_reason: dict[str, int]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many rows have how many tokens: `edges[i]` <= tokens < `edges[i + 1]`, for both counts."""

    edges: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    loss_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LongestBatch:
    """The forward pass over the most tokens, as the collator of the training makes it.

    Attributes:
        step: optimiser step, from 1; `micro_batch` counts within it, from 1.
        input_shape: of `input_ids`, rows by tokens.
        tokens: in that shape; `padding` of them are padding.
        loss_tokens: positions whose loss is computed.
        pixel_shape: of `pixel_values`, as the family has it: for LLaVA number, channels, height, width; empty
            without pictures.
        steps: optimiser steps of the whole run.
        worst_tokens: what the longest rows would make if chance brought them together.
    """

    step: int
    micro_batch: int
    row_ids: tuple[str, ...]
    input_shape: tuple[int, ...]
    tokens: int
    padding: int
    loss_tokens: int
    pixel_shape: tuple[int, ...]
    steps: int
    worst_tokens: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The base model as far as the tokens depend on it.

    Attributes:
        template: `marked` if the chat template says which words are the assistant's, else `by turns`.
        max_positions: longest sequence that the model was made for; 0 if its config does not say.
        image_token: text of the placeholder; empty for a language model.
    """

    base_model: str
    family: str
    model_type: str
    task: str
    template: str
    vocab_size: int
    max_positions: int
    image_token: str
    image_token_id: int


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """Everything that a preflight found. Lists of rows are bounded; `splits` counts them all."""

    dataset_digest: str
    model: ModelFacts
    max_tokens: int
    over_length_policy: str
    packing: bool
    verdict: Verdict
    problems: tuple[Problem, ...]
    splits: tuple[SplitFigures, ...]
    histogram: Histogram
    longest_batch: LongestBatch | None
    longest: tuple[RowFigures, ...]
    over_length: tuple[RowFigures, ...]
    all_masked: tuple[RowFigures, ...]
    mismatched: tuple[RowFigures, ...]
    not_trained: tuple[RowFigures, ...]
    shown: tuple[ShownRow, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def verdict_of(problems: Sequence[Problem]) -> Verdict:
    """The verdict that follows from the gravest problem."""
    severities = {problem.severity for problem in problems}
    if Severity.ERROR in severities:
        return Verdict.FAILED
    return Verdict.PASSED_WITH_WARNINGS if severities else Verdict.PASSED


def histogram_of(tokens: Sequence[int], loss_tokens: Sequence[int]) -> Histogram:
    """Both distributions over the same buckets: at most 20, of a width that is 1, 2 or 5 times a power of
    ten.
    """
    if not tokens:
        return Histogram()
    width = _round_width((max(tokens) + 1) / _BUCKETS)
    edges = range(0, max(tokens) + width + 1, width)
    return Histogram(tuple(edges), _counts(tokens, edges), _counts(loss_tokens, edges))


def _round_width(least: float) -> int:
    if least <= 1:
        return 1
    power = 10 ** math.floor(math.log10(least))
    return int(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least))


def _counts(values: Sequence[int], edges: range) -> tuple[int, ...]:
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[value // edges.step] += 1
    return tuple(counts)
