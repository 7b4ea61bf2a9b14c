"""Llama (https://arxiv.org/abs/2407.21783) and those that share its architecture."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto import load_tokenizer
from finemesh.finetune.families.family import Family, TinyTokens

LINEAR_LAYERS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def tiny_sizes(tokens: TinyTokens, *, num_key_value_heads: int = 4) -> dict[str, Any]:
    """Two layers of width 64. The weights start wide: a frozen head of small ones says nothing sharply."""
    return {
        "vocab_size": tokens.vocab_size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": num_key_value_heads,
        "max_position_embeddings": 2048,
        "initializer_range": 0.1,
        "bos_token_id": tokens.bos_id,
        "eos_token_id": tokens.eos_id,
        "pad_token_id": tokens.pad_id,
        "tie_word_embeddings": False,
    }


def tiny_llama_config(tokens: TinyTokens) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**tiny_sizes(tokens))


LLAMA: Final = Family(
    name="llama",
    task=Task.LANGUAGE,
    model_types=("llama",),
    auto_class="AutoModelForCausalLM",
    towers={Tower.LANGUAGE: ("model", "lm_head")},
    lora_targets={Tower.LANGUAGE: LINEAR_LAYERS},
    load_processor=load_tokenizer,
    tiny_config=tiny_llama_config,
)
