"""`FineTuneSpec` between its two forms: the message of the contract and the value of the core.

The message says "zero means the default"; the value has every default filled in. So a message that went
through `spec_from_proto` and `spec_to_proto` says explicitly what it meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final, TypeVar

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.spec.finetune import (
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    OverLength,
    Precision,
    Resources,
    Schedule,
    Sequence,
    Task,
    Tower,
)
from finemesh.v1 import fine_tune_spec_pb2 as pb

DEFAULT_LEARNING_RATE: Final = 2e-4
DEFAULT_MICRO_BATCH_SIZE: Final = 8
DEFAULT_MAX_TOKENS: Final = 2048
DEFAULT_CHECKPOINT_STEPS: Final = 50
DEFAULT_KEEP_LAST: Final = 2
DEFAULT_MAX_QUARANTINED_FRACTION: Final = 0.05

# What stands in for an enum that the request got wrong, so that the rest of it can still be checked.
_TASKS: Final = {"TASK_VISION_LANGUAGE": Task.VISION_LANGUAGE, "TASK_LANGUAGE": Task.LANGUAGE}
_TOWERS: Final = {f"TOWER_{tower}": tower for tower in Tower}
_PRECISIONS: Final = {"PRECISION_UNSPECIFIED": Precision.FP32} | {f"PRECISION_{p}": p for p in Precision}
_SCHEDULES: Final = {"SCHEDULE_UNSPECIFIED": Schedule.COSINE} | {f"SCHEDULE_{s}": s for s in Schedule}
_OVER_LENGTH: Final = {"OVER_LENGTH_UNSPECIFIED": OverLength.RAISE} | {
    f"OVER_LENGTH_{each}": each for each in OverLength
}

E = TypeVar("E", bound=StrEnum)


def spec_from_proto(message: pb.FineTuneSpec, path: str = "spec") -> FineTuneSpec:
    """The checked value of `message`, defaults filled in.

    Args:
        message: what the caller sent.
        path: where the message lies in the request, e.g. `training_job.spec`; starts every field path.

    Raises:
        InvalidError: reason INVALID_SPEC, with every violation of the spec at once.
    """
    reader = _Reader()
    spec = reader.spec(message)
    violations = reader.violations
    try:
        spec.validate()
    except InvalidError as error:
        said = {violation.field for violation in violations}
        found = (_as_in_proto(violation) for violation in error.violations)
        violations += [violation for violation in found if violation.field not in said]
    if violations:
        placed = [FieldViolation(f"{path}.{v.field}", v.description) for v in violations]
        listed = "; ".join(f"{v.field}: {v.description}" for v in placed)
        raise InvalidError(listed, violations=placed, reason="INVALID_SPEC")
    return spec


def _as_in_proto(violation: FieldViolation) -> FieldViolation:
    """The violation by the path in the message, where a `oneof` has no level of its own; without `spec.`."""
    field = violation.field.removeprefix("spec.")
    return FieldViolation(field.removeprefix("method."), violation.description)


class _Reader:
    """Reads a message and notes what its value cannot express."""

    def __init__(self) -> None:
        self.violations: list[FieldViolation] = []

    def spec(self, message: pb.FineTuneSpec) -> FineTuneSpec:
        task = self._enum("task", message.task, pb.FineTuneSpec.Task.Name, _TASKS, Task.VISION_LANGUAGE)
        return FineTuneSpec(
            task=task,
            base_model=message.base_model,
            base_model_revision=message.base_model_revision,
            dataset=message.dataset,
            train_split=message.train_split or "train",
            validation_split=message.validation_split or "val",
            test_split=message.test_split or "test",
            method=self._method(message, task),
            optimization=self._optimization(message.optimization),
            sequence=self._sequence(message.sequence),
            precision=self._enum(
                "precision",
                message.precision,
                pb.FineTuneSpec.Precision.Name,
                _PRECISIONS,
                Precision.FP32,
            ),
            evaluation=Evaluation(
                every_steps=message.evaluation.every_steps,
                max_items=message.evaluation.max_items,
                baselines=message.evaluation.baselines,
            ),
            checkpoint=Checkpointing(
                every_steps=message.checkpoint.every_steps or DEFAULT_CHECKPOINT_STEPS,
                keep_last=message.checkpoint.keep_last or DEFAULT_KEEP_LAST,
                keep_best=message.checkpoint.keep_best,
            ),
            resources=self._resources(message.resources),
            max_quarantined_fraction=message.max_quarantined_fraction or DEFAULT_MAX_QUARANTINED_FRACTION,
        )

    def _method(self, message: pb.FineTuneSpec, task: Task) -> Lora | Full:
        kind = message.WhichOneof("method")
        if kind == "full":
            multimodal = (Tower.LANGUAGE, Tower.CONNECTOR)
            default = multimodal if task is Task.VISION_LANGUAGE else (Tower.LANGUAGE,)
            return Full(towers=self._towers("full.towers", message.full.towers) or default)
        if kind is None:
            self._wrong("method", "is not set: set exactly one of lora, full")
            return Lora()
        lora = message.lora
        return Lora(
            rank=lora.rank,
            alpha=lora.alpha or 2.0 * max(lora.rank, 1),
            dropout=lora.dropout,
            towers=self._towers("lora.towers", lora.towers) or (Tower.LANGUAGE,),
            target_modules=tuple(lora.target_modules),
            train_connector=lora.train_connector,
            use_rslora=lora.use_rslora,
            use_dora=lora.use_dora,
        )

    def _optimization(self, message: pb.OptimizationSpec) -> Optimization:
        return Optimization(
            learning_rate=message.learning_rate or DEFAULT_LEARNING_RATE,
            weight_decay=message.weight_decay,
            epochs=message.epochs or 1.0,
            max_steps=message.max_steps,
            warmup_ratio=message.warmup_ratio,
            schedule=self._enum(
                "optimization.schedule",
                message.schedule,
                pb.OptimizationSpec.Schedule.Name,
                _SCHEDULES,
                Schedule.COSINE,
            ),
            # The message turns clipping off by a negative norm, the value by zero.
            max_grad_norm=0.0 if message.max_grad_norm < 0 else message.max_grad_norm or 1.0,
            micro_batch_size=message.micro_batch_size or DEFAULT_MICRO_BATCH_SIZE,
            gradient_accumulation_steps=message.gradient_accumulation_steps or 1,
            seed=message.seed,
        )

    def _sequence(self, message: pb.SequenceSpec) -> Sequence:
        return Sequence(
            max_tokens=message.max_tokens or DEFAULT_MAX_TOKENS,
            packing=message.packing,
            over_length=self._enum(
                "sequence.over_length",
                message.over_length,
                pb.SequenceSpec.OverLength.Name,
                _OVER_LENGTH,
                OverLength.RAISE,
            ),
        )

    def _resources(self, message: pb.ResourceSpec) -> Resources:
        gpus = message.gpus
        if not gpus.is_integer():  # also NaN and infinity
            self._wrong("resources.gpus", f"{gpus} is not a whole number: a job leases whole GPUs")
            gpus = 0.0
        return Resources(cpus=message.cpus or 1.0, gpus=int(gpus), memory_bytes=message.memory_bytes)

    def _towers(self, field: str, values: Iterable[int]) -> tuple[Tower, ...]:
        return tuple(
            self._enum(f"{field}[{i}]", value, pb.Tower.Name, _TOWERS, Tower.LANGUAGE)
            for i, value in enumerate(values)
        )

    def _enum(
        self, field: str, value: int, name_of: Callable[..., str], known: dict[str, E], stand_in: E
    ) -> E:
        try:
            name = name_of(value)
        except ValueError:  # proto3 enums are open: a newer client may send what we do not know
            name = str(value)
        if name not in known:
            self._wrong(field, f"{name} is not a choice: use one of {', '.join(known)}")
        return known.get(name, stand_in)

    def _wrong(self, field: str, description: str) -> None:
        self.violations.append(FieldViolation(field, description))


def spec_to_proto(spec: FineTuneSpec) -> pb.FineTuneSpec:
    """The message that says what `spec` says, nothing left to defaults."""
    message = pb.FineTuneSpec(
        task=f"TASK_{spec.task}",
        base_model=spec.base_model,
        base_model_revision=spec.base_model_revision,
        dataset=spec.dataset,
        train_split=spec.train_split,
        validation_split=spec.validation_split,
        test_split=spec.test_split,
        optimization=_optimization_to_proto(spec.optimization),
        sequence=pb.SequenceSpec(
            max_tokens=spec.sequence.max_tokens,
            packing=spec.sequence.packing,
            over_length=f"OVER_LENGTH_{spec.sequence.over_length}",
        ),
        precision=f"PRECISION_{spec.precision}",
        evaluation=pb.EvaluationSpec(
            every_steps=spec.evaluation.every_steps,
            max_items=spec.evaluation.max_items,
            baselines=spec.evaluation.baselines,
        ),
        checkpoint=pb.CheckpointSpec(
            every_steps=spec.checkpoint.every_steps,
            keep_last=spec.checkpoint.keep_last,
            keep_best=spec.checkpoint.keep_best,
        ),
        resources=resources_to_proto(spec.resources),
        max_quarantined_fraction=spec.max_quarantined_fraction,
    )
    towers = [f"TOWER_{tower}" for tower in spec.method.towers]
    if isinstance(spec.method, Full):
        message.full.CopyFrom(pb.FullMethod(towers=towers))
    else:
        message.lora.CopyFrom(_lora_to_proto(spec.method, towers))
    return message


def resources_to_proto(resources: Resources) -> pb.ResourceSpec:
    """What one attempt holds while it works."""
    return pb.ResourceSpec(cpus=resources.cpus, gpus=resources.gpus, memory_bytes=resources.memory_bytes)


def _lora_to_proto(lora: Lora, towers: list[str]) -> pb.LoraMethod:
    return pb.LoraMethod(
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        towers=towers,
        target_modules=lora.target_modules,
        train_connector=lora.train_connector,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
    )


def _optimization_to_proto(optimization: Optimization) -> pb.OptimizationSpec:
    return pb.OptimizationSpec(
        learning_rate=optimization.learning_rate,
        weight_decay=optimization.weight_decay,
        epochs=optimization.epochs,
        max_steps=optimization.max_steps,
        warmup_ratio=optimization.warmup_ratio,
        schedule=f"SCHEDULE_{optimization.schedule}",
        max_grad_norm=optimization.max_grad_norm or -1.0,
        micro_batch_size=optimization.micro_batch_size,
        gradient_accumulation_steps=optimization.gradient_accumulation_steps,
        seed=optimization.seed,
    )
