"""What can be known of a base model without loading it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from finemesh.core.spec.finetune import Full, Lora, Task, Tower, towers_of

Config = Mapping[str, Any]
_BLOCK_LAYERS: Final = ("num_hidden_layers", "n_layer", "num_layers", "depth")
_MOST_LAYERS: Final = 10_000  # a config may say anything
_NO_LINEAR_LAYERS: Final = ("embed", "wte", "wpe")
_HEADS: Final = ("lm_head", "embed_out", "score")


@dataclass(frozen=True, slots=True)
class FamilyParts:
    """A model family as far as an estimate needs it.

    Attributes:
        prefixes: of the names of modules, by tower; an empty one is the whole model.
        lora_targets: names of the linear layers that LoRA adapts by default; empty means all of a tower.
    """

    name: str
    task: Task
    prefixes: Mapping[Tower, tuple[str, ...]]
    lora_targets: Mapping[Tower, tuple[str, ...]] = field(default_factory=dict[Tower, tuple[str, ...]])


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model.

    Attributes:
        config: content of its config.json.
        tensors: shapes of its weights by name, as the headers of its safetensors files have them; empty if
            those are not at hand. A language model's are computed from its config then.
        processor: content of its preprocessor_config.json; empty if it has none.
        file_bytes: size of its weights on disk; 0 if not known.
    """

    config: Config
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    processor: Config = field(default_factory=dict[str, Any])
    file_bytes: int = 0

    @property
    def text(self) -> Config:
        """The config of its language model."""
        return _inner(self.config, "text_config") or self.config

    @property
    def vision(self) -> Config:
        """The config of what sees: a vision tower, a backbone, or the model itself."""
        return _inner(self.config, "vision_config") or _inner(self.config, "backbone_config") or self.config

    @property
    def picture_px(self) -> tuple[int, int]:
        """Height and width of a picture as its processor makes it; the largest it lets pass."""
        size = self.processor.get("size")
        if isinstance(size, int):
            return size, size
        words = cast("Mapping[str, int]", size) if isinstance(size, Mapping) else {}
        if "height" in words:
            return words["height"], words["width"]
        if "shortest_edge" in words:
            longest = words.get("longest_edge", words["shortest_edge"])
            if longest > 10_000:  # a number of pixels, as Qwen2-VL says it
                return math.isqrt(longest), math.isqrt(longest)
            return words["shortest_edge"], longest
        side = first(self.vision, "image_size", default=224)
        side = max(cast("list[int]", side)) if isinstance(side, list) else side
        return side, side

    def weights(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of all weights; empty if nobody knows them. Raises ValueError, TypeError: an odd config."""
        return self.tensors or dict(_decoder_tensors(self.text))

    def layers(self) -> int:
        """Blocks of its language model, or of what sees."""
        return int(first(self.text, *_BLOCK_LAYERS, default=1))


def _inner(config: Config, name: str) -> Config | None:
    value = config.get(name)
    return cast("Config", value) if isinstance(value, Mapping) else None


def first(config: Config, *names: str, default: Any = 0) -> Any:
    """The first of these fields that says something."""
    return next((config[name] for name in names if config.get(name) is not None), default)


def _decoder_tensors(text: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The matrices of a decoder with gated feed-forward layers (https://arxiv.org/abs/2302.13971)."""
    hidden, vocab = int(first(text, "hidden_size", "n_embd")), int(first(text, "vocab_size"))
    heads = int(first(text, "num_attention_heads", "n_head"))
    if not (hidden and vocab and heads):
        return
    width = int(first(text, "head_dim", default=hidden // heads))
    key_value = int(first(text, "num_key_value_heads", default=heads)) * width
    inner = int(first(text, "intermediate_size", "n_inner", default=4 * hidden))
    layers = int(first(text, *_BLOCK_LAYERS))
    if layers > _MOST_LAYERS:
        raise ValueError(f"{layers} layers")
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(layers):
        for name, shape in {
            "self_attn.q_proj": (heads * width, hidden),
            "self_attn.k_proj": (key_value, hidden),
            "self_attn.v_proj": (key_value, hidden),
            "self_attn.o_proj": (hidden, heads * width),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }.items():
            yield f"model.layers.{layer}.{name}.weight", shape
    if not text.get("tie_word_embeddings"):
        yield "lm_head.weight", (vocab, hidden)


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameters of a model under a method.

    Attributes:
        frozen_linear: in linear layers that are frozen: what quantisation makes small.
        frozen_other: frozen elsewhere: embeddings, norms, the head.
        trained: that the optimiser moves, adapters among them.
        adapters: of them, those that adapters add.
        linear: in all linear and convolutional layers: what a forward pass multiplies by.
        largest: in the largest single tensor.
    """

    frozen_linear: int
    frozen_other: int
    trained: int
    adapters: int
    linear: int
    largest: int

    @property
    def frozen(self) -> int:
        return self.frozen_linear + self.frozen_other


def count(base: BaseModel, family: FamilyParts, method: Lora | Full) -> Counts:
    """What of `base` is trained, and what is frozen."""
    frozen_linear = frozen_other = trained = adapters = linear = largest = 0
    for name, shape in base.weights().items():
        size, tower = math.prod(shape), _tower(family, name)
        is_linear = _is_linear(name, shape)
        linear += size * (is_linear or len(shape) == 4)
        largest = max(largest, size)
        if isinstance(method, Full):
            moved = tower in method.towers
        else:
            moved = tower is Tower.HEAD or (method.train_connector and tower is Tower.CONNECTOR)
            if is_linear and not moved and _adapted(name, tower, family, method):
                adapters += method.rank * sum(shape) + method.use_dora * shape[0]
        trained += size * moved
        frozen_linear += size * (is_linear and not moved)
        frozen_other += size * (not is_linear and not moved)
    return Counts(frozen_linear, frozen_other, trained + adapters, adapters, linear, largest)


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    words = name.split(".")
    other = any(part in word for word in words for part in _NO_LINEAR_LAYERS)
    return len(shape) == 2 and words[-1] == "weight" and not other and words[-2:-1] != [*_HEADS[:1]]


def _tower(family: FamilyParts, name: str) -> Tower:
    """The tower of a weight. Files of older versions name modules without the outer `model.`."""
    inner = name.removeprefix("model.")
    for tower, prefixes in family.prefixes.items():
        if any(
            not prefix or f"{given}.".startswith(f"{prefix}.")
            for prefix in (each for whole in prefixes for each in (whole, whole.removeprefix("model.")))
            for given in (name, inner)
        ):
            return tower
    return towers_of(family.task)[0]


def _adapted(name: str, tower: Tower, family: FamilyParts, method: Lora) -> bool:
    targets = method.target_modules or family.lora_targets.get(tower, ())
    return tower in method.towers and (not targets or name.split(".")[-2] in targets)
