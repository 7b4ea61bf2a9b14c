"""Packing conserves tokens, never mixes samples, and computes what the samples give alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.spec.finetune import Sequence, Task
from finemesh.finetune.attention import packed_attention
from finemesh.finetune.batches import Batch, collate
from finemesh.finetune.encoding import Sample
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.rows import Location
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.support.conversations import spec, tiny_model

IMAGE_TOKENS = 49


@cache
def model(family: str, *, packing: bool) -> Model:
    task = Task.VISION_LANGUAGE if family == "llava" else Task.LANGUAGE
    base = tiny_model(Path(mkdtemp()) / family, family)
    loaded = load_model(spec(task, sequence=Sequence(packing=packing)), base)
    loaded.module.eval()
    return loaded


@st.composite
def samples(draw: st.DrawFn, *, pictures: bool = False) -> list[Sample]:
    """Rows of random tokens and random spans of loss, some of them of one length."""
    lengths = draw(st.lists(st.integers(2, 24), min_size=1, max_size=6))
    made: list[Sample] = []
    for index, length in enumerate(lengths):
        rng = np.random.default_rng(draw(st.integers(0, 999)))
        ids_T = rng.integers(8, 300, length)
        loss_T = rng.random(length) < 0.5
        loss_T[0], loss_T[-1] = False, True
        location = None
        if pictures:
            image_id = model("llava", packing=True).processor.image_token_id
            ids_T = np.concatenate([ids_T[:1], np.full(IMAGE_TOKENS, image_id), ids_T[1:]])
            loss_T = np.concatenate([loss_T[:1], np.zeros(IMAGE_TOKENS, np.bool_), loss_T[1:]])
            location = Location("shard", 0, index)
        made.append(Sample(f"row-{index}", "", ids_T, loss_T, location))
    return made


def load(location: Location) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(location.row).normal(size=(3, 112, 112)).astype(np.float32)


def batch_of(chosen: list[Sample], *, packing: bool) -> Batch:
    return collate(chosen, load, packing=packing, pad_id=0)


@given(samples())
def test_packing_conserves_tokens_and_targets(chosen: list[Sample]) -> None:
    batch = batch_of(chosen, packing=True)
    assert batch.inputs["input_ids"][0].tolist() == [token for each in chosen for token in each.input_ids_T]
    assert batch.targets_N.tolist() == [token for each in chosen for token in each.input_ids_T[each.loss_T]]
    assert batch.units == sum(batch.inputs["sequence_lengths"]) == sum(each.size for each in chosen)
    assert batch.targets_per_sample == [int(each.loss_T.sum()) for each in chosen]
    starts = np.flatnonzero(batch.inputs["position_ids"][0] == 0)
    assert starts.tolist() == np.cumsum([0, *(each.size for each in chosen[:-1])]).tolist()


@given(samples())
def test_the_end_of_a_sample_never_predicts_its_neighbour(chosen: list[Sample]) -> None:
    ends = np.cumsum([each.size for each in chosen]) - 1
    batch = batch_of(chosen, packing=True)
    assert not batch.predict_BT[0, ends].any()
    following = batch.inputs["input_ids"][0].roll(-1)[batch.predict_BT[0]]
    assert following.tolist() == batch.targets_N.tolist()


LANGUAGE = ("llama", "qwen", "gemma", "gemma2", "mistral", "phi")


@pytest.mark.parametrize("family", [*LANGUAGE, "llava"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_packed_logits_are_those_of_each_sample_alone(family: str, data: st.DataObject) -> None:
    chosen = data.draw(samples(pictures=family == "llava"))
    packed, padded = model(family, packing=True), model(family, packing=False)
    with torch.inference_mode():
        together_NV = packed.logits(batch_of(chosen, packing=True))
        alone_NV = torch.cat([padded.logits(batch_of([each], packing=False)) for each in chosen])
        rows_NV = padded.logits(batch_of(chosen, packing=False))
    torch.testing.assert_close(together_NV, alone_NV, rtol=0, atol=2e-5)
    torch.testing.assert_close(rows_NV, alone_NV, rtol=0, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(samples(), st.integers(0, 999))
def test_a_neighbour_changes_nothing_bit_for_bit(chosen: list[Sample], seed: int) -> None:
    """Every sample but the first gets other tokens; the first one's logits stay exactly the same."""
    rng = np.random.default_rng(seed)
    first, others = chosen[0], chosen[1:]
    changed = [Sample(each.row_id, "", rng.integers(8, 300, each.size), each.loss_T, None) for each in others]
    count = int(first.loss_T.sum())
    packed = model("llama", packing=True)
    with torch.inference_mode():
        before_NV = packed.logits(batch_of([first, *others], packing=True))[:count]
        after_NV = packed.logits(batch_of([first, *changed], packing=True))[:count]
    assert torch.equal(before_NV, after_NV)


@pytest.mark.parametrize("family", ["llama", "llava"])
def test_packed_gradients_are_those_of_the_padded_batch(family: str) -> None:
    rng = np.random.default_rng(5)
    chosen: list[Sample] = []
    for index, length in enumerate((7, 7, 12, 3)):
        loss_T = np.arange(length) > length // 2
        chosen.append(Sample(f"row-{index}", "", rng.integers(8, 300, length), loss_T, None))
    gradients: list[dict[str, torch.Tensor]] = []
    for packing in (True, False):
        loaded, batch = model(family, packing=packing), batch_of(chosen, packing=packing)
        functional.cross_entropy(loaded.logits(batch), batch.targets_N).backward()
        gradients.append(
            {name: each.grad for name, each in loaded.trainable.items() if each.grad is not None}
        )
        loaded.module.zero_grad(set_to_none=True)
    assert gradients[0].keys() == gradients[1].keys()
    assert gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_packed_attention_shares_keys_among_query_heads() -> None:
    """Grouped-query attention: four query heads on two key heads, against each sequence by itself."""
    torch.manual_seed(0)
    lengths = [3, 5, 5]
    query, key, value = torch.randn(1, 4, 13, 8), torch.randn(1, 2, 13, 8), torch.randn(1, 2, 13, 8)
    together, _ = packed_attention(torch.nn.Module(), query, key, value, None, sequence_lengths=lengths)
    parts = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    alone = [
        functional.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True) for part in parts
    ]
    torch.testing.assert_close(together, torch.cat(alone, dim=2).transpose(1, 2))


def test_packed_attention_refuses_to_guess() -> None:
    """Without lengths, or with a mask, samples could read each other: an error, not a silent leak."""
    query = torch.randn(1, 2, 4, 8)
    module, mask = torch.nn.Module(), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    for lengths, given_mask in ((None, None), ([3], None), ([4], mask)):
        with pytest.raises(ValueError, match="sequence_lengths"):
            packed_attention(module, query, query, query, given_mask, sequence_lengths=lengths)
