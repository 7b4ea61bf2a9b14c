"""Adapters of linear layers, computed with fewer passes over the activations than peft makes.

peft adds a low-rank update as `Wx + B(Ax) * s`: two more tensors of the layer's width, forth and back. Here
the scale goes to the narrow Ax, and B adds to Wx as it multiplies.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch


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
    result = layer.base_layer(inputs)
    narrow = layer.lora_A[name](layer.lora_dropout[name](inputs.to(layer.lora_A[name].weight.dtype)))
    scaled = narrow.flatten(0, -2) * layer.scaling[name]
    wide = torch.addmm(result.flatten(0, -2).to(scaled.dtype), scaled, layer.lora_B[name].weight.t())
    return wide.view_as(result).to(result.dtype)
