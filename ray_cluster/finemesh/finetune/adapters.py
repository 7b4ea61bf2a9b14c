"""Adapters of linear layers, computed with fewer passes over the activations than peft makes.

peft adds a low-rank update as `Wx + B(Ax) * s`: two more tensors of the layer's width, forth and back. Here
the scale goes to the narrow Ax, and B adds to Wx as it multiplies; so does A to the gradient of x. Where the
layer is plain and all is of one precision nothing of the layer's width is written but output and gradient.

Shape legend: T tokens, I and O width of the input and the output, R rank.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch.nn import functional


def fuse_adapters(module: torch.nn.Module) -> None:
    """Let plain LoRA layers of a peft model compute so; DoRA and quantised ones stay as they are.

    The numbers are those of peft but for rounding (https://arxiv.org/abs/2106.09685, section 4.1).
    """
    from peft.tuners.lora import Linear

    for each in module.modules():
        if type(each) is Linear and not each.lora_variant:
            each.forward = MethodType(_forward, each)


def _forward(layer: Any, inputs: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """As the class's own: peft takes adapters off and puts them on by the layer's attributes."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1 or args or kwargs:
        return type(layer).forward(layer, inputs, *args, **kwargs)
    (name,) = layer.active_adapters
    base, scale = layer.base_layer, layer.scaling[name]
    down_RI, up_OR = layer.lora_A[name].weight, layer.lora_B[name].weight
    if _is_plain(base, layer.lora_dropout[name], inputs, down_RI, up_OR):
        output_TO = _Adapted.apply(inputs.flatten(0, -2), base.weight, base.bias, down_RI, up_OR, scale)
        return output_TO.unflatten(0, inputs.shape[:-1])
    result = base(inputs)
    narrow = layer.lora_A[name](layer.lora_dropout[name](inputs.to(down_RI.dtype)))
    scaled = narrow.flatten(0, -2) * scale
    wide = torch.addmm(result.flatten(0, -2).to(scaled.dtype), scaled, up_OR.t())
    return wide.view_as(result).to(result.dtype)


def _is_plain(base: Any, dropout: Any, inputs: torch.Tensor, *adapter: torch.Tensor) -> bool:
    """Whether `_Adapted` computes the layer: a frozen linear one, all of one type, and no random zeros."""
    return (
        type(base) is torch.nn.Linear
        and isinstance(dropout, torch.nn.Identity)
        and inputs.ndim > 1
        and not any(each.requires_grad for each in base.parameters())
        and all(each.dtype is inputs.dtype for each in (base.weight, *adapter))
        and not torch.is_autocast_enabled(inputs.device.type)
    )


class _Adapted(torch.autograd.Function):
    """`Wx + b + B(Ax) * s` of a frozen layer W, b."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs_TI: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        down_RI: torch.Tensor,
        up_OR: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        narrow_TR = (inputs_TI @ down_RI.t()).mul_(scale)
        ctx.save_for_backward(inputs_TI, weight_OI, down_RI, up_OR, narrow_TR)
        ctx.scale = scale
        return functional.linear(inputs_TI, weight_OI, bias_O).addmm_(narrow_TR, up_OR.t())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient_TO,) = grad_outputs
        inputs_TI, weight_OI, down_RI, up_OR, narrow_TR = ctx.saved_tensors
        back_TR = (gradient_TO @ up_OR).mul_(ctx.scale)
        of_inputs_TI = None
        if ctx.needs_input_grad[0]:  # not in the first layer: embeddings are frozen
            of_inputs_TI = (gradient_TO @ weight_OI).addmm_(back_TR, down_RI)
        return of_inputs_TI, None, None, back_TR.t() @ inputs_TI, gradient_TO.t() @ narrow_TR, None
