"""Mistral (https://arxiv.org/abs/2310.06825): Llama's shape with attention in a sliding window."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto import load_tokenizer
from finemesh.finetune.families.family import Family, TinyTokens
from finemesh.finetune.families.llama import LINEAR_LAYERS, tiny_sizes


def tiny_config(tokens: TinyTokens) -> Any:
    """Two layers that see a window of 8 tokens."""
    from transformers import MistralConfig

    return MistralConfig(**tiny_sizes(tokens, num_key_value_heads=2), sliding_window=8)


MISTRAL: Final = Family(
    name="mistral",
    task=Task.LANGUAGE,
    model_types=("mistral",),
    auto_class="AutoModelForCausalLM",
    towers={Tower.LANGUAGE: ("model", "lm_head")},
    lora_targets={Tower.LANGUAGE: LINEAR_LAYERS},
    load_processor=load_tokenizer,
    tiny_config=tiny_config,
)
