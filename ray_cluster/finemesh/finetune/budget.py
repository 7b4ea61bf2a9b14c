"""The ledger of a run's rows, and the refusal to train on what is left after too much was lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

from finemesh.core.errors import PreconditionError
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import Disposition, LedgerEntry, LedgerSummary
from finemesh.finetune.jsonlines import write_lines
from finemesh.finetune.objectives.objective import AnySplit
from finemesh.finetune.rows import read_manifest


def write_ledger(path: Path, splits: Mapping[str, AnySplit]) -> None:
    """One JSON object per row and split: what became of it."""
    write_lines(
        path,
        ({"split": split, **asdict(entry)} for split, encoded in splits.items() for entry in encoded.entries),
    )


def first_quarantined(entries: Iterable[LedgerEntry]) -> str:
    """What is wrong with the first row that was put aside; empty if none was."""
    faulty = (entry for entry in entries if entry.disposition is Disposition.QUARANTINED)
    first = next(faulty, None)
    return f"row {first.row_id}: {first.message}" if first else ""


def check_loss_budget(
    spec: FineTuneSpec,
    dataset: Path,
    ledgers: Mapping[str, LedgerSummary],
    examples: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Refuse to train on what is left after too much was lost, in making the dataset or in encoding it.

    Args:
        spec: names the budget.
        dataset: folder of the dataset.
        ledgers: what the encoding of each split came to.
        examples: of each split, what is wrong with a row that was put aside, if any was.

    Raises:
        PreconditionError: LOSS_BUDGET_EXCEEDED; SPLIT_EMPTY, nothing of a split is left.
    """
    stages = {"the dataset": read_manifest(dataset).ledger} | {
        f"split {split!r}": ledger for split, ledger in ledgers.items()
    }
    first = {f"split {split!r}": f"; the first is {each}" for split, each in examples.items() if each}
    for stage, ledger in stages.items():
        if ledger.quarantined > spec.max_quarantined_fraction * ledger.inputs:
            why = ", ".join(f"{reason} {rows}" for reason, rows in ledger.by_reason.items())
            raise PreconditionError(
                f"{ledger.quarantined} of {ledger.inputs} rows of {stage} are quarantined, over the budget "
                f"of {spec.max_quarantined_fraction:.1%} (lost: {why}{first.get(stage, '')}): see the "
                "ledger, mend the rows, or raise max_quarantined_fraction",
                reason="LOSS_BUDGET_EXCEEDED",
            )
    for split, ledger in ledgers.items():
        if not ledger.kept:
            raise PreconditionError(
                f"no row of the split {split!r} is left to use: see the ledger; validation_split and "
                "test_split may be empty",
                reason="SPLIT_EMPTY",
            )
