"""Idefics3 (https://arxiv.org/abs/2408.12637): a SigLIP vision tower that sees a picture in tiles and whole,
a connector that folds patches together, a Llama.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families import family, llava
from finemesh.finetune.families.family import Family, Picture, Seen, TinyTokens
from finemesh.finetune.families.llama import LINEAR_LAYERS, tiny_sizes

if TYPE_CHECKING:
    from PIL import Image

TOWERS: Final = {
    Tower.LANGUAGE: ("model.text_model", "lm_head"),
    Tower.VISION: ("model.vision_model",),
    Tower.CONNECTOR: ("model.connector",),
}
LORA_TARGETS: Final = {
    Tower.LANGUAGE: LINEAR_LAYERS,
    Tower.VISION: ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    Tower.CONNECTOR: ("proj",),
}
# A tiny picture is cut into up to 2 x 2 tiles of 32 px, each of which becomes 4 tokens.
TINY_TILE_PX: Final = 32
TINY_PATCH_PX: Final = 8
TINY_SCALE: Final = 2
TINY_TOKENS: Final = (
    *("<fake_token_around_image>", "<end_of_utterance>", "<global-img>"),
    *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
)


def see(processor: Any, image: Image.Image) -> Seen:
    """`pixel_values` (tiles, channels, height, width), the whole picture last, and `pixel_attention_mask`
    (tiles, height, width).
    """
    output = processor.image_processor(image, return_tensors="np", return_row_col_info=True)
    tensors = {name: output[name][0] for name in ("pixel_values", "pixel_attention_mask")}
    return Seen(tensors, processor.replace_image_token(output, image_idx=0))


def join(config: Any, pictures: Sequence[Picture], extras: Sequence[Picture]) -> dict[str, npt.NDArray[Any]]:
    """All tiles of a batch, as if they were of one row: the model reads them in the order of the tokens."""
    return {name: tiles[None] for name, tiles in family.join(config, pictures, extras).items()}


def image_features(config: Any, picture: Picture) -> int:
    """Placeholders of a picture: the patches of each tile, `scale_factor` squared of them in one."""
    tiles, _, height_px, width_px = picture["pixel_values"].shape
    patch_px = config.vision_config.patch_size
    return tiles * (height_px // patch_px) * (width_px // patch_px) // config.scale_factor**2


def tiny_sub_configs(tokens: TinyTokens) -> dict[str, Any]:
    """Two layers of width 64 on each side."""
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": TINY_TILE_PX,
        "patch_size": TINY_PATCH_PX,
    }
    return {
        "vision_config": vision,
        "text_config": {"model_type": "llama", **tiny_sizes(tokens, num_key_value_heads=2)},
        "image_token_id": tokens.image_id,
        "scale_factor": TINY_SCALE,
        "tie_word_embeddings": False,
    }


def tiny_config(tokens: TinyTokens) -> Any:
    from transformers import Idefics3Config

    return Idefics3Config(**tiny_sub_configs(tokens))


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return Idefics3Processor(
        Idefics3ImageProcessorPil(**tiny_sizes_px()),
        tokenizer,
        image_seq_len=tiny_tile_tokens(config),
        chat_template=tokenizer.chat_template,
    )


def tiny_sizes_px() -> dict[str, Any]:
    return {"size": {"longest_edge": 2 * TINY_TILE_PX}, "max_image_size": {"longest_edge": TINY_TILE_PX}}


def tiny_tile_tokens(config: Any) -> int:
    patches = config.vision_config.image_size // config.vision_config.patch_size
    return (patches // config.scale_factor) ** 2


IDEFICS3: Final = Family(
    name="idefics3",
    task=Task.VISION_LANGUAGE,
    model_types=("idefics3",),
    auto_class="AutoModelForImageTextToText",
    towers=TOWERS,
    lora_targets=LORA_TARGETS,
    connector="connector",
    text_config="text_config",
    image_features=image_features,
    see=see,
    join=join,
    load_processor=llava.load_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    tiny_tokens=TINY_TOKENS,
    quirks=(
        "Its language model is called text_model, not language_model.",
        "Small pictures are enlarged too, up to 17 tiles of 169 tokens: see size.longest_edge.",
    ),
)
