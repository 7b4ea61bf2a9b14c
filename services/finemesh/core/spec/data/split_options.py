"""What is asked of a split."""

from __future__ import annotations

from dataclasses import dataclass

from finemesh.core.spec.data.terms import Split, SplitStrategy
from finemesh.core.spec.data.violations import refuse


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How rows are divided. Between the splits of one video lie `gap_frames` annotated frames of none."""

    strategy: SplitStrategy = SplitStrategy.AUTO
    train: float = 0.6
    val: float = 0.1
    test: float = 0.3
    gap_frames: int = 5
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
        refuse(wrong)

    @property
    def ratios(self) -> dict[Split, float]:
        """The splits that shall hold rows, with their share, in order of time."""
        shares = {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}
        return {split: share for split, share in shares.items() if share > 0}
