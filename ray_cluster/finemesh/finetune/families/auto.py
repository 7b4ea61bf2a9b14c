"""Causal language models of transformers' auto classes. LoRA adapts every linear layer but the head."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from finemesh.core.spec.finetune import Task, Tower
from finemesh.finetune.families.family import FROM_FOLDER, Family


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a local folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, **FROM_FOLDER)


AUTO_LANGUAGE: Final = Family(
    name="auto",
    task=Task.LANGUAGE,
    model_types=(),
    auto_class="AutoModelForCausalLM",
    towers={Tower.LANGUAGE: ("",)},
    load_processor=load_tokenizer,
)
