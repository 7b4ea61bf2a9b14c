"""Qwen3-VL (https://arxiv.org/abs/2511.21631): Qwen2.5-VL without windows, whose vision tower also speaks to
the first layers of the language model (DeepStack).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families import qwen2_vl
from finemesh.finetune.families.family import Family, TinyTokens
from finemesh.finetune.families.llama import LINEAR_LAYERS, tiny_sizes
from finemesh.finetune.families.still import load_still, without_video


def load_processor(folder: Path) -> Any:
    from transformers import Qwen3VLProcessor

    return load_still(Qwen3VLProcessor, folder)


def tiny_config(tokens: TinyTokens) -> Any:
    """Two layers of width 64 on each side, the first of the vision tower speaks to that of the other."""
    from transformers import Qwen3VLConfig

    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": qwen2_vl.TINY_PATCH_SIZE_PX,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    text = {
        **tiny_sizes(tokens, num_key_value_heads=2),
        "head_dim": 16,
        "rope_parameters": {**qwen2_vl.TINY_ROPE, "mrope_interleaved": True},
    }
    return Qwen3VLConfig(vision_config=vision, text_config=text, **qwen2_vl.tiny_ids(tokens))


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers import Qwen3VLProcessor

    images = qwen2_vl.tiny_image_processor(config)
    return without_video(Qwen3VLProcessor)(images, tokenizer, chat_template=tokenizer.chat_template)


QWEN3_VL: Final = Family(
    name="qwen3-vl",
    task=Task.VISION_LANGUAGE,
    model_types=("qwen3_vl",),
    auto_class="AutoModelForImageTextToText",
    towers={
        **qwen2_vl.TOWERS,
        Tower.VISION: (*qwen2_vl.TOWERS[Tower.VISION], "model.visual.pos_embed"),
        Tower.CONNECTOR: ("model.visual.merger", "model.visual.deepstack_merger_list"),
    },
    lora_targets={
        Tower.LANGUAGE: LINEAR_LAYERS,
        Tower.VISION: ("qkv", "proj", "linear_fc1", "linear_fc2"),
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
    quirks=(
        "Its vision tower fuses queries, keys and values into one layer, qkv.",
        "lora.train_connector trains the last merger alone; the tower CONNECTOR is all of them.",
        "It was taught boxes as `[x1, y1, x2, y2]` in thousandths, which no box convention here writes.",
    ),
)
