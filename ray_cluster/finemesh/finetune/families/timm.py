"""Classifiers of timm (https://github.com/huggingface/pytorch-image-models), wrapped by transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto_images import TINY_SIDE_PX, load_image_processor
from finemesh.finetune.families.family import Family, TinyTokens

_SIDE: Final = (TINY_SIDE_PX, TINY_SIDE_PX)


def tiny_vit_config(_tokens: TinyTokens) -> Any:
    """Two layers of width 32 over 16 patches; how it is shown pictures stands in its config too."""
    from transformers import TimmWrapperConfig

    config: Any = TimmWrapperConfig  # it keeps what it does not declare, too
    return config(
        architecture="vit_tiny_patch16_224",
        model_args={"img_size": TINY_SIDE_PX, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
        pretrained_cfg={
            "classifier": "head",
            "input_size": [3, *_SIDE],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    )


def load_tiny_processor(config: Any, _tokenizer: Any) -> Any:
    """Made of the model's config, where it also stays: saving it writes nothing."""
    from transformers import TimmWrapperImageProcessor

    return TimmWrapperImageProcessor(config.pretrained_cfg, config.architecture)


def name_head(family: Family, config: Mapping[str, Any]) -> Family:
    """The family with the head of one model: each architecture calls its last layer otherwise."""
    layers = tuple(f"timm_model.{name}" for name in _classifiers(config))
    return replace(family, towers={**family.towers, Tower.HEAD: layers}, class_layers=layers)


def without_count(config: Any) -> dict[str, Any]:
    """The arguments that timm makes the model by, without the count of classes: transformers adds its own."""
    given = config.model_args or {}
    return {"model_args": {name: each for name, each in given.items() if name != "num_classes"}}


def without_head(config: Mapping[str, Any]) -> str:
    """Why a model is not taken, if it is not."""
    if _classifiers(config):
        return ""
    return (
        "its config.json names no layer in pretrained_cfg.classifier that tells classes apart: give a model "
        "of timm that was made to classify"
    )


def _classifiers(config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


TIMM: Final = Family(
    name="timm",
    task=Task.IMAGE_CLASSIFICATION,
    model_types=("timm_wrapper",),
    auto_class="AutoModelForImageClassification",
    towers={Tower.HEAD: ("timm_model.head",), Tower.VISION: ("",)},
    class_layers=("timm_model.head",),
    load_processor=load_image_processor,
    tiny_config=tiny_vit_config,
    tiny_processor=load_tiny_processor,
    refuse=without_head,
    fit=name_head,
    loading=without_count,
    extra="timm",
    quirks=(
        "It needs the package timm, `pip install finemesh[timm]`, and a torchvision that fits torch.",
        "Its head is the layer that pretrained_cfg.classifier of its config.json names.",
        "A config.json without model_type is of timm where it has pretrained_cfg.",
        "Pictures are cut to their middle, by crop_pct of its config.json.",
    ),
)
