"""InstructBLIP (https://arxiv.org/abs/2305.06500): a frozen vision tower, a Q-Former that reads a picture
with the instruction in mind and hands 32 vectors on, a language model that continues a text (Vicuna).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.family import FROM_FOLDER, Family, Picture, Seen, TinyTokens
from finemesh.finetune.families.llama import LINEAR_LAYERS, tiny_sizes

if TYPE_CHECKING:
    from PIL import Image

TINY_SIDE_PX: Final = 32
TINY_QUERIES: Final = 4


def see(processor: Any, image: Image.Image) -> Seen:
    """`pixel_values` (1, channels, height, width), and as many placeholders as the Q-Former has queries."""
    output = processor.image_processor(image, return_tensors="np")
    return Seen(
        {"pixel_values": output["pixel_values"]}, str(processor.image_token) * processor.num_query_tokens
    )


def image_features(config: Any, picture: Picture) -> int:
    """Placeholders of a picture: the queries of the Q-Former, whatever its size."""
    return config.num_query_tokens * len(picture["pixel_values"])


def extras(processor: Any, messages: Sequence[Any]) -> Picture:
    """What the Q-Former reads beside each picture: the words of the message that shows it, as
    `qformer_input_ids` (pictures, tokens) and their mask. Never an answer.
    """
    told: list[str] = []
    for message in messages:
        words = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        told += [words for part in message["content"] if part["type"] == "image"]
    output = processor.qformer_tokenizer(told, truncation=True, padding=True, return_tensors="np")
    return {"qformer_input_ids": output["input_ids"], "qformer_attention_mask": output["attention_mask"]}


def join(config: Any, pictures: Sequence[Picture], extras: Sequence[Picture]) -> dict[str, npt.NDArray[Any]]:
    """The pictures of a batch beside what the Q-Former reads. The model wants both even where nothing is
    shown: then they are a blank, whose features find no placeholder.
    """
    side_px = config.vision_config.image_size
    blank = [{"pixel_values": np.zeros((1, 3, side_px, side_px), np.float32)}]
    pixels = np.concatenate([each["pixel_values"] for each in pictures or blank])
    words = extras or [dict.fromkeys(_WORDS, np.ones((1, 1), np.int64))]
    width = max(each["qformer_input_ids"].shape[1] for each in words)
    padded = {name: np.concatenate([_padded(each[name], width) for each in words]) for name in _WORDS}
    return {"pixel_values": pixels, **padded}


_WORDS: Final = ("qformer_input_ids", "qformer_attention_mask")


def _padded(part: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    return np.pad(part, ((0, 0), (0, width - part.shape[1])))


def refuse(config: Mapping[str, Any]) -> str:
    """Why not: a language model that is no decoder alone."""
    text = config.get("text_config", {}).get("model_type", "")
    return f"its {text} is an encoder and a decoder: take one with Vicuna" if text == "t5" else ""


def load_processor(folder: Path) -> Any:
    """The processor of a local folder; the chat template lies with its tokenizer, if anywhere."""
    from transformers import InstructBlipProcessor

    processor = InstructBlipProcessor.from_pretrained(folder, **FROM_FOLDER, backend="pil")
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    return processor


def tiny_config(tokens: TinyTokens) -> Any:
    """Two layers of width 64 in each part, and four queries."""
    from transformers import InstructBlipConfig

    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.1,
    }
    return InstructBlipConfig(
        vision_config={**sizes, "image_size": TINY_SIDE_PX, "patch_size": TINY_SIDE_PX // 4},
        qformer_config={**sizes, "vocab_size": tokens.vocab_size, "cross_attention_frequency": 1},
        text_config={"model_type": "llama", **tiny_sizes(tokens)},
        num_query_tokens=TINY_QUERIES,
        image_token_index=tokens.image_id,
        initializer_range=0.1,
    )


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers import InstructBlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    side_px = config.vision_config.image_size
    images = BlipImageProcessorPil(size={"height": side_px, "width": side_px})
    return InstructBlipProcessor(images, tokenizer, tokenizer, num_query_tokens=config.num_query_tokens)


INSTRUCTBLIP: Final = Family(
    name="instructblip",
    task=Task.VISION_LANGUAGE,
    model_types=("instructblip",),
    auto_class="AutoModelForImageTextToText",
    towers={
        Tower.LANGUAGE: ("language_model",),
        Tower.VISION: ("vision_model",),
        Tower.CONNECTOR: ("qformer", "query_tokens", "language_projection"),
    },
    lora_targets={
        Tower.LANGUAGE: LINEAR_LAYERS,
        Tower.VISION: ("qkv", "projection", "fc1", "fc2"),
        Tower.CONNECTOR: ("query", "key", "value", "dense"),
    },
    connector="language_projection",
    text_config="text_config",
    image_features=image_features,
    see=see,
    join=join,
    extras=extras,
    refuse=refuse,
    load_processor=load_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    quirks=(
        "It has no chat template: put one into the folder of its tokenizer.",
        "The Q-Former reads the words of the message that shows a picture, and never the answer.",
        "Those with a T5 are not taken: an encoder and a decoder learn otherwise.",
    ),
)
