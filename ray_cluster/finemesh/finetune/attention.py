"""Attention over packed rows: each sequence attends to itself alone, causally.

transformers calls an attention function by the name in the model's config. Ours takes the lengths of the
packed sequences as the keyword `sequence_lengths` of the model's forward, and refuses to run without: a
packed row under an ordinary causal mask would let the samples read each other, silently.

On a GPU, in half precision, one kernel computes all sequences: torch's `varlen_attn`, which is Flash
Attention (https://arxiv.org/abs/2307.08691). Elsewhere, and where scores are capped or dropped out, which it
cannot, sequences of equal length that follow each other are computed as one batch.

Shape legend: B batch (1), A heads, T packed tokens, D head width, S sequences, L length of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any, Final, NamedTuple, cast

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from finemesh.finetune.families.family import Family

PACKED: Final = "finemesh_packed"
_HALVES: Final = (torch.bfloat16, torch.float16)


def register() -> None:
    """Make PACKED known to transformers. Doing so twice changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _no_mask)


@contextmanager
def attention(model: Any, family: Family, name: str) -> Generator[None]:
    """Let the language model of `model` attend by `name` for a while; the vision tower is left as it is."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(base.config, family.text_config) if family.text_config else base.config
    before = config._attn_implementation  # noqa: SLF001

    def switch(to: str) -> None:
        base.set_attn_implementation({family.text_config: to} if family.text_config else to)

    if before == name:
        yield
        return
    switch(name)
    try:
        yield
    finally:
        switch(before)


def packed_attention(
    module: torch.nn.Module,
    query_BATD: torch.Tensor,
    key_BATD: torch.Tensor,
    value_BATD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention within each packed sequence. Returns (B, T, A, D), and no weights."""
    lengths = cast("list[int] | None", kwargs.get("sequence_lengths"))
    if lengths is None or attention_mask is not None or sum(lengths) != query_BATD.shape[2]:
        raise ValueError("packed attention needs sequence_lengths that sum to the row's tokens, and no mask")
    if query_BATD.shape[0] != 1 or not getattr(module, "is_causal", True):
        raise ValueError("packed attention is causal, over one row")
    limits = _Limits(scaling, dropout, kwargs.get("sliding_window"), kwargs.get("softcap"))
    dtype = _computing_dtype(query_BATD)
    if query_BATD.is_cuda and dtype in _HALVES and not limits.softcap and not limits.dropout:
        query, key, value = (each.to(dtype) for each in (query_BATD, key_BATD, value_BATD))
        return attend_at_once(query, key, value, lengths, scaling=scaling, window=limits.window), None
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    # Split, not sliced: the gradient of a slice is a whole row of zeros but for itself, one for each run.
    tokens = [length * sequences for length, sequences in runs]
    parts = zip(*(each.split(tokens, dim=2) for each in (query_BATD, key_BATD, value_BATD)), strict=True)
    outputs: list[torch.Tensor] = []
    for (_, sequences), part in zip(runs, parts, strict=True):
        query, key, value = (_sequences(each, sequences) for each in part)
        outputs.append(_attend(query, key, value, limits).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).unsqueeze(0), None


def attend_at_once(
    query_BATD: torch.Tensor,
    key_BATD: torch.Tensor,
    value_BATD: torch.Tensor,
    lengths: list[int],
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """What `packed_attention` gives, of all sequences in one kernel; for half precision on a GPU."""
    starts_S = _starts(tuple(lengths), query_BATD.device)
    query_TAD, key_TAD, value_TAD = (each[0].transpose(0, 1) for each in (query_BATD, key_BATD, value_BATD))
    output_TAD = varlen_attn(
        query_TAD,
        key_TAD,
        value_TAD,
        starts_S,
        starts_S,
        max(lengths),
        max(lengths),
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key_TAD.shape[1] != query_TAD.shape[1],
    )
    return cast("torch.Tensor", output_TAD).unsqueeze(0)


@lru_cache(maxsize=4)
def _starts(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where each sequence begins, and the end of the last; the same in every layer."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def _computing_dtype(tensor: torch.Tensor) -> torch.dtype:
    """What attention is computed in: rotary embeddings leave queries in fp32 under autocast."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


class _Limits(NamedTuple):
    """How a layer attends: the window counts the tokens seen, itself included; a soft cap bounds scores."""

    scaling: float | None
    dropout: float
    window: int | None
    softcap: float | None


def _attend(
    query_SALD: torch.Tensor, key_SALD: torch.Tensor, value_SALD: torch.Tensor, limits: _Limits
) -> torch.Tensor:
    """Causal attention of equally long sequences, shape (S, A, L, D)."""
    length, grouped = query_SALD.shape[2], key_SALD.shape[1] != query_SALD.shape[1]
    if limits.softcap:
        return _attend_capped(query_SALD, key_SALD, value_SALD, limits)
    windowed = limits.window is not None and limits.window < length
    return functional.scaled_dot_product_attention(
        query_SALD,
        key_SALD,
        value_SALD,
        attn_mask=_visible(length, limits.window, query_SALD.device) if windowed else None,
        dropout_p=limits.dropout,
        scale=limits.scaling,
        is_causal=not windowed,
        enable_gqa=grouped,
    )


def _attend_capped(
    query_SALD: torch.Tensor, key_SALD: torch.Tensor, value_SALD: torch.Tensor, limits: _Limits
) -> torch.Tensor:
    """With scores capped as in Gemma 2 (https://arxiv.org/abs/2408.00118, section 2): no fused kernel can."""
    groups = query_SALD.shape[1] // key_SALD.shape[1]
    key_SALD, value_SALD = (each.repeat_interleave(groups, dim=1) for each in (key_SALD, value_SALD))
    scale, cap = limits.scaling or query_SALD.shape[-1] ** -0.5, cast("float", limits.softcap)
    scores_SALL = cap * torch.tanh(query_SALD @ key_SALD.transpose(2, 3) * scale / cap)
    visible_LL = _visible(query_SALD.shape[2], limits.window, query_SALD.device)
    weights_SALL = scores_SALL.masked_fill(~visible_LL, -math.inf).float().softmax(-1).to(query_SALD.dtype)
    return functional.dropout(weights_SALL, limits.dropout) @ value_SALD


def _visible(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """(L, L): which token sees which."""
    visible_LL = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return visible_LL.triu(1 - window) if window else visible_LL


def _sequences(packed_BATD: torch.Tensor, sequences: int) -> torch.Tensor:
    """(1, A, S * L, D) to (S, A, L, D)."""
    return packed_BATD[0].unflatten(1, (sequences, -1)).transpose(0, 1)


def _no_mask(*_: object, **__: object) -> None:
    return None
