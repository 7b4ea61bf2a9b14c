"""The use case: what a fine-tune will take, and whether it fits anywhere."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from finemesh.core.clock import Clock
from finemesh.core.errors import FinemeshError, InvalidError, PreconditionError
from finemesh.core.names import parse_name
from finemesh.core.spec.estimate.base_model import BaseModel, FamilyParts
from finemesh.core.spec.estimate.duration import time_of
from finemesh.core.spec.estimate.interval import Interval
from finemesh.core.spec.estimate.memory import Load, memory_of
from finemesh.core.spec.estimate.nearest import nearest_that_fits
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.training.estimates.domain import (
    Estimate,
    Figure,
    Fit,
    Known,
    corrected,
    correcting,
    key_of,
    oversized,
    past_error,
    room_of,
)
from finemesh.training.estimates.families import family_for
from finemesh.training.estimates.records import records_of
from finemesh.training.ports import Datasets
from finemesh.training.store import SqlStore


class Estimator:
    """Reads what finished jobs took and what clusters have; asks DataPrep for the rows."""

    def __init__(self, store: SqlStore, datasets: Datasets, clock: Clock, live_seconds: float) -> None:
        self._store = store
        self._datasets = datasets
        self._clock = clock
        self._live = timedelta(seconds=live_seconds)

    async def estimate(self, spec: FineTuneSpec, known: Known) -> Estimate:
        """Raises InvalidError: BASE_MODEL_UNSUITABLE, BASE_MODEL_UNKNOWN."""
        try:
            return await self._estimate(spec, known)
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise InvalidError.of(
                "base_model.config_json",
                f"nothing follows from these fields ({error}): give the base model's own config.json",
                reason="BASE_MODEL_UNKNOWN",
            ) from error

    async def _estimate(self, spec: FineTuneSpec, known: Known) -> Estimate:
        family = family_for(known.base, spec.task)
        if not known.base.weights():
            raise InvalidError.of(
                "base_model.weight_headers",
                "the config does not tell the sizes of all weights: give the headers of safetensors files",
                reason="BASE_MODEL_UNKNOWN",
            )
        rows, classes = await self._rows(spec)
        async with self._store.db.read() as tx:
            project = parse_name(spec.dataset, "datasets").project
            memory_records, step_records = await records_of(tx, project, key_of(spec, family.name))
        async with self._store.read() as view:
            oldest = self._clock.now() - self._live
            live = [c for c in await view.clusters() if c.last_seen_time >= oldest and c.capacity.nodes > 0]
        room = room_of(live, gpus=spec.resources.gpus)
        on_gpu = room if spec.resources.gpus else 0
        load = Load(known.longest_batch_tokens, classes, on_gpu)
        memory = memory_of(spec, known.base, family, load)
        time = time_of(spec, known.base, family, rows=rows, row_tokens=known.row_tokens)
        found = Estimate(
            key=key_of(spec, family.name),
            memory=corrected(memory.peak, memory_records),
            parts=memory.parts,
            step=corrected(time.step_seconds, step_records),
            steps=time.steps,
            gpus=spec.resources.gpus,
            room_bytes=room,
            memory_error=past_error(memory_records),
            step_error=past_error(step_records),
            corrected_by=correcting(memory_records),
        )
        return _with_nearest(_probed(found, known), spec, known.base, family, load)

    async def _rows(self, spec: FineTuneSpec) -> tuple[int, int]:
        """Rows of the training split and classes of its objects; zeros where DataPrep does not tell."""
        try:
            dataset = await self._datasets.describe(spec.dataset)
        except FinemeshError:
            return 0, 0
        return dataset.split_rows.get(spec.train_split, 0), dataset.object_classes


def require_fit(estimate: Estimate) -> None:
    """Raises PreconditionError, reason DOES_NOT_FIT, with the nearest settings that do."""
    if estimate.fit is not Fit.TOO_LARGE:
        return
    nearest = {f"nearest.{path}": value for path, value in _changes(estimate).items()}
    sizes = {"least_bytes": f"{estimate.memory.told.low:.0f}", "room_bytes": str(estimate.room_bytes)}
    raise PreconditionError(oversized(estimate), reason="DOES_NOT_FIT", metadata=sizes | nearest)


def _changes(estimate: Estimate) -> dict[str, str]:
    return estimate.nearest.changes if estimate.nearest else {}


def _probed(estimate: Estimate, known: Known) -> Estimate:
    """With what a probe measured in the place of the closed form; allocators differ from day to day."""
    if known.probe_bytes:
        measured = float(known.probe_bytes)
        told = Interval(0.95 * measured, measured, 1.15 * measured)
        estimate = replace(estimate, memory=Figure(estimate.memory.forecast, told))
    if known.probe_step_seconds:  # which took the largest micro batch each time
        slowest = known.probe_step_seconds
        told = Interval(0.2 * slowest, 0.7 * slowest, 1.1 * slowest)
        estimate = replace(estimate, step=Figure(estimate.step.forecast, told))
    return estimate


def _with_nearest(
    estimate: Estimate, spec: FineTuneSpec, base: BaseModel, family: FamilyParts, load: Load
) -> Estimate:
    if estimate.fit in {Fit.UNKNOWN, Fit.FITS}:
        return estimate
    return replace(estimate, nearest=nearest_that_fits(spec, base, family, load, estimate.room_bytes))
