"""Packing conserves tokens, never mixes samples, and computes what they give alone, in every family."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.spec.finetune import Sequence, Task
from finemesh.finetune.attention import attend_at_once, packed_attention
from finemesh.finetune.batches import Batch, collate
from finemesh.finetune.encoding import EncodedSplit, Encoder, Sample
from finemesh.finetune.families import FAMILIES, family_named
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.rows import Location
from finemesh.finetune.sight import ImageAt, Pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.support.conversations import COLOURS, message, picture, row, spec, tiny_model, write_dataset

TASKS = (Task.LANGUAGE, Task.VISION_LANGUAGE)
NAMES = [family.name for family in FAMILIES if family.task in TASKS and family.tiny_config]
SEEING = [name for name in NAMES if family_named(name).image_features]
SIZES_PX = ((32, 32), (48, 24), (24, 56))
POOL = 12


@dataclass(frozen=True)
class Packer:
    """A model twice, and encoded rows to pack, some of one length, with none, one or several pictures."""

    packed: Model
    padded: Model
    encoded: EncodedSplit

    def batch(self, chosen: list[Sample], *, packing: bool) -> Batch:
        return collate(chosen, self.encoded.pictures, packing=packing, pad_id=self.packed.pad_id)

    def logits(self, chosen: list[Sample], *, packing: bool) -> torch.Tensor:
        model = self.packed if packing else self.padded
        with torch.inference_mode():
            return model.logits(self.batch(chosen, packing=packing))


def conversations(*, seeing: bool) -> list[dict[str, Any]]:
    rng, colours, rows = np.random.default_rng(0), list(COLOURS), list[dict[str, Any]]()
    for index in range(POOL):
        turns, pictures = list[dict[str, Any]](), list[bytes]()
        for turn in range(1 + index % 2):
            shown = (index + turn) % 3 if seeing else 0
            words = " ".join(colours[word] for word in rng.integers(0, 4, 1 + index % 4))
            turns += [message("user", *["<picture>"] * shown, "say"), message("assistant", words)]
            pictures += [picture(colours[turn], rng, *SIZES_PX[(index + n) % 3]) for n in range(shown)]
        rows.append(row(f"row-{index}", "train", turns, *pictures))
    return rows


@cache
def packer(name: str) -> Packer:
    family, root = family_named(name), Path(mkdtemp())
    base = tiny_model(root / "base", name)
    dataset = write_dataset(
        root / "dataset", conversations(seeing=family.task is Task.VISION_LANGUAGE), shards=1
    )
    models = [
        load_model(spec(family.task, sequence=Sequence(packing=packing)), base) for packing in (True, False)
    ]
    for each in models:
        each.module.eval()
    packed, padded = models
    encoded = Encoder(family, packed.processor, packed.config, Sequence()).encode(dataset, "train")
    assert len(encoded.samples) == POOL
    return Packer(packed, padded, encoded)


def some(name: str) -> st.SearchStrategy[list[Sample]]:
    return st.lists(st.sampled_from(packer(name).encoded.samples), min_size=1, max_size=5)


@pytest.mark.parametrize("name", ["llama", "qwen2.5-vl"])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_packing_conserves_tokens_and_targets(name: str, data: st.DataObject) -> None:
    chosen = data.draw(some(name))
    batch = packer(name).batch(chosen, packing=True)
    assert batch.inputs["input_ids"][0].tolist() == [token for each in chosen for token in each.input_ids_T]
    assert batch.targets_N.tolist() == [token for each in chosen for token in each.input_ids_T[each.loss_T]]
    assert batch.units == sum(batch.inputs["sequence_lengths"]) == sum(each.size for each in chosen)
    assert batch.targets_per_sample == [int(each.loss_T.sum()) for each in chosen]
    positions_T = batch.inputs["position_ids"].reshape(-1, batch.units)[0]
    starts = np.flatnonzero(positions_T == 0)
    assert starts.tolist() == np.cumsum([0, *(each.size for each in chosen[:-1])]).tolist()


@pytest.mark.parametrize("name", ["llama", "qwen2.5-vl"])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_the_end_of_a_sample_never_predicts_its_neighbour(name: str, data: st.DataObject) -> None:
    chosen = data.draw(some(name))
    ends = np.cumsum([each.size for each in chosen]) - 1
    batch = packer(name).batch(chosen, packing=True)
    assert not batch.predict_BT[0, ends].any()
    following = batch.inputs["input_ids"][0].roll(-1)[batch.predict_BT[0]]
    assert following.tolist() == batch.targets_N.tolist()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_packed_logits_are_those_of_each_sample_alone(name: str, data: st.DataObject) -> None:
    chosen, made = data.draw(some(name)), packer(name)
    alone_NV = torch.cat([made.logits([each], packing=False) for each in chosen])
    torch.testing.assert_close(made.logits(chosen, packing=True), alone_NV, rtol=0, atol=5e-5)
    torch.testing.assert_close(made.logits(chosen, packing=False), alone_NV, rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999))
def test_a_neighbour_changes_nothing_bit_for_bit(name: str, data: st.DataObject, seed: int) -> None:
    """Every sample but the first gets other words and other pictures; the first one's logits stay."""
    first, *others = data.draw(some(name))
    made, rng, count = packer(name), np.random.default_rng(seed), int(first.loss_T.sum())
    changed = [altered(each, made.encoded.pictures, rng) for each in others]
    before_NV = made.logits([first, *others], packing=True)
    after_NV = made.logits([first, *changed], packing=True)
    assert torch.equal(before_NV[:count], after_NV[:count])
    assert not others or not torch.equal(before_NV[count:], after_NV[count:])


def altered(sample: Sample, pictures: Pictures, rng: np.random.Generator) -> Sample:
    """Of the same shape, with other words, and noise for pictures."""
    ids_T = sample.input_ids_T.copy()
    words_T = sample.loss_T  # no placeholder is among them
    ids_T[words_T] = rng.integers(100, 260, words_T.sum())  # no special token
    images = tuple(ImageAt(Location("noise", 0, place.location.row), place.number) for place in sample.images)
    for place, noisy in zip(sample.images, images, strict=True):
        kept = pictures.load(place)
        noise = rng.normal(size=kept["pixel_values"].shape).astype(np.float32)
        pictures.keep(noisy, {**kept, "pixel_values": noise})
    return replace(sample, input_ids_T=ids_T, images=images)


@pytest.mark.parametrize("name", NAMES)
def test_packed_gradients_are_those_of_the_padded_batch(name: str) -> None:
    made, gradients = packer(name), list[dict[str, torch.Tensor]]()
    chosen = made.encoded.samples[:4]
    for loaded, packing in ((made.packed, True), (made.padded, False)):
        batch = made.batch(chosen, packing=packing)
        functional.cross_entropy(loaded.logits(batch), batch.targets_N).backward()
        gradients.append({key: each.grad for key, each in loaded.trainable.items() if each.grad is not None})
        loaded.module.zero_grad(set_to_none=True)
    assert gradients[0].keys() == gradients[1].keys()
    assert gradients[0]
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key], rtol=1e-3, atol=1e-6)


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


def test_all_sequences_at_once_have_the_shape_of_each() -> None:
    """The kernel itself wants a GPU (tests/gpu); that it is called rightly shows here."""
    query = torch.empty(1, 4, 13, 8, dtype=torch.bfloat16, device="meta")
    key = torch.empty(1, 2, 13, 8, dtype=torch.bfloat16, device="meta")
    for window in (None, 3):
        output = attend_at_once(query, key, key, [3, 5, 5], scaling=0.5, window=window)
        assert (output.shape, output.dtype) == ((1, 13, 4, 8), torch.bfloat16)


def test_packed_attention_refuses_to_guess() -> None:
    """Without lengths, or with a mask, samples could read each other: an error, not a silent leak."""
    query = torch.randn(1, 2, 4, 8)
    module, mask = torch.nn.Module(), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    for lengths, given_mask in ((None, None), ([3], None), ([4], mask)):
        with pytest.raises(ValueError, match="sequence_lengths"):
            packed_attention(module, query, query, query, given_mask, sequence_lengths=lengths)
