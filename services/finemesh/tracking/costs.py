"""What runs took and what they brought, and what differs in what they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from finemesh.core.metrics import Goal
from finemesh.tracking.compare import ConfigDifference, differing
from finemesh.tracking.domain import Run

POINT: Final = 0.01
"""A point of a metric, in its unit: a percent of an accuracy."""


@dataclass(frozen=True, slots=True)
class RunCost:
    """See `finemesh.v1.RunCost`: times in seconds, `gain` in the metric's unit, costs in the price's."""

    run: str
    seconds: float
    device_seconds: float
    cost: float
    gain: float
    device_seconds_per_point: float
    cost_per_point: float


def costs_of(
    runs: Sequence[Run],
    values: Sequence[float],
    baseline: int,
    goal: Goal | None,
    price_per_device_hour: float,
    now: datetime,
) -> tuple[RunCost, ...]:
    """What each run took, and by how much its value is better than that of the baseline.

    Args:
        runs: in the order of `values`.
        values: of the metric that decides; NaN where a run has none.
        baseline: index of the run that gains are counted from.
        goal: which way is better; None makes every gain 0.
        price_per_device_hour: 0 for none.
        now: the end of those that have not ended.
    """
    sign = 0.0 if goal is None else -1.0 if goal is Goal.MINIMIZE else 1.0
    found: list[RunCost] = []
    for run, value in zip(runs, values, strict=True):
        seconds = ((run.end_time or now) - (run.start_time or run.create_time)).total_seconds()
        device_seconds = max(0.0, seconds) * devices_of(run)
        cost = device_seconds / 3600 * price_per_device_hour
        gain = sign * (value - values[baseline]) if sign else 0.0
        points = gain / POINT if gain > 0 else 0.0
        found.append(
            RunCost(
                run=str(run.name),
                seconds=max(0.0, seconds),
                device_seconds=device_seconds,
                cost=cost,
                gain=gain,
                device_seconds_per_point=device_seconds / points if points else 0.0,
                cost_per_point=cost / points if points else 0.0,
            )
        )
    return tuple(found)


def devices_of(run: Run) -> float:
    """GPUs that a run held, as its spec or its lineage says; 1 for a machine without."""
    try:
        asked = float(run.params.get("resources.gpus", ""))
    except ValueError:
        asked = 0.0
    hardware: Mapping[str, Any] = run.lineage.get("hardware", {})
    return asked or float(len(hardware.get("gpus", ()))) or 1.0


@dataclass(frozen=True, slots=True)
class LineageDifferences:
    """What differs in data, program, and libraries or machines."""

    data: tuple[ConfigDifference, ...]
    code: tuple[ConfigDifference, ...]
    environment: tuple[ConfigDifference, ...]


def lineage_differences(runs: Sequence[Run]) -> LineageDifferences:
    """Fields of the lineages in which runs differ, by path; seeds are told with the params."""
    flat = [_flat(run.lineage) for run in runs]

    def of(*roots: str) -> tuple[ConfigDifference, ...]:
        return differing(
            [{key: value for key, value in each.items() if key.partition(".")[0] in roots} for each in flat]
        )

    return LineageDifferences(of("dataset", "dataset_digest"), of("code"), of("environment", "hardware"))


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, each in value.items():
        if isinstance(each, Mapping):
            found |= _flat(cast("Mapping[str, Any]", each), f"{prefix}{key}.")
        elif isinstance(each, list | tuple):
            found[prefix + key] = ", ".join(map(str, cast("Sequence[object]", each)))
        else:
            found[prefix + key] = str(each).lower() if isinstance(each, bool) else str(each)
    return found
