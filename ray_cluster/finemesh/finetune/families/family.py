"""What the loop needs to know of a kind of model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finemesh.core.spec.boxes import BoxConvention
from finemesh.core.spec.finetune import Task, Tower


@dataclass(frozen=True, slots=True)
class TinyTokens:
    """The vocabulary of a tiny model: its size and the ids that a config names."""

    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    image_id: int


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model, as data and hooks.

    Attributes:
        name: how people call it.
        task: what it is trained for here.
        model_types: `model_type` values of config.json; empty takes any.
        auto_class: the transformers class that loads it.
        towers: module name prefixes of each tower, for freezing and for LoRA; the first that fits decides.
        lora_targets: names of the linear layers within a tower that LoRA adapts by default; empty adapts them
            all.
        class_layers: module names of the layers that speak of classes, drawn anew for others.
        connector: module name of the part between vision and language.
        text_config: name of the language model's sub-config, where it has one.
        image_features: (config, pixel_values of one image) -> number of placeholder tokens the model will
            fill.
        load_processor: folder -> (processor or tokenizer); the PIL image processors, since torchvision may be
            absent.
        tiny_config: a small config for tests and the demo, over a vocabulary.
        tiny_processor: (config, tokenizer) -> what is saved beside the tiny model.
        box_convention: how its texts write boxes, where it was taught any.
        plain_attention: transformers' name of its attention over padded rows.
        quirks: what surprises people in its processor or its weights, a sentence each.
    """

    name: str
    task: Task
    model_types: tuple[str, ...]
    auto_class: str
    towers: Mapping[Tower, tuple[str, ...]]
    lora_targets: Mapping[Tower, tuple[str, ...]] = field(default_factory=dict[Tower, tuple[str, ...]])
    class_layers: tuple[str, ...] = ()
    connector: str = ""
    text_config: str = ""
    image_features: Callable[[Any, Any], int] | None = None
    load_processor: Callable[[Path], Any] | None = None
    tiny_config: Callable[[TinyTokens], Any] | None = None
    tiny_processor: Callable[[Any, Any], Any] | None = None
    box_convention: BoxConvention | None = None
    plain_attention: str = "sdpa"
    quirks: tuple[str, ...] = ()

    def takes(self, model_type: str) -> bool:
        return not self.model_types or model_type in self.model_types
