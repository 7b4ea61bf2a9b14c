"""A folder of transformers as one GGUF file: weights one after the other, config, vocabulary and template.

The names of tensors and keys are those of the `gguf` package; how llama.cpp computes a family, and so which
config it can follow, is in its `src/models` (https://github.com/ggml-org/llama.cpp).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from safetensors import safe_open

from finemesh.package.gguf_words import UnknownWordsError, begins_texts, words_of

Config = Mapping[str, Any]
Array = np.ndarray[Any, np.dtype[Any]]
# Marks what the assistant says, for training alone. Whoever else reads templates does not know it.
_GENERATION: Final = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")


@dataclass(frozen=True, slots=True)
class Architecture:
    """What llama.cpp calls a family, and how its weights differ from those of transformers.

    Attributes:
        turned: queries and keys are stored with the two halves of each rotary pair side by side.
    """

    arch: gguf.MODEL_ARCH
    turned: bool = False


ARCHITECTURES: Final = {
    "llama": Architecture(gguf.MODEL_ARCH.LLAMA, turned=True),
    "mistral": Architecture(gguf.MODEL_ARCH.LLAMA, turned=True),
    "phi3": Architecture(gguf.MODEL_ARCH.PHI3),
    "qwen2": Architecture(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Architecture(gguf.MODEL_ARCH.QWEN3),
}


def unsuitable(folder: Path, *, plain: bool = False) -> str:
    """Why llama.cpp could not compute the model of a folder, or nothing; `plain`: trained on plain text."""
    config: Config = json.loads((folder / "config.json").read_bytes())
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        return f"{kind!r} models were not proven with llama.cpp: {', '.join(ARCHITECTURES)} were"
    if config.get("hidden_act", "silu") != "silu":
        return f"llama.cpp computes {kind} with silu, and this one has {config['hidden_act']}"
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window and window < _positions(config):
        return f"it sees a window of {window} tokens, and llama.cpp would let {kind} see all"
    if (rope := _rope(config).get("rope_type", "default")) not in {"default", "linear", "llama3"}:
        return f"its positions are of the kind {rope!r}, which was not proven with llama.cpp"
    if _rope(config).get("partial_rotary_factor", 1.0) != 1.0:
        return "only a part of each head has positions, which was not proven with llama.cpp"
    try:
        words_of(folder, int(config["vocab_size"]))
        _ = plain and begins_texts(folder)
    except UnknownWordsError as error:
        return str(error)
    return ""


def write_gguf(model: Path, words: Path, out: Path, *, half: bool, plain: bool = False) -> None:
    """Write the file.

    Args:
        model: a folder with config.json and safetensors in 32 bits.
        words: a folder with tokenizer.json, and the chat template.
        out: the file, which must not exist.
        half: matrices in 16 bits, otherwise in 32.
        plain: it was trained on plain text: no template, and texts begin as its tokenizer has it.

    Raises:
        ValueError: a weight is beyond what 16 bits hold.
        UnknownWordsError: llama.cpp would read text differently.
    """
    config: Config = json.loads((model / "config.json").read_bytes())
    architecture = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[architecture.arch])
    _write_facts(writer, config, half=half)
    found = words_of(words, int(config["vocab_size"]))
    found.write(writer, begins=plain and begins_texts(words))
    _write_ends(writer, config, words)
    template = words / "chat_template.jinja"
    if template.is_file() and not plain:
        writer.add_chat_template(plain_template(template.read_text(encoding="utf-8")))
    with ExitStack() as stack:
        tensors = list(_tensors(model, config, architecture, stack, half=half))
        for name, shape, dtype, _ in tensors:
            writer.add_tensor_info(name, shape, dtype, math.prod(shape) * dtype.itemsize)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, _, dtype, read in tensors:
            writer.write_tensor_data(_as(read(), dtype, name))
    writer.close()


def _positions(config: Config) -> int:
    return int(config["max_position_embeddings"])


def _rope(config: Config) -> Mapping[str, Any]:
    """How positions turn. Older configs say it in two fields."""
    return config.get("rope_parameters") or {
        "rope_theta": config.get("rope_theta", 10_000.0),
        **(config.get("rope_scaling") or {}),
    }


def _head_size(config: Config) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _write_facts(writer: gguf.GGUFWriter, config: Config, *, half: bool) -> None:
    heads, rope = config["num_attention_heads"], _rope(config)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(_positions(config))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _write_ends(writer: gguf.GGUFWriter, config: Config, words: Path) -> None:
    """The tokens that begin and end."""
    tokenizer = json.loads((words / "tokenizer_config.json").read_bytes())
    added = json.loads((words / "tokenizer.json").read_bytes())["added_tokens"]
    ids = {each["content"]: each["id"] for each in added}
    for name, write in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("pad", writer.add_pad_token_id),
        ("unk", writer.add_unk_token_id),
    ):
        text = tokenizer.get(f"{name}_token")
        token = ids.get(text["content"] if isinstance(text, dict) else text, config.get(f"{name}_token_id"))
        if isinstance(token, int):
            write(token)


def plain_template(template: str) -> str:
    """A chat template without the marks of what the assistant says."""
    return _GENERATION.sub(
        lambda mark: f"{{%{mark[1]} {'endif' if mark[2] else 'if true'} {mark[3]}%}}", template
    )


Planned = tuple[str, tuple[int, ...], np.dtype[Any], Callable[[], Array]]


def _tensors(
    model: Path, config: Config, architecture: Architecture, stack: ExitStack, *, half: bool
) -> Iterator[Planned]:
    """Name, shape, type and a way to read each tensor of the file."""
    names = gguf.get_tensor_name_map(architecture.arch, config["num_hidden_layers"])
    tied = bool(config.get("tie_word_embeddings"))
    for path in sorted(model.glob("*.safetensors")):
        shard: Any = stack.enter_context(safe_open(path, "numpy"))
        for name in shard.keys():  # noqa: SIM118  it is not a dict
            if name == "lm_head.weight" and tied:
                continue
            new = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if new is None:
                raise UnknownWordsError(f"llama.cpp has no place for the weight {name}")
            shape = tuple(shard.get_slice(name).get_shape())
            dtype = np.dtype(np.float16 if half and len(shape) > 1 else np.float32)
            yield new, shape, dtype, _reader(shard, name, config, turned=architecture.turned)
    if _rope(config).get("rope_type") == "llama3":
        factors = _llama3_factors(_rope(config), _head_size(config))
        yield "rope_freqs.weight", factors.shape, factors.dtype, lambda: factors


def _reader(shard: Any, name: str, config: Config, *, turned: bool) -> Callable[[], Array]:
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config.get("num_key_value_heads")}
    part = name.split(".")[-2]
    if not turned or part not in heads:
        return lambda: shard.get_tensor(name)
    return lambda: _turned(shard.get_tensor(name), heads[part] or config["num_attention_heads"])


def _turned(weight: Array, heads: int) -> Array:
    """Rows of each head from (first half, second half) to pairs."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _as(tensor: Array, dtype: np.dtype[Any], name: str) -> Array:
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(tensor, dtype)
    if dtype == np.float16 and not np.isfinite(made).all():
        raise ValueError(f"{name} has a weight beyond 65504, which 16 bits do not hold: take another format")
    return made


def _llama3_factors(rope: Mapping[str, Any], head_size: int) -> Array:
    """By what each pair's frequency is divided, as `_compute_llama3_parameters` of transformers has it."""
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, head_size, 2) / head_size)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / rope["factor"] + smooth)).astype(np.float32)
