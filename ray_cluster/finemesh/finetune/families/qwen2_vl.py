"""Qwen2-VL (https://arxiv.org/abs/2409.12191): a vision tower that takes pictures at their own size, a merger
of 2 x 2 patches, a Qwen2 whose rotary positions have three axes: time, height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from finemesh.core.spec.boxes import BoxConvention
from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.family import Family, Picture, Seen, TinyTokens
from finemesh.finetune.families.llama import LINEAR_LAYERS, tiny_sizes
from finemesh.finetune.families.still import load_still, without_video

if TYPE_CHECKING:
    from PIL import Image

# The patch embedding is no linear layer: it is trained with the tower and never adapted.
TOWERS: Final = {
    Tower.LANGUAGE: ("model.language_model", "lm_head"),
    Tower.VISION: ("model.visual.patch_embed", "model.visual.blocks"),
    Tower.CONNECTOR: ("model.visual.merger",),
}
IMAGE: Final = "<|image_pad|>"
TINY_TOKENS: Final = ("<|vision_start|>", IMAGE, "<|vision_end|>", "<|video_pad|>")
TINY_IMAGE: Final = "".join(TINY_TOKENS[:3])
# A tiny picture of 32 x 32 px has 4 x 4 patches, merged to 2 x 2 tokens.
TINY_PATCH_SIZE_PX: Final = 8
TINY_PIXELS: Final = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
TINY_ROPE: Final = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}


def see(processor: Any, image: Image.Image) -> Seen:
    """`pixel_values` (patches, values of each), `image_grid_thw` (1, 3): patches by time, height, width."""
    output = processor.image_processor(image, return_tensors="np")
    tensors = {name: output[name] for name in ("pixel_values", "image_grid_thw")}
    return Seen(tensors, processor.replace_image_token(output, image_idx=0))


def image_features(config: Any, picture: Picture) -> int:
    """Placeholders of a picture: its patches, as many as `spatial_merge_size` squared to one."""
    return int(picture["image_grid_thw"].prod()) // config.vision_config.spatial_merge_size**2


def positions(
    config: Any, ids_T: npt.NDArray[np.int64], pictures: Sequence[Picture]
) -> npt.NDArray[np.int64]:
    """Positions (3, T) of one sequence (section 2.1 of the paper): text counts on all axes alike; the tokens
    of a picture take their row and column beside the time at which it begins; text goes on after the last.
    """
    merged = config.vision_config.spatial_merge_size
    positions_3T = np.empty((3, len(ids_T)), np.int64)
    placeholders = np.flatnonzero(ids_T == config.image_token_id)
    token = position = used = 0
    for picture in pictures:
        grid = picture["image_grid_thw"][0] // (1, merged, merged)
        start, count = int(placeholders[used]), int(grid.prod())
        position += start - token
        positions_3T[:, token:start] = np.arange(position - (start - token), position)
        positions_3T[:, start : start + count] = position + np.indices(grid).reshape(3, -1)
        token, position, used = start + count, position + int(grid[1:].max()), used + count
    positions_3T[:, token:] = np.arange(position, position + len(ids_T) - token)
    return positions_3T


def load_processor(folder: Path) -> Any:
    from transformers import Qwen2VLProcessor

    return load_still(Qwen2VLProcessor, folder)


def tiny_config(tokens: TinyTokens) -> Any:
    """Two layers of width 64 on each side, four query heads on two key heads."""
    from transformers import Qwen2VLConfig

    vision = {
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": 64,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": TINY_PATCH_SIZE_PX,
    }
    text = {**tiny_sizes(tokens, num_key_value_heads=2), "rope_parameters": TINY_ROPE}
    return Qwen2VLConfig(vision_config=vision, text_config=text, **tiny_ids(tokens))


def tiny_ids(tokens: TinyTokens) -> dict[str, Any]:
    start, image, end, video = (tokens.special[token] for token in TINY_TOKENS)
    return {
        "image_token_id": image,
        "video_token_id": video,
        "vision_start_token_id": start,
        "vision_end_token_id": end,
        "tie_word_embeddings": False,
    }


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers import Qwen2VLProcessor

    images = tiny_image_processor(config)
    return without_video(Qwen2VLProcessor)(images, tokenizer, chat_template=tokenizer.chat_template)


def tiny_image_processor(config: Any) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(patch_size=config.vision_config.patch_size, size=dict(TINY_PIXELS))


QWEN2_VL: Final = Family(
    name="qwen2-vl",
    task=Task.VISION_LANGUAGE,
    model_types=("qwen2_vl",),
    auto_class="AutoModelForImageTextToText",
    towers=TOWERS,
    lora_targets={Tower.LANGUAGE: LINEAR_LAYERS, Tower.VISION: ("qkv", "proj", "fc1", "fc2")},
    connector="merger",
    text_config="text_config",
    image_features=image_features,
    see=see,
    positions=positions,
    load_processor=load_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    tiny_tokens=TINY_TOKENS,
    tiny_image=TINY_IMAGE,
    box_convention=BoxConvention.THOUSANDTHS,
    quirks=(
        "its vision tower fuses queries, keys and values into one layer, qkv",
        "pictures keep their own size: bound it by size.longest_edge (pixels) of its image processor",
    ),
)
