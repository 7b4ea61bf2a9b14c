"""Mask2Former (https://arxiv.org/abs/2112.01527): queries that each find the mask and class of one object."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto_images import load_image_processor
from finemesh.finetune.families.family import Family, TinyTokens

TINY_SIDE_PX: Final = 64


def tiny_config(_tokens: TinyTokens) -> Any:
    """Ten queries over a Swin of four stages of one block."""
    from transformers import Mask2FormerConfig, SwinConfig

    backbone = SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[2, 2, 2, 2], window_size=4, image_size=TINY_SIDE_PX
    )
    backbone.out_features = ["stage1", "stage2", "stage3", "stage4"]
    return Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=2,
        num_queries=10,
        train_num_points=256,
    )


def tiny_processor(_config: Any, _tokenizer: Any) -> Any:
    """The shorter side 64 pixels, the longer at most 96."""
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    size = {"shortest_edge": TINY_SIDE_PX, "longest_edge": 96}
    return Mask2FormerImageProcessorPil(size=size, size_divisor=32)


MASK2FORMER: Final = Family(
    name="mask2former",
    task=Task.INSTANCE_SEGMENTATION,
    model_types=("mask2former",),
    auto_class="AutoModelForUniversalSegmentation",
    towers={
        Tower.VISION: ("model.pixel_level_module.encoder",),
        Tower.HEAD: (
            "model.pixel_level_module.decoder",
            "model.transformer_module",
            "class_predictor",
        ),
    },
    class_layers=("class_predictor",),
    load_processor=load_image_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    quirks=(
        "Its loss is taken at random points of the masks: the same step cut otherwise draws others.",
        "It finds at most as many objects in a picture as it has queries.",
    ),
)
