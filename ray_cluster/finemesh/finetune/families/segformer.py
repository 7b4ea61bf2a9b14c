"""SegFormer (https://arxiv.org/abs/2105.15203): a transformer in stages, a decoder of linear layers."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto_images import load_image_processor
from finemesh.finetune.families.family import Family, TinyTokens

TINY_SIDE_PX: Final = 64


def tiny_config(_tokens: TinyTokens) -> Any:
    """Four stages of one block, up to 48 wide."""
    from transformers import SegformerConfig

    return SegformerConfig(
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 3],
        decoder_hidden_size=32,
    )


def tiny_processor(_config: Any, _tokenizer: Any) -> Any:
    """Squares of 64 pixels."""
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    return SegformerImageProcessorPil(size={"height": TINY_SIDE_PX, "width": TINY_SIDE_PX})


SEGFORMER: Final = Family(
    name="segformer",
    task=Task.SEMANTIC_SEGMENTATION,
    model_types=("segformer",),
    auto_class="AutoModelForSemanticSegmentation",
    towers={Tower.VISION: ("segformer",), Tower.HEAD: ("decode_head",)},
    class_layers=("decode_head.classifier",),
    load_processor=load_image_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    quirks=(
        "Pictures are squashed to the size of its processor, whatever their shape.",
        "Its head has a batch norm: how a step is cut into micro batches matters a little.",
    ),
)
