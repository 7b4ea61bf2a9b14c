"""Models that do not fit whole onto every rank: FSDP2 (https://pytorch.org/docs/stable/distributed.fsdp.fully_shard.html).

Each block of the language model is gathered for its forward and its backward pass and given up after it; what
lies outside of blocks (embeddings, head, vision tower, connector) is one unit more. Only blocks that every
batch passes through may be units of their own: a rank whose rows have no picture would not gather the blocks
of a vision tower, and the others would wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from finemesh.core.spec.finetune import FineTuneSpec, Precision, Strategy, Tower, what_keeps_whole
from finemesh.finetune.distributed import Group
from finemesh.finetune.families.family import Family

# Share of a GPU's memory that weights, gradients and moments may take; the rest is for activations.
_MEMORY_SHARE: Final = 0.6
_BYTES_PER_TRAINED: Final = 12  # a gradient and two moments in fp32


def is_to_be_sharded(spec: FineTuneSpec, module: Any, group: Group, device: torch.device) -> bool:
    """Whether every rank shall hold a share of `module` rather than all of it. Rank 0 decides."""
    strategy = spec.resources.strategy
    if group.size == 1 or strategy is Strategy.DDP:
        return False
    if strategy is Strategy.FSDP:
        return True
    if device.type != "cuda" or what_keeps_whole(spec):
        return False
    needed = sum(
        each.nbytes + each.numel() * _BYTES_PER_TRAINED * each.requires_grad for each in module.parameters()
    )
    memory = torch.cuda.get_device_properties(device).total_memory
    return bool(group.tell("yes" if needed > _MEMORY_SHARE * memory else ""))


def shard(module: Any, family: Family, precision: Precision, device: torch.device) -> None:
    """Put a share of `module` on `device`, in place.

    With BF16, parameters are gathered in bfloat16 and gradients summed in fp32.
    """
    options: dict[str, Any] = {"mesh": init_device_mesh(device.type, (torch.distributed.get_world_size(),))}
    if precision is Precision.BF16:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    for block in _blocks(base, family):
        fully_shard(block, **options)
    fully_shard(base, **options)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, on every rank; all ranks ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A copy of `tensor`, which every rank has, where `like` lies: its shard of it, if that is one."""
    moved = tensor.to(like.device, copy=True)
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)
    return moved


def give_up(module: Any) -> None:
    """Let go of what is still gathered from a forward pass: shards are about to change."""
    for each in module.modules():
        if isinstance(each, FSDPModule):
            each.reshard()


def anchor(parameters: Iterable[torch.Tensor]) -> torch.Tensor | float:
    """A zero that depends on every parameter which is gathered whole at the end of the forward pass.

    Added to the loss, it gives all of them a gradient on every rank, also those that the batch did not pass
    through: FSDP sums a unit's gradients in one message, which has to be of the same size everywhere. What no
    batch ever passes through has a gradient of zero thereby, not none, and is decayed where decay is on.
    """
    return sum(
        (0.0 * each.sum() for each in parameters if each.requires_grad and not isinstance(each, DTensor)), 0.0
    )


def _blocks(base: Any, family: Family) -> list[Any]:
    """The blocks of the language model, of a model of one tower all blocks; as transformers names them."""
    names = {name for each in base.modules() for name in getattr(each, "_no_split_modules", None) or ()}
    prefixes = family.towers.get(Tower.LANGUAGE, ("",))
    return [
        each
        for path, each in base.named_modules()
        if type(each).__name__ in names
        and any(not prefix or path.startswith(f"{prefix}.") for prefix in prefixes)
    ]
