"""YOLOS (https://arxiv.org/abs/2106.00666): a vision transformer with detection tokens, and nothing else."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto_images import load_image_processor
from finemesh.finetune.families.detector import Detector, PerQueryAndBox
from finemesh.finetune.families.family import Family, TinyTokens

TINY_SIDE_PX: Final = 64


def tiny_config(tokens: TinyTokens) -> Any:
    """Two layers of width 64, ten detection tokens."""
    from transformers import YolosConfig

    del tokens
    return YolosConfig(
        initializer_range=0.12,  # about 1 / sqrt(width)
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=[TINY_SIDE_PX, TINY_SIDE_PX],
        patch_size=8,
        num_detection_tokens=10,
        use_mid_position_embeddings=False,
    )


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

    del config, tokenizer
    return YolosImageProcessorPil(size={"shortest_edge": TINY_SIDE_PX, "longest_edge": 2 * TINY_SIDE_PX})


YOLOS: Final = Family(
    name="yolos",
    task=Task.DETECTION,
    model_types=("yolos",),
    auto_class="AutoModelForObjectDetection",
    towers={Tower.VISION: ("vit",), Tower.HEAD: ("class_labels_classifier", "bbox_predictor")},
    lora_targets={Tower.VISION: ("query", "key", "value", "dense")},
    load_processor=load_image_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    detector=Detector(PerQueryAndBox(), masked=False),
    quirks=(
        "It is not told where padding begins: pictures of one shape train best.",
        "It finds at most as many objects as it has detection tokens, 100 in the published models.",
    ),
)
