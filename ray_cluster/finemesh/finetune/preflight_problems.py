"""What of a preflight has to be mended, and how gravely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from finemesh.core.errors import PreconditionError
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.finetune.budget import check_loss_budget
from finemesh.finetune.preflight_report import ModelFacts, Outcome, Problem, Severity
from finemesh.finetune.preflight_tally import Tally

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING


def find_problems(
    options: PreflightOptions, dataset: Path, tallies: Sequence[Tally], model: ModelFacts
) -> tuple[Problem, ...]:
    """The problems, errors first. An error is what the training would refuse to start with, or too many rows
    that teach nothing.
    """
    found = [
        *_empty_splits(tallies),
        *_refusals(tallies),
        *_masked(tallies, options.max_masked_fraction),
        *_budget(options, dataset, tallies),
        *_left_out(tallies),
        *_unmasked(tallies),
        *_positions(tallies, model),
    ]
    return tuple(sorted(found, key=lambda problem: problem.severity is not _ERROR))


def _empty_splits(tallies: Sequence[Tally]) -> Iterator[Problem]:
    for tally in tallies:
        if not tally.rows:
            yield Problem(
                _ERROR,
                "SPLIT_EMPTY",
                f"the dataset has no rows in the split {tally.split!r}, and training stops without: split it "
                "first, or name another split in the spec",
            )


def _refusals(tallies: Sequence[Tally]) -> Iterator[Problem]:
    """Rows at which the whole training stops before its first step."""
    for reason, rows in _reasons(tallies, Outcome.REFUSED).items():
        first = _first_message(tallies, reason)
        yield Problem(_ERROR, reason, f"training stops at these rows; the first is {first}", rows)


def _masked(tallies: Sequence[Tally], max_fraction: float) -> Iterator[Problem]:
    masked = sum(tally.counted["all_masked"] for tally in tallies)
    if not masked:
        return
    over = [
        tally for tally in tallies if tally.rows and tally.counted["all_masked"] > max_fraction * tally.rows
    ]
    shares = ", ".join(f"{tally.split} {tally.counted['all_masked'] / tally.rows:.1%}" for tally in over)
    allowed = f"; more than {max_fraction:.1%} of {shares}" if over else ""
    yield Problem(
        _ERROR if over else _WARNING,
        "NO_LOSS_TOKENS",
        f"no token of these rows carries loss, so nothing is learnt from them{allowed}: look at their turns, "
        "or raise max_tokens where the answer is cut off",
        masked,
    )


def _budget(options: PreflightOptions, dataset: Path, tallies: Sequence[Tally]) -> Iterator[Problem]:
    ledgers = {tally.split: tally.ledger() for tally in tallies if tally.rows}
    try:
        check_loss_budget(options.spec, dataset, ledgers)
    except PreconditionError as error:
        yield Problem(_ERROR, error.reason, error.message)


def _left_out(tallies: Sequence[Tally]) -> Iterator[Problem]:
    """Rows that are not trained on, or not in full, and do not stop the training."""
    for outcome in (Outcome.QUARANTINED, Outcome.DROPPED):
        for reason, rows in _reasons(tallies, outcome).items():
            if reason == "NO_LOSS_TOKENS":  # it has a problem of its own
                continue
            first = _first_message(tallies, reason)
            yield Problem(_WARNING, reason, f"{outcome.lower()}; the first is {first}", rows)
    truncated = sum(tally.outcomes[Outcome.TRUNCATED] for tally in tallies)
    if truncated:
        lost = sum(tally.cut_loss_tokens for tally in tallies)
        message = f"cut off at max_tokens; {lost} tokens that would carry loss are lost with their tails"
        yield Problem(_WARNING, "ROW_TRUNCATED", message, truncated)


def _unmasked(tallies: Sequence[Tally]) -> Iterator[Problem]:
    rows = sum(tally.unmasked for tally in tallies)
    if rows:
        yield Problem(
            _WARNING,
            "PROMPT_NOT_MASKED",
            "every token carries loss, the prompt's too: see where the chat template says {% generation %}",
            rows,
        )


def _positions(tallies: Sequence[Tally], model: ModelFacts) -> Iterator[Problem]:
    if not model.max_positions:
        return
    rows = sum(sample.size > model.max_positions for tally in tallies for sample in tally.samples)
    if rows:
        yield Problem(
            _WARNING,
            "POSITIONS_EXCEEDED",
            f"longer than the {model.max_positions} positions that the model was made for: lower max_tokens",
            rows,
        )


def _reasons(tallies: Sequence[Tally], outcome: Outcome) -> Counter[str]:
    return sum((tally.reasons.get(outcome, Counter()) for tally in tallies), Counter[str]())


def _first_message(tallies: Sequence[Tally], reason: str) -> str:
    return next(tally.first_message[reason] for tally in tallies if reason in tally.first_message)
