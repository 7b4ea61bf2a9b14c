"""What a forward pass of training does besides: computes activations twice, adds noise, runs compiled."""

from __future__ import annotations

from typing import Any, cast

import torch

from finemesh.core.errors import InvalidError
from finemesh.finetune.attention import PACKED, packed_attention
from finemesh.finetune.models import Model


def prepare_forward(model: Model) -> None:
    """Let the module of `model` compute as its spec says, in training.

    Raises:
        InvalidError: FAMILY_UNSUPPORTED, the model cannot compute its activations twice.
    """
    optimization = model.spec.optimization
    base: Any = model.module.get_base_model() if hasattr(model.module, "get_base_model") else model.module
    if optimization.activation_checkpointing:
        _checkpoint_activations(base)
    if optimization.neftune_alpha:
        _Noise(optimization.neftune_alpha).attach(base)
    if optimization.compile:
        _compile_layers(base)


def _checkpoint_activations(base: Any) -> None:
    if not base.supports_gradient_checkpointing:
        raise InvalidError.of(
            "spec.optimization.activation_checkpointing",
            f"{type(base).__name__} cannot compute its activations twice: leave it out, and make micro "
            "batches smaller if memory is short",
            reason="FAMILY_UNSUPPORTED",
        )
    # Re-entrant checkpoints would need an input that asks for gradients, which a frozen embedding does not.
    base.activation_checkpointing_enable({"use_reentrant": False})


def _compile_layers(base: Any) -> None:
    """Compile the layers that repeat, for any length, and leave packed attention between them as it is.

    A whole model compiles longer and runs no faster; packed attention would be compiled anew for each step.
    """
    from transformers import AttentionInterface
    from transformers.modeling_layers import GradientCheckpointingLayer

    AttentionInterface.register(PACKED, torch.compiler.disable(packed_attention))
    for each in base.modules():
        if isinstance(each, GradientCheckpointingLayer):
            each.compile(dynamic=True)


class _Noise:
    """NEFTune (https://arxiv.org/abs/2310.05914): uniform noise on the embeddings of tokens while training.

    For a sequence of L tokens of width D it lies within alpha / sqrt(L * D). L counts the tokens of the
    sample, not of the row: neither padding nor what is packed beside it.

    Shape legend: B rows, T tokens of a row, D width.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._lengths_BT = torch.ones(1, 1)

    def attach(self, base: Any) -> None:
        base.register_forward_pre_hook(self._measure, with_kwargs=True)
        base.get_input_embeddings().register_forward_hook(self._add)

    def _measure(self, module: torch.nn.Module, _: Any, inputs: dict[str, Any]) -> None:
        if not module.training:  # answers are scored and written without noise
            return
        if packed := cast("list[int] | None", inputs.get("sequence_lengths")):
            lengths = torch.tensor(packed)
            self._lengths_BT = lengths.repeat_interleave(lengths).unsqueeze(0)
        else:
            self._lengths_BT = inputs["attention_mask"].sum(dim=1, keepdim=True)

    def _add(self, embedding: torch.nn.Module, _: Any, embedded_BTD: torch.Tensor) -> torch.Tensor:
        if not embedding.training:
            return embedded_BTD
        lengths_BT1 = self._lengths_BT.to(embedded_BTD).unsqueeze(-1)
        limit_BT1 = self._alpha / (lengths_BT1 * embedded_BTD.shape[-1]).sqrt()
        return embedded_BTD + torch.empty_like(embedded_BTD).uniform_(-1, 1) * limit_BT1
