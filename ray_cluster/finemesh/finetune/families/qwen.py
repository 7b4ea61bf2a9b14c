"""Qwen2, 2.5 and 3, the dense models (https://arxiv.org/abs/2407.10671, https://arxiv.org/abs/2505.09388)."""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto import load_tokenizer
from finemesh.finetune.families.family import Family, TinyTokens
from finemesh.finetune.families.llama import LINEAR_LAYERS, tiny_sizes


def tiny_config(tokens: TinyTokens) -> Any:
    """Qwen3 of two layers, four query heads on two key heads, whose last layer sees but a window."""
    from transformers import Qwen3Config

    return Qwen3Config(
        **tiny_sizes(tokens, num_key_value_heads=2),
        head_dim=16,
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=1,
    )


QWEN: Final = Family(
    name="qwen",
    task=Task.LANGUAGE,
    model_types=("qwen2", "qwen3"),
    auto_class="AutoModelForCausalLM",
    towers={Tower.LANGUAGE: ("model", "lm_head")},
    lora_targets={Tower.LANGUAGE: LINEAR_LAYERS},
    load_processor=load_tokenizer,
    tiny_config=tiny_config,
    quirks=("Qwen3's chat template drops the thoughts of earlier turns: TEMPLATE_NOT_INCREMENTAL",),
)
