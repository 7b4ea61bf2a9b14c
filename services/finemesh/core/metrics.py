"""Names of metrics, and what they tell."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final


class Goal(StrEnum):
    MINIMIZE = "MINIMIZE"
    MAXIMIZE = "MAXIMIZE"


# Words of a metric's name that make lower better: losses, errors, and what is paid in time or memory.
_LOWER_IS_BETTER: Final = frozenset(
    {"loss", "losses", "nll", "perplexity", "ppl", "error", "errors", "err", "mse", "rmse", "mae", "wer"}
    | {"cer", "seconds", "memory", "bytes"}
)
# What is watched, and neither better high nor low: of the optimiser, of an evaluation, and of the machine.
_WITHOUT_GOAL: Final = frozenset({"grad_norm", "learning_rate", "loss_scale", "items"})
_SYSTEM: Final = "system/"


def goal_of(key: str) -> Goal | None:
    """Which way a metric is better, told from its name: `val/loss` down, `val/accuracy` up, and
    `train/grad_norm` and `system/cpu_percent` neither.
    """
    if key.startswith(_SYSTEM) or key.rpartition("/")[2] in _WITHOUT_GOAL:
        return None
    words = re.split(r"[^a-z0-9]+", key.lower())
    return Goal.MINIMIZE if _LOWER_IS_BETTER.intersection(words) else Goal.MAXIMIZE
