"""A share of the training rows held out for validation, where a dataset has no split for it.

Rows of one video stay together, so that no frame is validated whose neighbour was trained on.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from finemesh.core.errors import PreconditionError
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.finetune.objectives.objective import AnySplit
from finemesh.finetune.rows import read_values


def hold_out(
    train: AnySplit, dataset: Path, split: str, share: float, seed: int
) -> tuple[AnySplit, AnySplit]:
    """Part a training split into what is trained on and what is held out.

    Whole groups are held out, in the order of the SHA-256 of (seed, group), until `share` of the rows is
    reached: the same for the same seed, and much the same when rows are added. What was truncated stays
    counted with the training rows.

    Args:
        train: the samples and ledger of the whole split.
        dataset: folder of the dataset, which knows the groups.
        split: the name of the split in it.
        share: of the rows, above 0 and below 1.
        seed: of the run.

    Raises:
        PreconditionError: HOLDOUT_IMPOSSIBLE, all rows belong to one group.
    """
    columns = ("row_id", "video_id")
    groups = {
        row["row_id"]: row["video_id"] or row["row_id"] for row, _ in read_values(dataset, split, columns)
    }
    rows_of: dict[str, int] = {}
    for entry in train.entries:
        group = groups[entry.row_id]
        rows_of[group] = rows_of.get(group, 0) + 1
    if len(rows_of) < 2:
        raise PreconditionError(
            f"all rows of the split {split!r} belong to one video, so none can be held out: name a "
            "spec.validation_split, or set spec.evaluation.holdout_fraction to 0",
            reason="HOLDOUT_IMPOSSIBLE",
        )
    held: set[str] = set()
    wanted = share * len(train.entries)
    for group in sorted(rows_of, key=lambda group: _place(group, seed))[: len(rows_of) - 1]:
        if sum(rows_of[each] for each in held) >= wanted:
            break
        held.add(group)
    return _part(train, groups, held, inside=False), _part(train, groups, held, inside=True)


def first_rows(split: AnySplit, limit: int) -> AnySplit:
    """The first `limit` samples of what was held out. Rows of which none is left are dropped."""
    samples = split.samples[:limit]
    shown = {sample.row_id for sample in samples}
    message = f"held out, but only {limit} samples are validated: see evaluation.max_items"
    entries: list[LedgerEntry] = []
    for entry in split.entries:
        left = tuple(child for child in entry.children or (entry.row_id,) if child in shown)
        if entry.disposition is not Disposition.KEPT:
            entries.append(entry)
        elif left:
            entries.append(replace(entry, children=left))
        else:
            entries.append(LedgerEntry(entry.row_id, Disposition.DROPPED, "BEYOND_MAX_ITEMS", message))
    return replace(split, samples=samples, entries=entries)


def _part(split: AnySplit, groups: dict[str, str], held: set[str], *, inside: bool) -> AnySplit:
    row_of = {child: entry.row_id for entry in split.entries for child in entry.children or (entry.row_id,)}
    return replace(
        split,
        samples=[each for each in split.samples if (groups[row_of[each.row_id]] in held) is inside],
        entries=[each for each in split.entries if (groups[each.row_id] in held) is inside],
        truncated=0 if inside else split.truncated,
    )


def _place(group: str, seed: int) -> bytes:
    return hashlib.sha256(f"held out\0{seed}\0{group}".encode()).digest()
