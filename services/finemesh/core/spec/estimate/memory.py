"""Memory of one training process, by what holds it.

    weights      frozen ones as the precision and the quantisation say, trained ones in 32 bits
    gradients    32 bits for each trained weight
    optimiser    moments: two of 32 bits for AdamW, two of 8 for its 8-bit kin, one for SGD with momentum
    activations  what the backward pass needs (`activations`), less where it is computed twice
    logits       those of tokens with loss, in 32 bits: themselves, their log-softmax and its gradient
    workspace    what comes and goes: copies of weights in 16 bits, gathered shards, messages between ranks
    checkpoint   on a CPU, the copy of what is trained that is written beside the training
    runtime      the process itself: Python and its libraries, or the context of a GPU

The terms are those of https://arxiv.org/abs/1910.02054 (section 3: weights, gradients, moments) and
https://arxiv.org/abs/2205.05198 (section 4: activations, and what computing them twice leaves).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from finemesh.core.spec.estimate.activations import (
    is_counted,
    picture_values,
    token_values,
    transformer_picture,
)
from finemesh.core.spec.estimate.base_model import BaseModel, Counts, FamilyParts, count, first
from finemesh.core.spec.estimate.interval import Interval, exactly, larger, total
from finemesh.core.spec.finetune import (
    TEXT_TOWERS,
    FineTuneSpec,
    Full,
    Lora,
    Objective,
    Precision,
    Quantization,
    Strategy,
    Tower,
    what_keeps_whole,
)
from finemesh.core.spec.optimization import Optimizer

GIGABYTE: Final = 1e9
# Resident memory of a process that has imported torch, transformers and peft, and holds a dataset's rows.
_CPU_RUNTIME: Final = Interval(0.45 * GIGABYTE, 0.62 * GIGABYTE, 1.0 * GIGABYTE)
_GPU_RUNTIME: Final = Interval(0.3 * GIGABYTE, 0.6 * GIGABYTE, 1.2 * GIGABYTE)
# Bytes of a moment pair; Adafactor keeps a row and a column of each matrix.
_MOMENTS: Final = {
    Optimizer.ADAMW: 8.0,
    Optimizer.PAGED_ADAMW_32BIT: 8.0,
    Optimizer.ADAMW_8BIT: 2.1,
    Optimizer.PAGED_ADAMW_8BIT: 2.1,
    Optimizer.ADAFACTOR: 0.1,
    Optimizer.SGD: 4.0,
}
_QUANTIZED: Final = {Quantization.NF4: 0.5 + 4 / 64, Quantization.INT8: 1.0}
_DOUBLE_QUANTIZED: Final = 0.5 + 1 / 64
# Norms and residual sums stay in 32 bits under 16-bit arithmetic.
_HALF: Final = Interval(2.0, 2.6, 4.0)
# Share of a batch's tokens that carry loss, where the answers of conversations do.
_ANSWERS: Final = Interval(0.05, 0.4, 1.0)
# Allocators keep more than is in use, and losses, decoded rows and denoised boxes are not counted.
_SLACK: Final = Interval(0.9, 1.3, 1.9)
_GUESSED: Final = Interval(0.3, 1.3, 4.0)  # where nobody counted what the family keeps
_SHARDED_ABOVE: Final = 0.6  # of a GPU's memory: what `Strategy.AUTO` does in the training


@dataclass(frozen=True, slots=True)
class Load:
    """What is computed at once, beyond the spec.

    Attributes:
        longest_batch_tokens: of the largest forward pass, padding included, as a preflight finds it; 0 where
            nobody looked.
        classes: that a picture model tells apart; 0 for those of its config.
        gpu_memory_bytes: of one GPU, by which `Strategy.AUTO` chooses; 0 where it is not known.
    """

    longest_batch_tokens: int = 0
    classes: int = 0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryForecast:
    """Peak memory of one rank, in bytes: on its GPU, or without one in the node's memory."""

    parts: Mapping[str, Interval] = field(default_factory=dict[str, Interval])

    @property
    def peak(self) -> Interval:
        return total(self.parts.values()).each(round)


def memory_of(spec: FineTuneSpec, base: BaseModel, family: FamilyParts, load: Load) -> MemoryForecast:
    """What training `spec` takes, from the same numbers each time."""
    counts = count(base, family, spec.method)
    on_gpu = spec.resources.gpus > 0
    share = 1 / spec.resources.ranks if is_sharded(spec, counts, load) else 1.0
    moments = _MOMENTS[spec.optimization.optimizer] * counts.trained * share
    weights = exactly(weight_bytes(spec, counts) * share)
    counted = spec.task in TEXT_TOWERS or is_counted(family.name)
    activations = _activations(spec, base, family, load) * (_SLACK if counted else _GUESSED)
    logits = _logits(spec, base, load) * _SLACK
    workspace = _workspace(spec, base, counts, share)
    loading = exactly(0.0) if on_gpu else Interval(0.0, 0.0, float(base.file_bytes or weights.high))
    gradients = exactly(4.0 * counts.trained * share)
    copied = gradients + exactly(moments)
    return MemoryForecast(
        {
            "weights": weights,
            "gradients": gradients,
            "optimizer": exactly(moments),
            "activations": activations,
            "logits": logits,
            "workspace": larger(workspace, loading),
            "checkpoint": exactly(0.0) if on_gpu else Interval(0.0, copied.likely, copied.high),
            "runtime": _GPU_RUNTIME if on_gpu else _CPU_RUNTIME,
        }
    )


def is_sharded(spec: FineTuneSpec, counts: Counts, load: Load) -> bool:
    """Whether each rank holds a share of the model, as the training decides it."""
    if spec.resources.ranks == 1 or spec.resources.strategy is Strategy.DDP:
        return False
    if spec.resources.strategy is Strategy.FSDP:
        return True
    if not (spec.resources.gpus and load.gpu_memory_bytes) or what_keeps_whole(spec):
        return False
    needed = weight_bytes(spec, counts) + 12 * counts.trained
    return needed > _SHARDED_ABOVE * load.gpu_memory_bytes


def weight_bytes(spec: FineTuneSpec, counts: Counts) -> float:
    """Of all weights, unshared."""
    frozen = 4.0 if spec.precision is Precision.FP32 else 2.0
    linear = frozen
    if isinstance(spec.method, Lora) and spec.method.quantization is not Quantization.NONE:
        linear = _QUANTIZED[spec.method.quantization]
        if spec.method.quantization is Quantization.NF4 and spec.method.double_quantization:
            linear = _DOUBLE_QUANTIZED
    return linear * counts.frozen_linear + frozen * counts.frozen_other + 4.0 * counts.trained


def batch_tokens(spec: FineTuneSpec, load: Load) -> Interval:
    """Tokens of the largest forward pass of a rank."""
    if load.longest_batch_tokens:
        return exactly(load.longest_batch_tokens)
    most = spec.optimization.micro_batch_size * spec.sequence.max_tokens
    # The longest rows rarely meet, and rarely fill the limit: nobody has looked at them.
    tokens = Interval(spec.optimization.micro_batch_size, most / 2, most)
    return tokens * (2.0 if spec.objective is Objective.PREFERENCE else 1.0)


def _value_bytes(spec: FineTuneSpec) -> Interval:
    return exactly(4.0) if spec.precision is Precision.FP32 else _HALF


def _activations(spec: FineTuneSpec, base: BaseModel, family: FamilyParts, load: Load) -> Interval:
    twice, size = spec.optimization.activation_checkpointing, _value_bytes(spec)
    if spec.task not in TEXT_TOWERS:
        values = picture_values(family.name, base, load.classes or _classes(base))
        if twice:  # every block keeps its input alone: the deepest of them is computed again
            values *= 0.35
        return size * (values * spec.optimization.micro_batch_size)
    in_layer, layers = token_values(family.name, base), base.layers()
    hidden = int(first(base.text, "hidden_size", "n_embd"))
    # Backwards a layer holds what it kept, and the gradients of that.
    per_token = hidden * layers + 2 * in_layer if twice else in_layer * (layers + 1)
    tokens = batch_tokens(spec, load)
    kept = tokens * (per_token + 4 * hidden)
    return size * (kept + _scores(spec, base, tokens) + _seen(spec, base))


def _scores(spec: FineTuneSpec, base: BaseModel, tokens: Interval) -> Interval:
    """Attention that no fused kernel computes keeps its scores: those with a soft cap."""
    if not base.text.get("attn_logit_softcapping"):
        return exactly(0.0)
    heads = int(first(base.text, "num_attention_heads"))
    length = min(spec.sequence.max_tokens, tokens.high)
    layers = 1 if spec.optimization.activation_checkpointing else base.layers()
    return Interval(0.0, 0.5, 1.0) * (2.6 * layers * heads * length * tokens.high)


def _seen(spec: FineTuneSpec, base: BaseModel) -> Interval:
    """Of the pictures in a batch: all layers of a vision tower that is trained, one of a frozen one."""
    if Tower.VISION not in TEXT_TOWERS[spec.task]:
        return exactly(0.0)
    height, width = base.picture_px
    values = transformer_picture(base.vision, height * width) * spec.optimization.micro_batch_size
    depth = int(first(base.vision, "num_hidden_layers", "depth", default=12))
    trains = Tower.VISION in spec.method.towers and not spec.optimization.activation_checkpointing
    return Interval(0.0, 1.0, 2.0) * (values if trains else values / depth)


def _classes(base: BaseModel) -> int:
    labels = base.config.get("id2label")
    return len(labels) if isinstance(labels, Mapping) and labels else 2  # pyright: ignore[reportUnknownArgumentType]


def _logits(spec: FineTuneSpec, base: BaseModel, load: Load) -> Interval:
    if spec.task not in TEXT_TOWERS:
        return exactly(0.0)
    everything = spec.objective is Objective.TEXT
    share = exactly(1.0) if everything else _ANSWERS
    copies = 12.0 if spec.precision is Precision.FP32 else 16.0
    return batch_tokens(spec, load) * share * (copies * int(first(base.text, "vocab_size")))


def _workspace(spec: FineTuneSpec, base: BaseModel, counts: Counts, share: float) -> Interval:
    """Comes and goes; the largest of them decides, and their sum is the worst."""
    half = spec.precision is not Precision.FP32
    cast = 2.0 * counts.trained * share if half else 0.0
    quantized = isinstance(spec.method, Lora) and spec.method.quantization is not Quantization.NONE
    unpacked = counts.largest * (2.0 if half else 4.0) if quantized else 0.0
    whole = counts.trained + counts.frozen
    gathered = 2 * 4.0 * whole / max(1, base.layers()) if share < 1 else 0.0
    messages = 4.0 * counts.trained if spec.resources.ranks > 1 and share == 1 else 0.0
    moved = 4.0 * counts.trained if isinstance(spec.method, Full) else 0.0
    needs = (cast, unpacked, gathered, messages)
    return Interval(max(needs), max(needs), sum(needs) + 0.5 * moved)
