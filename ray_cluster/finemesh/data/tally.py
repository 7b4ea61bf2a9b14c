"""What was written, in figures: of one part of a dataset or of several together. From it alone the manifest
is made, so parts can be written apart, in any order, by any process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from finemesh.core.errors import PreconditionError
from finemesh.core.spec.data import (
    DatasetFormat,
    DatasetManifest,
    DatasetOrigin,
    Leakage,
    MaskProof,
    ShardInfo,
    content_digest,
)
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.data.jsonio import write_json_atomically
from finemesh.data.statistics import Statistics
from finemesh.data.storage import MANIFEST
from finemesh.data.writers import WRITERS, FormContext


@dataclass(slots=True)
class Tally:
    """Attributes: as those of DatasetManifest; `notes` as FormContext.notes; `first_fault` is what is wrong
    with the first input that was put aside.
    """

    ledger: LedgerSummary = field(default_factory=LedgerSummary)
    statistics: Statistics = field(default_factory=Statistics)
    shards: list[ShardInfo] = field(default_factory=list[ShardInfo])
    ledger_shards: list[ShardInfo] = field(default_factory=list[ShardInfo])
    proof: MaskProof | None = None
    notes: Counter[str] = field(default_factory=Counter[str])
    warnings: list[str] = field(default_factory=list[str])
    first_fault: str = ""

    def add(self, other: Tally) -> None:
        mine, its = self.ledger, other.ledger
        self.ledger = LedgerSummary(
            mine.inputs + its.inputs,
            mine.kept + its.kept,
            mine.quarantined + its.quarantined,
            mine.dropped + its.dropped,
            dict(sorted((Counter(mine.by_reason) + Counter(its.by_reason)).items())),
        )
        self.statistics.add(other.statistics)
        self.shards += other.shards
        self.ledger_shards += other.ledger_shards
        self.proof = _both(self.proof, other.proof)
        for sentence, count in other.notes.items():
            self.notes[sentence] += count
        self.warnings += other.warnings
        self.first_fault = self.first_fault or other.first_fault

    def to_json(self) -> dict[str, Any]:
        return {
            "ledger": self.ledger,
            "statistics": self.statistics.to_json(),
            "shards": self.shards,
            "ledger_shards": self.ledger_shards,
            "proof": self.proof,
            "notes": self.notes,
            "warnings": self.warnings,
            "first_fault": self.first_fault,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            LedgerSummary.from_json(value["ledger"]),
            Statistics.from_json(value["statistics"]),
            [ShardInfo.from_json(item) for item in value["shards"]],
            [ShardInfo.from_json(item) for item in value["ledger_shards"]],
            MaskProof(**value["proof"]) if value["proof"] else None,
            Counter(value["notes"]),
            list(value["warnings"]),
            value.get("first_fault", ""),
        )


def _both(one: MaskProof | None, other: MaskProof | None) -> MaskProof | None:
    if one is None or other is None:
        return one or other
    masks = one.masks + other.masks
    weighted = one.mean_iou * one.masks + other.mean_iou * other.masks
    return MaskProof(
        masks,
        weighted / masks if masks else 1.0,
        min(one.min_iou, other.min_iou),
        one.below_floor + other.below_floor,
        round(one.cpu_seconds + other.cpu_seconds, 3),
    )


def write_manifest(
    tally: Tally,
    context: FormContext,
    dataset_format: DatasetFormat,
    origin: DatasetOrigin,
    *,
    options: Mapping[str, Any],
    parents: Sequence[str] = (),
    warnings: Sequence[str] = (),
    leakage: Leakage | None = None,
    header: Mapping[str, Any] | None = None,
) -> DatasetManifest:
    """Finish the dataset in the context's folder: what its form has once only, and the manifest.

    Raises:
        PreconditionError: LEDGER_UNBALANCED if an input was lost or told twice; EMPTY_DATASET if no row is
            left.
    """
    ledger, counted = tally.ledger.check(), tally.statistics
    if counted.rows == 0:
        raise _empty(ledger, tally.first_fault)
    finished = WRITERS[dataset_format].finish(context, frozenset(counted.splits))
    shards, ledger_shards = (*tally.shards, *finished), tuple(tally.ledger_shards)
    told = [sentence.format(count) for sentence, count in sorted(tally.notes.items()) if count]
    told += [*tally.warnings, *context.warnings]
    if WRITERS[dataset_format].proves and not context.options.prove_masks:
        told.append("masks were not read back and compared: the proof was switched off")
    manifest = DatasetManifest(
        digest=content_digest(dataset_format, options, (*shards, *ledger_shards), tuple(parents)),
        format=dataset_format,
        origin=origin,
        rows=counted.rows,
        splits=dict(sorted(counted.splits.items())),
        classes=counted.classes,
        row_classes=counted.row_classes,
        answers=counted.answers,
        media=dict(sorted(counted.media.items())),
        has_class_names=counted.has_class_names,
        videos=counted.videos,
        conversations=counted.conversations,
        shards=shards,
        ledger_shards=ledger_shards,
        ledger=ledger,
        parents=tuple(parents),
        options=dict(options),
        leakage=leakage,
        proof=tally.proof,
        warnings=tuple(dict.fromkeys([*warnings, *told])),
        header=dict(header or {}),
    )
    write_json_atomically(Path(context.root) / MANIFEST, manifest)
    return manifest


def _empty(ledger: LedgerSummary, first_fault: str) -> PreconditionError:
    reasons = (
        ", ".join(f"{count} x {reason}" for reason, count in ledger.by_reason.items())
        or "there were no inputs"
    )
    message = f"no row is left of {ledger.inputs} inputs ({reasons}): mend the source or the options"
    if first_fault:
        message += f". The first: {first_fault}"
    return PreconditionError(message, reason="EMPTY_DATASET", metadata=dict.fromkeys(ledger.by_reason, ""))
