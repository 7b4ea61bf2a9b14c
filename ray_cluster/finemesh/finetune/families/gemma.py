"""Gemma (https://arxiv.org/abs/2403.08295, https://arxiv.org/abs/2408.00118, https://arxiv.org/abs/2503.19786).

Gemma 2 caps its attention scores, which no fused kernel of torch computes: it has a family of its own.
"""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.auto import load_tokenizer
from finemesh.finetune.families.family import Family, TinyTokens
from finemesh.finetune.families.llama import LINEAR_LAYERS, tiny_sizes

_TIED: Final = "input and output embeddings are one matrix: full tuning of the language tower moves both"
_ROLES: Final = "the chat templates of Gemma 1 and 2 refuse a system role, TEMPLATE_REFUSED"


def tiny_config(tokens: TinyTokens) -> Any:
    """Gemma 3's language model: the first layer sees a window of 8 tokens, the second all."""
    from transformers import Gemma3TextConfig

    layers = ["sliding_attention", "full_attention"]
    sizes = tiny_sizes(tokens, num_key_value_heads=2)
    return Gemma3TextConfig(
        **sizes, head_dim=16, query_pre_attn_scalar=16, sliding_window=8, layer_types=layers
    )


def tiny_gemma2_config(tokens: TinyTokens) -> Any:
    """Two layers, of which the first sees a window of 8 tokens, with capped scores and logits."""
    from transformers import Gemma2Config

    sizes = tiny_sizes(tokens, num_key_value_heads=2)
    return Gemma2Config(
        **sizes, head_dim=16, query_pre_attn_scalar=16, sliding_window=8, attn_logit_softcapping=2.0
    )


GEMMA: Final = Family(
    name="gemma",
    task=Task.LANGUAGE,
    model_types=("gemma", "gemma3_text"),
    auto_class="AutoModelForCausalLM",
    towers={Tower.LANGUAGE: ("model", "lm_head")},
    lora_targets={Tower.LANGUAGE: LINEAR_LAYERS},
    load_processor=load_tokenizer,
    tiny_config=tiny_config,
    quirks=(_TIED, _ROLES),
)

GEMMA2: Final = Family(
    name="gemma2",
    task=Task.LANGUAGE,
    model_types=("gemma2",),
    auto_class="AutoModelForCausalLM",
    towers={Tower.LANGUAGE: ("model", "lm_head")},
    lora_targets={Tower.LANGUAGE: LINEAR_LAYERS},
    load_processor=load_tokenizer,
    tiny_config=tiny_gemma2_config,
    plain_attention="eager",
    quirks=(_TIED, _ROLES, "its attention scores are capped, so no fused attention serves: it trains slower"),
)
