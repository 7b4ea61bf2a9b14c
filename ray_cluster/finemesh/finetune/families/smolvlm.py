"""SmolVLM and SmolVLM2 (https://arxiv.org/abs/2504.05299): Idefics3 made small."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from finemesh.core.spec.finetune import Task
from finemesh.finetune.families import idefics3
from finemesh.finetune.families.family import Family, TinyTokens
from finemesh.finetune.families.still import load_still, without_video


def load_processor(folder: Path) -> Any:
    from transformers import SmolVLMProcessor

    return load_still(SmolVLMProcessor, folder)


def tiny_config(tokens: TinyTokens) -> Any:
    from transformers import SmolVLMConfig

    return SmolVLMConfig(**idefics3.tiny_sub_configs(tokens))


def tiny_processor(config: Any, tokenizer: Any) -> Any:
    from transformers import SmolVLMProcessor
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    return without_video(SmolVLMProcessor)(
        SmolVLMImageProcessorPil(**idefics3.tiny_sizes_px()),
        tokenizer,
        image_seq_len=idefics3.tiny_tile_tokens(config),
        chat_template=tokenizer.chat_template,
    )


SMOLVLM: Final = Family(
    name="smolvlm",
    task=Task.VISION_LANGUAGE,
    model_types=("smolvlm",),
    auto_class="AutoModelForImageTextToText",
    towers=idefics3.TOWERS,
    lora_targets=idefics3.LORA_TARGETS,
    connector="connector",
    text_config="text_config",
    image_features=idefics3.image_features,
    see=idefics3.see,
    join=idefics3.join,
    load_processor=load_processor,
    tiny_config=tiny_config,
    tiny_processor=tiny_processor,
    tiny_tokens=idefics3.TINY_TOKENS,
    quirks=(
        *idefics3.IDEFICS3.quirks,
        "The first SmolVLM says idefics3 in its config.json, and is one.",
        "Its processor needs the package num2words.",
    ),
)
