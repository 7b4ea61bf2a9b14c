"""LLaVA-1.6, also called LLaVA-NeXT (https://llava-vl.github.io/blog/2024-01-30-llava-next): LLaVA-1.5 that
also sees a picture in tiles, on the grid that fits its shape best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from finemesh.core.spec.boxes import BoxConvention
from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families import llava
from finemesh.finetune.families.family import Family, Picture, Seen, TinyTokens
from finemesh.finetune.families.llama import tiny_sizes

if TYPE_CHECKING:
    from PIL import Image

TINY_SIDE_PX: Final = 32
TINY_GRIDS: Final = ((32, 64), (64, 32), (64, 64))


def see(processor: Any, image: Image.Image) -> Seen:
    """`pixel_values` (tiles, channels, height, width), the whole picture first, and `image_sizes` (1, 2)."""
    output = processor.image_processor(image, return_tensors="np")
    tensors = {"pixel_values": output["pixel_values"][0], "image_sizes": output["image_sizes"]}
    return Seen(tensors, processor.replace_image_token(output, image_idx=0))


def image_features(config: Any, picture: Picture) -> int:
    """Placeholders of a picture: patches of the whole, and patches of the tiles without the border that fills
    their grid, each of their rows with a token that ends it.
    """
    from transformers.image_processing_utils import select_best_resolution

    height_px, width_px = (int(side) for side in picture["image_sizes"][0])
    side_px, patch_px = config.vision_config.image_size, config.vision_config.patch_size
    patches = side_px // patch_px
    grid_px = select_best_resolution((height_px, width_px), config.image_grid_pinpoints)
    rows, columns = (side // side_px * patches for side in grid_px)
    if width_px / height_px > columns / rows:  # the border is above and below
        rows -= 2 * ((rows - int(round(height_px * (columns / width_px), 7))) // 2)
    else:
        columns -= 2 * ((columns - int(round(width_px * (rows / height_px), 7))) // 2)
    whole = patches**2 + (config.vision_feature_select_strategy != "default")
    return whole + rows * (columns + 1)


def tiny_config(tokens: TinyTokens) -> Any:
    """Two layers of width 64 on each side; pictures of 4 patches, in 2 or 4 tiles."""
    from transformers import LlavaNextConfig

    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": TINY_SIDE_PX,
        "patch_size": TINY_SIDE_PX // 2,
        "projection_dim": 64,
    }
    return LlavaNextConfig(
        vision_config=vision,
        text_config={"model_type": "mistral", **tiny_sizes(tokens, num_key_value_heads=2)},
        image_token_index=tokens.image_id,
        image_grid_pinpoints=[list(grid) for grid in TINY_GRIDS],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": TINY_SIDE_PX},
        crop_size={"height": TINY_SIDE_PX, "width": TINY_SIDE_PX},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )


LLAVA_NEXT: Final = Family(
    name="llava-next",
    task=Task.VISION_LANGUAGE,
    model_types=("llava_next",),
    auto_class="AutoModelForImageTextToText",
    towers={
        **llava.LLAVA.towers,
        Tower.CONNECTOR: ("model.multi_modal_projector", "model.image_newline"),
    },
    lora_targets=llava.LLAVA.lora_targets,
    connector="multi_modal_projector",
    text_config="text_config",
    image_features=image_features,
    see=see,
    load_processor=llava.load_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    box_convention=BoxConvention.UNIT,
    quirks=("A picture becomes up to five tiles: some 2,900 tokens, where LLaVA-1.5 makes 576.",),
)
