"""What is asked of a split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from finemesh.core.spec.data.terms import Split, SplitStrategy
from finemesh.core.spec.data.violations import refuse

MAX_ASSIGNMENT_BYTES: Final = 400_000
"""Of names and splits, and 8 for each pair: lists travel to a cluster with the order, in one message."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How rows are divided.

    Attributes:
        train, val, test: shares of the rows, which sum to 1.
        gap_frames: annotated frames of no split between the splits of one video (TEMPORAL).
        group_key: what rows are grouped by (GROUPED): `video_id`, `class_name`, `source.file`, `folder` (of
            the picture), or a key of the row's attributes.
        assignments: the split of each row id, picture name (with or without its folder), video id or source
            file (PREDEFINED); the first of these that is listed counts, and `*` stands for all that are not.
            Empty takes the splits that the source names. At most MAX_ASSIGNMENT_BYTES.
        max_similar_bits: pictures whose perceptual hashes differ in at most so many of 64 bits lie in one
            split; -1 looks at identical pictures alone.
        seed: of every draw.
    """

    strategy: SplitStrategy = SplitStrategy.AUTO
    train: float = 0.6
    val: float = 0.1
    test: float = 0.3
    gap_frames: int = 5
    group_key: str = ""
    assignments: dict[str, str] = field(default_factory=dict[str, str])
    max_similar_bits: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        ratios = {"train": self.train, "val": self.val, "test": self.test}
        wrong = {
            name: f"{value} is not a ratio: give 0 to 1"
            for name, value in ratios.items()
            if not 0 <= value <= 1
        }
        if not wrong and abs(sum(ratios.values()) - 1) > 1e-6:
            wrong["train"] = f"train + val + test is {sum(ratios.values()):g}: make it 1"
        if self.gap_frames < 0:
            wrong["gap_frames"] = f"{self.gap_frames} is negative: give 0 or more"
        if not -1 <= self.max_similar_bits <= 16:
            wrong["max_similar_bits"] = f"{self.max_similar_bits} is out of range: give -1 to 16"
        if self.strategy is SplitStrategy.GROUPED and not self.group_key:
            wrong["group_key"] = "is not set: say what rows are grouped by"
        if self.group_key and self.strategy is not SplitStrategy.GROUPED:
            wrong["group_key"] = f"is of no use to the strategy {self.strategy}: choose grouped"
        if problem := self._problem_of_assignments():
            wrong["assignments"] = problem
        refuse(wrong)

    def _problem_of_assignments(self) -> str:
        """What is wrong with them; empty if nothing is."""
        known = {split.value for split in Split} - {Split.NONE.value}
        if self.assignments and self.strategy is not SplitStrategy.PREDEFINED:
            return f"are of no use to the strategy {self.strategy}: choose predefined"
        if unknown := sorted({*self.assignments.values()} - known):
            return f"{unknown[0]!r} is no split: use one of {', '.join(sorted(known))}"
        size = sum(len(name.encode()) + len(split) + 8 for name, split in self.assignments.items())
        if size > MAX_ASSIGNMENT_BYTES:
            return (
                f"have {size} bytes, at most {MAX_ASSIGNMENT_BYTES} fit: list the smaller parts, and * for"
                " all others; or videos, or source files, instead of rows"
            )
        return ""

    @property
    def ratios(self) -> dict[Split, float]:
        """The splits that shall hold rows, with their share, in order of time."""
        shares = {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}
        return {split: share for split, share in shares.items() if share > 0}
