"""The ledger: at every stage of data, inputs = kept + quarantined + dropped, each input with one reason.

An *input* is whatever a stage takes in: a frame or an image for an import, a row for a split, an object or a
row for a conversion. Each gets exactly one disposition, and a kept input names the rows it became.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from finemesh.core.errors import PreconditionError


class Disposition(StrEnum):
    """What became of an input."""

    KEPT = "kept"
    QUARANTINED = "quarantined"
    """Faulty: put aside, with the fault as reason. A corrected source would bring it back."""
    DROPPED = "dropped"
    """Sound, but left out on purpose by an option or a rule of the stage."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The fate of one input.

    Attributes:
        row_id: id of the input, unique within the stage.
        disposition: kept, quarantined or dropped.
        reason: UPPER_SNAKE_CASE, e.g. `MASK_SIZE_MISMATCH`; empty for a kept input.
        message: what is wrong, for people.
        field: where in the input, e.g. `objects[2].mask.size`.
        children: ids of the rows that a kept input became.
    """

    row_id: str
    disposition: Disposition
    reason: str = ""
    message: str = ""
    field: str = ""
    children: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """The sums of a ledger. `by_reason` counts quarantined and dropped inputs per reason."""

    inputs: int = 0
    kept: int = 0
    quarantined: int = 0
    dropped: int = 0
    by_reason: dict[str, int] = field(default_factory=dict[str, int])

    def check(self) -> LedgerSummary:
        """Return self if the sums agree. Raises PreconditionError (LEDGER_UNBALANCED) if an input was lost or
        told twice.
        """
        accounted = self.kept + self.quarantined + self.dropped
        reasons = sum(self.by_reason.values())
        if self.inputs != accounted or reasons != self.quarantined + self.dropped:
            raise PreconditionError(
                f"the ledger does not balance: {self.inputs} inputs, but {self.kept} kept"
                f" + {self.quarantined} quarantined + {self.dropped} dropped = {accounted}, with {reasons}"
                " reasons; the stage is at fault, its output must not be used",
                reason="LEDGER_UNBALANCED",
            )
        return self

    @property
    def lost_fraction(self) -> float:
        """Share of inputs that were not kept, 0 to 1."""
        return 0.0 if self.inputs == 0 else (self.quarantined + self.dropped) / self.inputs

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LedgerSummary:
        return cls(
            inputs=int(value["inputs"]),
            kept=int(value["kept"]),
            quarantined=int(value["quarantined"]),
            dropped=int(value["dropped"]),
            by_reason={str(reason): int(count) for reason, count in value["by_reason"].items()},
        )

    @classmethod
    def of(cls, inputs: int, entries: Iterable[LedgerEntry]) -> LedgerSummary:
        """Sum `entries` against `inputs`, a count that the caller took where the inputs came in."""
        counts = dict.fromkeys(Disposition, 0)
        by_reason: dict[str, int] = {}
        for entry in entries:
            counts[entry.disposition] += 1
            if entry.disposition is not Disposition.KEPT:
                by_reason[entry.reason] = by_reason.get(entry.reason, 0) + 1
        return cls(
            inputs=inputs,
            kept=counts[Disposition.KEPT],
            quarantined=counts[Disposition.QUARANTINED],
            dropped=counts[Disposition.DROPPED],
            by_reason=dict(sorted(by_reason.items())),
        )
