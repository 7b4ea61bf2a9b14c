"""Close hashes are found, all of them and no others."""

from __future__ import annotations

import numpy as np
import pytest
from finemesh.data.similarity import iter_similar_pairs, similar_pairs
from hypothesis import given, settings
from hypothesis import strategies as st

WORDS = st.integers(0, 2**64 - 1)


def _by_definition(hashes: list[int], max_bits: int) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= max_bits
    ]


@given(st.lists(WORDS, max_size=12), st.integers(0, 64))
def test_few_hashes(hashes: list[int], max_bits: int) -> None:
    found = similar_pairs(np.array(hashes, np.uint64), max_bits)
    assert [tuple(pair) for pair in found.tolist()] == _by_definition(hashes, max_bits)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 9), st.integers(1, 4))
def test_many_hashes_with_crowded_bands(seed: int, max_bits: int, sparsity: int) -> None:
    draw = np.random.default_rng(seed)
    words = draw.integers(0, 2**64, (sparsity, 400), dtype=np.uint64)
    hashes = np.bitwise_and.reduce(words)  # the sparser the bits, the more alike
    hashes[200:] = hashes[:200] ^ (np.uint64(1) << draw.integers(0, 64, 200).astype(np.uint64))
    found = similar_pairs(hashes, max_bits)
    assert [tuple(pair) for pair in found.tolist()] == _by_definition(hashes.tolist(), max_bits)


@pytest.mark.parametrize("max_bits", [0, 3, 4, 6])
def test_twenty_thousand_hashes(max_bits: int) -> None:
    draw = np.random.default_rng(1)
    hashes = draw.integers(0, 2**64, 20_000, dtype=np.uint64)
    hashes[10_000:10_100] = hashes[:100]
    hashes[20:30] ^= np.uint64(0b111 << 30)
    found = {tuple(pair) for pair in similar_pairs(hashes, max_bits).tolist()}
    planted = {(i, 10_000 + i) for i in range(100) if max_bits >= 3 or not 20 <= i < 30}
    assert found == planted, "random words of 64 bits are nowhere as close as this"


def test_blocks_are_bounded_however_alike_the_hashes_are() -> None:
    sizes = [len(block) for block in iter_similar_pairs(np.zeros(3_000, np.uint64), 4)]
    assert sum(sizes) == 3_000 * 2_999 // 2
    assert max(sizes) <= 1 << 20
