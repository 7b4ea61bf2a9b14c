"""DETR (https://arxiv.org/abs/2005.12872) and Conditional DETR (https://arxiv.org/abs/2108.06152)."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto_images import load_image_processor
from finemesh.finetune.families.detector import Detector, PerBox, PerQueryAndBox
from finemesh.finetune.families.family import Family, TinyTokens

TINY_SIDE_PX: Final = 64
_TOWERS: Final = {
    Tower.VISION: ("model.backbone",),
    Tower.DECODER: (
        "model.input_projection",
        "model.query_position_embeddings",
        "model.encoder",
        "model.decoder",
    ),
    Tower.HEAD: ("class_labels_classifier", "bbox_predictor"),
}
_LINEAR_LAYERS: Final = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
    # Conditional DETR has these besides.
    *("q_content_proj", "q_pos_proj", "q_pos_sine_proj", "k_content_proj", "k_pos_proj"),
)
_TIMM: Final = "Published weights may be of a backbone of timm: take the revision `no_timm`, or install timm."


def _small() -> dict[str, Any]:
    from transformers import ResNetConfig

    make: Any = ResNetConfig  # its fields are not all known to type checkers
    backbone = make(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_indices=[4],
    )
    return {
        "backbone_config": backbone,
        "init_std": 0.15,  # about 1 / sqrt(width)
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "num_queries": 10,
    }


def tiny_config(tokens: TinyTokens) -> Any:
    """A ResNet of four blocks, one encoder and two decoder layers of width 32, ten queries."""
    from transformers import DetrConfig

    del tokens
    return DetrConfig(**_small())


def tiny_conditional_config(tokens: TinyTokens) -> Any:
    """As small as the other."""
    from transformers import ConditionalDetrConfig

    del tokens
    return ConditionalDetrConfig(**_small())


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

    del config, tokenizer
    return DetrImageProcessorPil(size={"shortest_edge": TINY_SIDE_PX, "longest_edge": 2 * TINY_SIDE_PX})


def tiny_conditional_processor(config: Any, tokenizer: Any) -> Any:
    from transformers.models.conditional_detr.image_processing_pil_conditional_detr import (
        ConditionalDetrImageProcessorPil,
    )

    del config, tokenizer
    size = {"shortest_edge": TINY_SIDE_PX, "longest_edge": 2 * TINY_SIDE_PX}
    return ConditionalDetrImageProcessorPil(size=size)


DETR: Final = Family(
    name="detr",
    task=Task.DETECTION,
    model_types=("detr",),
    auto_class="AutoModelForObjectDetection",
    towers=_TOWERS,
    lora_targets={Tower.DECODER: _LINEAR_LAYERS},
    load_processor=load_image_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    detector=Detector(PerQueryAndBox(), masked=True),
    quirks=(_TIMM,),
)
CONDITIONAL_DETR: Final = Family(
    name="conditional-detr",
    task=Task.DETECTION,
    model_types=("conditional_detr",),
    auto_class="AutoModelForObjectDetection",
    towers=_TOWERS,
    lora_targets={Tower.DECODER: _LINEAR_LAYERS},
    load_processor=load_image_processor,
    tiny_config=tiny_conditional_config,
    tiny_processor=tiny_conditional_processor,
    detector=Detector(PerBox(), masked=True),
    quirks=(_TIMM,),
)
