"""What a spool leaves out as it fills up, so that it neither blocks a step nor overflows.

Up to half of its limit it keeps everything. Then it keeps every second value of each metric, and every fourth
once half of what was left has gone, and so on: each halving lasts about as many steps as the one before, so a
spool with room for n steps holds an outage of ten times n, ever more coarsely. A metric that comes seldom is
kept whole, and so is a value that is the first to be finite, or not, after others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

_COARSEST: Final = 20  # every millionth


class Thinning:
    """Decides value by value. `level` 0 keeps all, n every 2^n-th."""

    def __init__(self) -> None:
        self.level = 0
        self._records = 0
        self._kept: dict[
            str, tuple[int, bool]
        ] = {}  # the record that was kept last, and whether it was finite

    def fill(self, share: float) -> None:
        """Say how much of the limit is used."""
        left = 1 - share
        self.level = _COARSEST if left <= 0 else min(_COARSEST, int(-math.log2(left)))
        if not self.level:
            self._kept.clear()

    def kept(self, values: Mapping[str, float]) -> dict[str, float]:
        """What is kept of the values of a step; those of the first step are kept."""
        self._records += 1
        found: dict[str, float] = {}
        for key, value in values.items():
            record, was_finite = self._kept.get(key, (-(2**_COARSEST), True))
            is_finite = math.isfinite(value)
            if self._records - record >= 2**self.level or is_finite is not was_finite:
                self._kept[key] = self._records, is_finite
                found[key] = value
        return found
