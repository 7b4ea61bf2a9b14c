"""Classifiers of pictures by transformers' auto class: whatever ends in a layer called `classifier`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.family import FROM_FOLDER, Family, TinyTokens

TINY_SIDE_PX: Final = 32


def load_image_processor(folder: Path) -> Any:
    """The image processor of a local folder, the one that works with PIL."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, **FROM_FOLDER, backend="pil")


def tiny_image_processor(_config: Any, _tokenizer: Any) -> Any:
    """Squares of 32 pixels, each channel from -1 to 1."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": TINY_SIDE_PX, "width": TINY_SIDE_PX})


def tiny_vit_config(_tokens: TinyTokens) -> Any:
    """Two layers of width 32 over 16 patches."""
    from transformers import ViTConfig

    return ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=TINY_SIDE_PX,
        patch_size=8,
    )


def tiny_convnext_config(_tokens: TinyTokens) -> Any:
    """Two stages of one block."""
    from transformers import ConvNextConfig

    return ConvNextConfig(num_stages=2, hidden_sizes=[16, 32], depths=[1, 1], image_size=TINY_SIDE_PX)


def tiny_convnext_v2_config(_tokens: TinyTokens) -> Any:
    """Two stages of one block."""
    from transformers import ConvNextV2Config

    return ConvNextV2Config(num_stages=2, hidden_sizes=[16, 32], depths=[1, 1], image_size=TINY_SIDE_PX)


def tiny_swin_config(_tokens: TinyTokens) -> Any:
    """Two stages of one block over 64 patches."""
    from transformers import SwinConfig

    return SwinConfig(
        embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, patch_size=4, image_size=TINY_SIDE_PX
    )


def _classifier(name: str, tiny_config: Callable[[TinyTokens], Any] | None = None) -> Family:
    return Family(
        name=name,
        task=Task.IMAGE_CLASSIFICATION,
        model_types=(name,) if tiny_config else (),
        auto_class="AutoModelForImageClassification",
        towers={Tower.HEAD: ("classifier",), Tower.VISION: ("",)},
        class_layers=("classifier",),
        load_processor=load_image_processor,
        tiny_config=tiny_config,
        tiny_processor=tiny_image_processor if tiny_config else None,
    )


# https://arxiv.org/abs/2010.11929, https://arxiv.org/abs/2201.03545, https://arxiv.org/abs/2301.00808,
# https://arxiv.org/abs/2103.14030
VIT: Final = _classifier("vit", tiny_vit_config)
CONVNEXT: Final = _classifier("convnext", tiny_convnext_config)
CONVNEXT_V2: Final = _classifier("convnextv2", tiny_convnext_v2_config)
SWIN: Final = _classifier("swin", tiny_swin_config)
AUTO_IMAGES: Final = _classifier("auto-images")
