"""The registry of model families, as far as forecasts need it: of the file that `make docs` writes."""

from __future__ import annotations

from functools import cache
from typing import Any

from finemesh.core.errors import InvalidError
from finemesh.core.spec.estimate.base_model import BaseModel, FamilyParts
from finemesh.core.spec.finetune import Task, Tower
from finemesh.training.catalogue import families
from finemesh.v1 import fine_tune_spec_pb2, model_family_pb2

FineTuneSpec = fine_tune_spec_pb2.FineTuneSpec


def family_for(base: BaseModel, task: Task) -> FamilyParts:
    """The family of a base model. Raises InvalidError, reason BASE_MODEL_UNSUITABLE."""
    model_type = str(base.config.get("model_type", ""))
    for types, family in _parts():
        if family.task is task and (not types or model_type in types):
            return family
    raise InvalidError.of(
        "base_model.config_json",
        f"no family does {task.value} with a {model_type!r} model: `finemesh models list` tells which do",
        reason="BASE_MODEL_UNSUITABLE",
    )


@cache
def _parts() -> tuple[tuple[tuple[str, ...], FamilyParts], ...]:
    return tuple((tuple(family.model_types), _parts_of(family)) for family in families())


def _parts_of(family: model_family_pb2.ModelFamily) -> FamilyParts:
    towers = {Tower(_word(part, "tower")): part for part in family.parts}
    return FamilyParts(
        name=family.name.partition("/")[2],
        task=Task(FineTuneSpec.Task.Name(family.task).removeprefix("TASK_")),
        prefixes={tower: tuple(part.module_prefixes) for tower, part in towers.items()},
        lora_targets={tower: tuple(part.lora_targets) for tower, part in towers.items() if part.lora_targets},
    )


def _word(message: Any, field: str) -> str:
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return enum.values_by_number[getattr(message, field)].name.removeprefix(prefix)
