"""Qwen2.5-VL (https://arxiv.org/abs/2502.13923): Qwen2-VL whose vision tower attends in windows and whose
boxes are in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from finemesh.core.spec.boxes import BoxConvention
from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families import qwen2_vl
from finemesh.finetune.families.family import Family, TinyTokens
from finemesh.finetune.families.llama import LINEAR_LAYERS, tiny_sizes
from finemesh.finetune.families.still import load_still, without_video


def load_processor(folder: Path) -> Any:
    from transformers import Qwen2_5_VLProcessor

    return load_still(Qwen2_5_VLProcessor, folder)


def tiny_config(tokens: TinyTokens) -> Any:
    """Two layers of width 64 on each side, the first of the vision tower in windows of 32 px."""
    from transformers import Qwen2_5_VLConfig

    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": qwen2_vl.TINY_PATCH_SIZE_PX,
        "window_size": 4 * qwen2_vl.TINY_PATCH_SIZE_PX,
        "fullatt_block_indexes": [1],
    }
    text = {**tiny_sizes(tokens, num_key_value_heads=2), "rope_parameters": qwen2_vl.TINY_ROPE}
    return Qwen2_5_VLConfig(vision_config=vision, text_config=text, **qwen2_vl.tiny_ids(tokens))


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor

    images = qwen2_vl.tiny_image_processor(config)
    return without_video(Qwen2_5_VLProcessor)(images, tokenizer, chat_template=tokenizer.chat_template)


QWEN2_5_VL: Final = Family(
    name="qwen2.5-vl",
    task=Task.VISION_LANGUAGE,
    model_types=("qwen2_5_vl",),
    auto_class="AutoModelForImageTextToText",
    towers=qwen2_vl.TOWERS,
    lora_targets={
        Tower.LANGUAGE: LINEAR_LAYERS,
        Tower.VISION: ("qkv", "proj", "gate_proj", "up_proj", "down_proj"),
    },
    connector="merger",
    text_config="text_config",
    image_features=qwen2_vl.image_features,
    see=qwen2_vl.see,
    positions=qwen2_vl.positions,
    load_processor=load_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    tiny_tokens=qwen2_vl.TINY_TOKENS,
    tiny_image=qwen2_vl.TINY_IMAGE,
    box_convention=BoxConvention.PIXELS,
    quirks=(
        "its vision tower fuses queries, keys and values into one layer, qkv",
        "boxes count the pixels of the picture that the model sees, after its processor resized it",
    ),
)
