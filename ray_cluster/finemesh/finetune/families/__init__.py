"""The registry of model families: each is one small file of data and hooks.

To add a family, write its file and name it in `FAMILIES`. Order matters only for the last ones, which take
every model for their task that transformers' auto classes know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.finetune import Task
from finemesh.core.spec.lint import model_type_of
from finemesh.finetune.families.auto import AUTO_LANGUAGE
from finemesh.finetune.families.auto_images import AUTO_IMAGES, CONVNEXT, CONVNEXT_V2, SWIN, VIT
from finemesh.finetune.families.d_fine import D_FINE
from finemesh.finetune.families.detr import CONDITIONAL_DETR, DETR
from finemesh.finetune.families.family import Family
from finemesh.finetune.families.gemma import GEMMA, GEMMA2
from finemesh.finetune.families.idefics3 import IDEFICS3
from finemesh.finetune.families.instructblip import INSTRUCTBLIP
from finemesh.finetune.families.llama import LLAMA
from finemesh.finetune.families.llava import LLAVA
from finemesh.finetune.families.llava_next import LLAVA_NEXT
from finemesh.finetune.families.mask2former import MASK2FORMER
from finemesh.finetune.families.mistral import MISTRAL
from finemesh.finetune.families.phi import PHI
from finemesh.finetune.families.qwen import QWEN
from finemesh.finetune.families.qwen2_5_vl import QWEN2_5_VL
from finemesh.finetune.families.qwen2_vl import QWEN2_VL
from finemesh.finetune.families.qwen3_vl import QWEN3_VL
from finemesh.finetune.families.rt_detr import RT_DETR_V2
from finemesh.finetune.families.segformer import SEGFORMER
from finemesh.finetune.families.smolvlm import SMOLVLM
from finemesh.finetune.families.timm import TIMM
from finemesh.finetune.families.yolo import YOLO
from finemesh.finetune.families.yolos import YOLOS

FAMILIES: Final[tuple[Family, ...]] = (
    LLAVA,
    LLAVA_NEXT,
    QWEN2_VL,
    QWEN2_5_VL,
    QWEN3_VL,
    IDEFICS3,
    SMOLVLM,
    INSTRUCTBLIP,
    D_FINE,
    RT_DETR_V2,
    DETR,
    CONDITIONAL_DETR,
    YOLOS,
    YOLO,
    LLAMA,
    QWEN,
    GEMMA,
    GEMMA2,
    MISTRAL,
    PHI,
    VIT,
    CONVNEXT,
    CONVNEXT_V2,
    SWIN,
    TIMM,
    SEGFORMER,
    MASK2FORMER,
    AUTO_LANGUAGE,
    AUTO_IMAGES,
)


def family_named(name: str) -> Family:
    """Raises NotFoundError (reason FAMILY_NOT_FOUND)."""
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise NotFoundError(f"no model family {name!r}: there are {known}", reason="FAMILY_NOT_FOUND")


def family_of(base_model: Path, task: Task) -> Family:
    """The family of the model in a local folder, by `model_type` of its config.json, fitted to that model.

    Raises:
        NotFoundError: BASE_MODEL_NOT_FOUND, the folder holds no readable config.json.
        InvalidError: BASE_MODEL_UNSUITABLE, no family does `task` with this type of model, it refuses this
            one, or there is code in its folder that only it is computed by.
    """
    config_path = base_model / "config.json"
    try:
        config = json.loads(config_path.read_bytes())
        model_type = model_type_of(config)
        if not model_type:
            raise ValueError("no model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise NotFoundError(
            f"{config_path} is not the config.json of a transformers model ({error}): give the folder of a "
            "base model",
            reason="BASE_MODEL_NOT_FOUND",
        ) from error
    for family in FAMILIES:
        if family.task is task and family.takes(model_type):
            why = family.refuse(config) if family.refuse else ""
            if why:
                raise InvalidError.of("spec.base_model", why, reason="BASE_MODEL_UNSUITABLE")
            _check_own_code(base_model, model_type, family.auto_class, config)
            return family.fit(family, config) if family.fit else family
    able = ", ".join(family.name for family in FAMILIES if family.task is task)
    raise InvalidError.of(
        "spec.base_model",
        f"a {model_type!r} model cannot do {task.value}: the families that can are {able}",
        reason="BASE_MODEL_UNSUITABLE",
    )


def _check_own_code(base_model: Path, model_type: str, auto_class: str, config: Mapping[str, Any]) -> None:
    """Code that lies beside a model is never run: transformers has to have an architecture of its type."""
    if "auto_map" not in config:
        return
    import transformers

    configs, models = transformers.CONFIG_MAPPING, getattr(transformers, auto_class)
    if model_type in configs and configs[model_type] in models._model_mapping:  # noqa: SLF001  no other says
        return
    raise InvalidError.of(
        "spec.base_model",
        f"{base_model} needs code of its own (auto_map in its config.json), which Finemesh does not run: "
        f"{auto_class} of transformers {transformers.__version__} knows no {model_type!r}. Choose a base "
        "model that it knows, or convert this one to such an architecture",
        reason="BASE_MODEL_UNSUITABLE",
    )
