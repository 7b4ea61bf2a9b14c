"""LLaVA-1.5 (https://arxiv.org/abs/2310.03744): a CLIP vision tower, a two-layer projector, a Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from finemesh.core.spec.boxes import BoxConvention
from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.family import FROM_FOLDER, Family, Picture, TinyTokens
from finemesh.finetune.families.llama import LINEAR_LAYERS, tiny_llama_config

TINY_IMAGE_SIZE_PX: Final = 112
TINY_PATCH_SIZE_PX: Final = 16


def load_processor(folder: Path) -> Any:
    """The processor of a local folder, with the PIL image processor."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder, **FROM_FOLDER, backend="pil")


def image_features(config: Any, picture: Picture) -> int:
    """Placeholders of a picture: its patches, and the class token if kept."""
    patch_px = config.vision_config.patch_size
    height_px, width_px = picture["pixel_values"].shape[-2:]
    patches = (height_px // patch_px) * (width_px // patch_px)
    return patches if config.vision_feature_select_strategy == "default" else patches + 1


def tiny_config(tokens: TinyTokens) -> Any:
    """Two layers of width 64 on each side: 112 px pictures become 49 tokens."""
    from transformers import CLIPVisionConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=TINY_IMAGE_SIZE_PX,
        patch_size=TINY_PATCH_SIZE_PX,
        projection_dim=64,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=tiny_llama_config(tokens),
        image_token_index=tokens.image_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side_px = config.vision_config.image_size
    images = CLIPImageProcessorPil(
        size={"shortest_edge": side_px}, crop_size={"height": side_px, "width": side_px}
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )


LLAVA: Final = Family(
    name="llava",
    task=Task.VISION_LANGUAGE,
    model_types=("llava",),
    auto_class="AutoModelForImageTextToText",
    towers={
        Tower.LANGUAGE: ("model.language_model", "lm_head"),
        Tower.VISION: ("model.vision_tower",),
        Tower.CONNECTOR: ("model.multi_modal_projector",),
    },
    lora_targets={
        Tower.LANGUAGE: LINEAR_LAYERS,
        Tower.VISION: ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        Tower.CONNECTOR: ("linear_1", "linear_2"),
    },
    connector="multi_modal_projector",
    text_config="text_config",
    image_features=image_features,
    load_processor=load_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    box_convention=BoxConvention.UNIT,
    quirks=("Pictures are cropped to a square in the middle: what lies at the edge is not seen.",),
)
