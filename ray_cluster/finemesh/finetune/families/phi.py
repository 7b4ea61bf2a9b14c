"""Phi-3 and Phi-4 mini (https://arxiv.org/abs/2404.14219): projections come fused, several to a layer."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto import load_tokenizer
from finemesh.finetune.families.family import Family, TinyTokens
from finemesh.finetune.families.llama import tiny_sizes


def tiny_config(tokens: TinyTokens) -> Any:
    from transformers import Phi3Config

    return Phi3Config(**tiny_sizes(tokens, num_key_value_heads=2), original_max_position_embeddings=2048)


PHI: Final = Family(
    name="phi",
    task=Task.LANGUAGE,
    model_types=("phi3",),
    auto_class="AutoModelForCausalLM",
    towers={Tower.LANGUAGE: ("model", "lm_head")},
    lora_targets={Tower.LANGUAGE: ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")},
    load_processor=load_tokenizer,
    tiny_config=tiny_config,
    quirks=("query, key and value are one layer, qkv_proj: adapters of q_proj and v_proj do not fit",),
)
