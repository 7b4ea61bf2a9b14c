"""An estimate, and how it follows from a forecast, from what finished jobs took, and from the clusters."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from finemesh.core.attempts import Cluster
from finemesh.core.spec.estimate.base_model import BaseModel
from finemesh.core.spec.estimate.interval import Interval
from finemesh.core.spec.estimate.nearest import Suggestion
from finemesh.core.spec.finetune import FineTuneSpec, Lora, Quantization

FEWEST_RECORDS: Final = 3  # that correct a forecast
RECORDS: Final = 20
_MARGIN: Final = 0.05  # beyond the least and the most that was seen


@dataclass(frozen=True, slots=True)
class Known:
    """What is known besides the spec; zeros where nobody has looked or measured.

    Attributes:
        longest_batch_tokens: of the largest forward pass.
        row_tokens: mean length of a row.
        probe_bytes, probe_step_seconds: what a probe measured.
    """

    base: BaseModel
    longest_batch_tokens: int = 0
    row_tokens: float = 0.0
    probe_bytes: int = 0
    probe_step_seconds: float = 0.0


class Fit(StrEnum):
    UNKNOWN = "UNKNOWN"
    FITS = "FITS"
    UNSURE = "UNSURE"
    TOO_LARGE = "TOO_LARGE"


@dataclass(frozen=True, slots=True)
class Key:
    """Jobs that are alike enough to learn from each other."""

    family: str
    method: str
    hardware: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of an estimate: what the closed form said was likely, and what was told."""

    forecast: float
    told: Interval

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Figure:
        return cls(value["forecast"], Interval(**value["told"]))


@dataclass(frozen=True, slots=True)
class Record:
    """A figure of a finished job: what was told before, and what was measured."""

    figure: Figure
    measured: float

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return abs(self.figure.told.likely - self.measured) / self.measured


@dataclass(frozen=True, slots=True)
class PastError:
    """How estimates compare with what jobs took."""

    jobs: int = 0
    median_error: float = 0.0
    inside: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a fine-tune will take. Bytes are of one worker: of its GPU, or without GPUs of its node's memory.

    Attributes:
        memory: peak, in bytes.
        parts: what holds it by the closed form.
        step: seconds of an optimiser step.
        steps: of the run; 0 if the rows are not known.
        gpus: that it holds.
        room_bytes: that one worker may have at most, of a shared GPU its share; 0 if not known.
        corrected_by: how many finished jobs corrected the closed form.
    """

    key: Key
    memory: Figure
    parts: Mapping[str, Interval]
    step: Figure
    steps: int
    gpus: float
    room_bytes: int = 0
    nearest: Suggestion | None = None
    memory_error: PastError = field(default_factory=PastError)
    step_error: PastError = field(default_factory=PastError)
    corrected_by: int = 0

    @property
    def fit(self) -> Fit:
        peak = self.memory.told
        if not self.room_bytes:
            return Fit.UNKNOWN
        if peak.high <= self.room_bytes:
            return Fit.FITS
        return Fit.TOO_LARGE if peak.low > self.room_bytes else Fit.UNSURE

    @property
    def seconds(self) -> Interval:
        return self.step.told * self.steps

    @property
    def gpu_hours(self) -> Interval:
        return self.seconds * (self.gpus / 3600)


def to_json(estimate: Estimate | None) -> dict[str, Any] | None:
    """For a row; the nearest settings were told, and are not kept."""
    return asdict(replace(estimate, nearest=None)) if estimate else None


def from_json(value: Mapping[str, Any] | None) -> Estimate | None:
    if value is None:
        return None
    told: dict[str, Any] = {
        **value,
        "key": Key(**value["key"]),
        "memory": Figure.of(value["memory"]),
        "step": Figure.of(value["step"]),
        "parts": {name: Interval(**part) for name, part in value["parts"].items()},
        "memory_error": PastError(**value["memory_error"]),
        "step_error": PastError(**value["step_error"]),
    }
    return Estimate(**told)


def key_of(spec: FineTuneSpec, family: str) -> Key:
    method = type(spec.method).__name__.lower()
    if isinstance(spec.method, Lora) and spec.method.quantization is not Quantization.NONE:
        method += f"-{spec.method.quantization.lower()}"
    return Key(family, method, f"gpu-{spec.precision.lower()}" if spec.resources.gpus else "cpu")


def corrected(forecast: Interval, records: Sequence[Record]) -> Figure:
    """A forecast, moved and narrowed to what enough finished jobs took in proportion to theirs."""
    ratios = _ratios(records)
    if not ratios:
        return Figure(forecast.likely, forecast)
    likely = forecast.likely * statistics.median(ratios)
    low = forecast.likely * min(ratios) * (1 - _MARGIN)
    high = forecast.likely * max(ratios) * (1 + _MARGIN)
    return Figure(forecast.likely, Interval(low, likely, high))


def _ratios(records: Sequence[Record]) -> list[float]:
    """Measured to forecast; none where too few have finished to learn from."""
    found = [each.measured / each.figure.forecast for each in records if each.figure.forecast > 0]
    return found if len(found) >= FEWEST_RECORDS else []


def correcting(records: Sequence[Record]) -> int:
    """How many finished jobs correct a forecast."""
    return len(_ratios(records))


def past_error(records: Sequence[Record]) -> PastError:
    if not records:
        return PastError()
    return PastError(
        len(records),
        statistics.median(each.error for each in records),
        sum(each.figure.told.holds(each.measured) for each in records),
    )


def room_of(clusters: Iterable[Cluster], *, gpus: float) -> int:
    """The most memory that one worker may have anywhere, in bytes; 0 if no cluster tells.

    On a GPU that of the largest, or the share of it that is asked for; without GPUs that of the largest node,
    or of the cluster where it does not tell of its nodes. A cluster that has GPUs and does not say how large
    they are may have room for anything.
    """
    rooms: list[int] = []
    for cluster in clusters:
        capacity = cluster.capacity
        nodes = capacity.node_capacities
        if not gpus:
            rooms.append(max((node.memory_bytes for node in nodes), default=capacity.memory_bytes))
        elif capacity.gpus:
            sizes = [node.gpu_memory_bytes for node in nodes if node.gpus]
            if not sizes or not all(sizes):
                return 0
            rooms.append(round(max(sizes) * min(1.0, gpus)))
    return max(rooms, default=0)


def oversized(estimate: Estimate) -> str:
    """Why a job is refused, and what would fit."""
    peak, place = estimate.memory.told, "the largest GPU" if estimate.gpus else "the largest node"
    if 0 < estimate.gpus < 1:
        place = f"{estimate.gpus:g} of {place}"
    need = f"at least {gigabytes(peak.low)} and likely {gigabytes(peak.likely)}"
    why = f"spec: one worker needs {need}, and {place} of any cluster has {gigabytes(estimate.room_bytes)}"
    if estimate.nearest is None:
        return f"{why}: no smaller batch, shorter row or quantisation helps: take a smaller model"
    changes = ", ".join(f"{path} = {value}" for path, value in estimate.nearest.changes.items())
    fits = gigabytes(estimate.nearest.peak.high)
    return f"{why}: it fits, with at most {fits}, by {changes}; or submit it with admit_oversized"


def gigabytes(value: float) -> str:
    return f"{value / 1e9:.1f} GB"
