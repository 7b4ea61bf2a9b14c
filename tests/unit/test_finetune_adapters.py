"""Adapters computed by ours are those of peft: outputs, gradients, and all that peft does by attributes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from finemesh.finetune.adapters import fuse_adapters
from peft import LoraConfig, get_peft_model


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = torch.nn.Linear(24, 32)
        self.narrow = torch.nn.Linear(32, 8, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.narrow(torch.nn.functional.silu(self.wide(inputs)))


def pair(**options: Any) -> tuple[Any, Any]:
    """A net with adapters that are not zero, as peft computes it, and the same one as ours does."""
    torch.manual_seed(0)
    adapted: Any = get_peft_model(
        Net(),  # pyright: ignore[reportArgumentType]  # any module will do
        LoraConfig(r=4, lora_alpha=12, target_modules=["wide", "narrow"], **options),
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    ours = copy.deepcopy(adapted)
    fuse_adapters(ours)
    return adapted, ours


def outcome(net: Any, inputs: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(1)  # for dropout
    output = net(inputs)
    output.square().sum().backward()
    return [output.detach(), *(each.grad for each in net.parameters() if each.requires_grad)]


@pytest.mark.parametrize(
    "options",
    [{}, {"lora_dropout": 0.3}, {"use_rslora": True}, {"use_dora": True}],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_peft(options: dict[str, Any]) -> None:
    theirs, ours = pair(**options)
    inputs = torch.randn(2, 5, 24).double()
    torch.testing.assert_close(outcome(ours.double(), inputs), outcome(theirs.double(), inputs))


def test_in_half_precision_under_autocast_and_without() -> None:
    theirs, ours = pair()
    for net in (theirs, ours):
        for name, parameter in net.named_parameters():
            if "lora" not in name:
                parameter.data = parameter.data.bfloat16()
    inputs = torch.randn(3, 24)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ours(inputs), theirs(inputs), atol=0.1, rtol=0.02)
    inputs = inputs.bfloat16()
    assert ours(inputs).dtype is theirs(inputs).dtype is torch.bfloat16
    torch.testing.assert_close(ours(inputs), theirs(inputs), atol=0.1, rtol=0.02)


def test_adapters_come_off_and_merge_as_peft_says() -> None:
    theirs, ours = pair()
    inputs = torch.randn(2, 24)
    with ours.disable_adapter(), theirs.disable_adapter():
        torch.testing.assert_close(ours(inputs), theirs(inputs))
    adapted = ours(inputs)
    torch.testing.assert_close(ours.merge_and_unload()(inputs), adapted)
