"""Messages of estimates to values and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final, cast

from finemesh.chassis.fine_tune_spec import spec_to_proto
from finemesh.core.errors import InvalidError
from finemesh.core.spec.estimate.base_model import BaseModel
from finemesh.core.spec.estimate.folder import shapes_in
from finemesh.core.spec.estimate.interval import Interval
from finemesh.training.estimates.domain import Estimate, Known, PastError
from finemesh.v1 import estimate_pb2 as pb
from finemesh.v1 import training_service_pb2

_LARGEST_FILES: Final = 32_000_000


def base_model_from_proto(message: pb.BaseModelFiles, path: str) -> BaseModel:
    """Raises InvalidError, reason BASE_MODEL_UNKNOWN: the config is missing or does not read."""
    if message.ByteSize() > _LARGEST_FILES:
        raise InvalidError.of(path, f"is larger than {_LARGEST_FILES} bytes", reason="BASE_MODEL_UNKNOWN")
    config = _object(message.config_json)
    if not config:
        raise InvalidError.of(
            f"{path}.config_json",
            "give the content of the base model's config.json: without it nothing can be estimated",
            reason="BASE_MODEL_UNKNOWN",
        )
    headers = [shapes_in(header.encode()) for header in message.weight_headers]
    tensors = {name: shape for header in headers for name, shape in header.items()}
    return BaseModel(config, tensors, _object(message.processor_json), message.weight_bytes)


def known_from_proto(
    request: training_service_pb2.EstimateTrainingJobRequest, base: BaseModel | None = None
) -> Known:
    """What is known of the base model: `base`, or else what the caller says of it."""
    return Known(
        base=base or base_model_from_proto(request.base_model, "base_model"),
        longest_batch_tokens=max(0, request.longest_batch_tokens),
        row_tokens=max(0.0, request.mean_row_tokens),
        probe_bytes=max(0, request.probe.peak_memory_bytes),
        probe_step_seconds=max(0.0, request.probe.step_seconds),
    )


def estimate_to_proto(estimate: Estimate, price: float = 0.0, currency: str = "") -> pb.TrainingEstimate:
    """The estimate as clients see it. `price` is that of a GPU for an hour; 0 if there is none."""
    message = pb.TrainingEstimate(
        peak_memory_bytes=_interval(estimate.memory.told),
        memory_parts={name: _interval(part) for name, part in estimate.parts.items()},
        step_seconds=_interval(estimate.step.told),
        steps=estimate.steps,
        room_bytes=estimate.room_bytes,
        fit=f"FIT_{estimate.fit}",
        past_memory_error=_past(estimate.memory_error),
        past_time_error=_past(estimate.step_error),
        corrected_by_jobs=estimate.corrected_by,
        family=estimate.key.family,
    )
    if estimate.steps:
        message.seconds.CopyFrom(_interval(estimate.seconds))
        if estimate.gpus:
            message.gpu_hours.CopyFrom(_interval(estimate.gpu_hours))
            if price:
                message.cost.CopyFrom(_interval(estimate.gpu_hours * price))
                message.currency = currency
    if estimate.nearest:
        nearest = message.nearest
        nearest.changes.update(estimate.nearest.changes)
        nearest.spec.CopyFrom(spec_to_proto(estimate.nearest.spec))
        nearest.peak_memory_bytes.CopyFrom(_interval(estimate.nearest.peak))
    return message


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _interval(value: Interval) -> pb.EstimateInterval:
    return pb.EstimateInterval(low=value.low, likely=value.likely, high=value.high)


def _past(value: PastError) -> pb.PastError:
    return pb.PastError(**asdict(value))
