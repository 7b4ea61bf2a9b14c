"""The curves of a run as pictures, for the model card: training and validation of a metric in one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

CURVES: Final = "curves"
# What the GPUs of a run used, in joules, the sum at its end: no picture, but a line of the card.
ENERGY: Final = "energy_joules"
MOST_PICTURES: Final = 8
# What a reader asks for first. Others follow in the order of their names.
_FIRST: Final = ("loss", "map", "mean_iou", "macro_f1", "accuracy", "token_accuracy", "learning_rate")
_COLOURS: Final = {"train": "#4c72b0", "val": "#dd8452"}

Curve = Sequence[tuple[int, float]]
"""(step, value), by step."""


def draw_curves(curves: Mapping[str, Curve], out: Path) -> list[str]:
    """Draw the metrics `train/...` and `val/...` into `curves/`, but for those that were measured only once.
    Returns the files, relative to `out`.

    Args:
        curves: by the name of the metric.
        out: folder of the package.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    grouped: dict[str, dict[str, Curve]] = defaultdict(dict)
    for key, curve in sorted(curves.items()):
        role, _, metric = key.partition("/")
        if role in _COLOURS and metric and curve and not metric.endswith("_per_second"):
            grouped[metric][role] = curve
    drawn: list[str] = []
    told = [metric for metric, roles in grouped.items() if max(map(len, roles.values())) > 1]
    for metric in sorted(told, key=_rank)[:MOST_PICTURES]:
        figure = Figure(figsize=(6.4, 3.2), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for role, curve in grouped[metric].items():
            steps, values = zip(*curve, strict=True)
            marker = "o" if len(curve) < 20 else ""
            axes.plot(steps, values, label=role, color=_COLOURS[role], marker=marker, markersize=3)
        axes.set(xlabel="optimiser step", ylabel=metric)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        name = f"{CURVES}/{re.sub(r'[^a-z0-9]+', '-', metric.lower())}.png"
        (out / CURVES).mkdir(exist_ok=True)
        figure.savefig(out / name, metadata={"Software": None})  # the same curves, the same bytes
        drawn.append(name)
    return drawn


def _rank(metric: str) -> tuple[int, str]:
    return _FIRST.index(metric) if metric in _FIRST else len(_FIRST), metric
