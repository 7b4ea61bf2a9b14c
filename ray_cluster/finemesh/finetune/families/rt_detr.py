"""RT-DETRv2 (https://arxiv.org/abs/2407.17140): a detector for real time on pictures of one size."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto_images import load_image_processor
from finemesh.finetune.families.detector import Detector, PerBox
from finemesh.finetune.families.family import Family, TinyTokens

TINY_SIDE_PX: Final = 64
TOWERS: Final = {
    Tower.VISION: ("model.backbone",),
    Tower.DECODER: (
        "model.encoder_input_proj",
        "model.encoder",
        "model.enc_output",
        "model.decoder_input_proj",
        "model.decoder.layers",
        "model.decoder.query_pos_head",
        # D-FINE has these two besides.
        "model.decoder.lqe_layers",
        "model.decoder.pre_bbox_head",
    ),
    Tower.HEAD: (
        "model.decoder.class_embed",
        "model.decoder.bbox_embed",
        "model.enc_score_head",
        "model.enc_bbox_head",
        "model.denoising_class_embed",
    ),
}
DENOISING: Final = (
    "In training it also denoises boxes, as many copies as the fullest picture of a batch leaves room "
    "for: how a step is cut into micro batches changes that. num_denoising 0 in its config switches it off."
)


def small_transformer() -> dict[str, Any]:
    """One encoder and two decoder layers of width 32, twenty queries."""
    return {
        "initializer_range": 0.15,  # about 1 / sqrt(width), as wide layers have it by 0.01
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [24, 32, 48],
        "encoder_ffn_dim": 64,
        "encoder_attention_heads": 4,
        "hidden_expansion": 0.5,
        "d_model": 32,
        "num_queries": 20,
        "num_denoising": 10,
        "decoder_in_channels": [32, 32, 32],
        "decoder_ffn_dim": 64,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
    }


def tiny_config(tokens: TinyTokens) -> Any:
    """A ResNet of four blocks before `small_transformer`."""
    from transformers import RTDetrResNetConfig, RTDetrV2Config

    del tokens
    make: Any = RTDetrResNetConfig  # its fields are not all known to type checkers
    backbone = make(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_indices=[2, 3, 4],
    )
    return RTDetrV2Config(backbone_config=backbone, decoder_n_points=2, **small_transformer())


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    del config, tokenizer
    return RTDetrImageProcessorPil(size={"height": TINY_SIDE_PX, "width": TINY_SIDE_PX})


RT_DETR_V2: Final = Family(
    name="rt-detr-v2",
    task=Task.DETECTION,
    model_types=("rt_detr_v2",),
    auto_class="AutoModelForObjectDetection",
    towers=TOWERS,
    load_processor=load_image_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    detector=Detector(PerBox(), masked=True, adapts=False),
    quirks=(DENOISING,),
)
