"""The order of samples: the same everywhere, every sample once an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
from finemesh.finetune.order import EMPTY_HASH, Grouping, SampleOrder, epoch_order, roll
from hypothesis import given
from hypothesis import strategies as st

ids = st.lists(st.text(), min_size=1, max_size=30, unique=True)


@given(ids, st.integers(0, 2**63 - 1), st.integers(0, 100))
def test_an_epoch_is_a_permutation_that_ignores_the_order_of_rows(
    rows: list[str], seed: int, epoch: int
) -> None:
    order = epoch_order(rows, seed, epoch)
    assert sorted(order) == list(range(len(rows)))
    backwards = rows[::-1]
    assert [backwards[i] for i in epoch_order(backwards, seed, epoch)] == [rows[i] for i in order]


@given(ids, st.integers(0, 100), st.lists(st.integers(1, 20), max_size=8))
def test_taking_in_any_portions_gives_the_same_stream(
    rows: list[str], start: int, portions: list[int]
) -> None:
    whole = SampleOrder(rows, 7).take(start, sum(portions))
    order, pieces, position = SampleOrder(rows, 7), list[int](), start
    for portion in portions:
        pieces += order.take(position, portion)
        position += portion
    assert pieces == whole


@given(ids, st.integers(0, 50), st.integers(1, 9), st.data())
def test_grouped_by_size_an_epoch_is_a_permutation_that_ignores_the_order_of_rows(
    rows: list[str], epoch: int, batch: int, data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=len(rows), max_size=len(rows)))

    def stream(rows: list[str], sizes: list[int]) -> list[str]:
        order = SampleOrder(rows, 7, Grouping(sizes, batch))
        return [rows[i] for i in order.take(epoch * len(rows), len(rows))]

    assert sorted(stream(rows, sizes)) == sorted(rows)
    assert stream(rows[::-1], sizes[::-1]) == stream(rows, sizes)


def test_grouping_leaves_little_padding_and_another_mix_each_epoch() -> None:
    """Steps take batches of the stream from its start on, whatever an epoch's length."""
    count, batch = 4099, 8
    sizes = np.random.default_rng(0).lognormal(4.5, 0.7, count).astype(int)
    rows = [f"row-{i}" for i in range(count)]

    def batches(epoch: int, grouping: Grouping | None) -> np.ndarray[Any, Any]:
        start = -(-epoch * count // batch) * batch
        return np.array(SampleOrder(rows, 1, grouping).take(start, 4088)).reshape(-1, batch)

    def padding(taken: np.ndarray[Any, Any]) -> float:
        return 1 - sizes[taken].sum() / (sizes[taken].max(axis=1).sum() * batch)

    grouping = Grouping(sizes.tolist(), batch)
    assert padding(batches(0, None)) > 0.4
    first, second = batches(0, grouping), batches(1, grouping)
    assert max(padding(first), padding(second)) < 0.05
    assert len({frozenset(each) for each in (*first.tolist(), *second.tolist())}) > 2 * len(first) - 5


def test_order_is_pinned() -> None:
    """The order is part of the checkpoint format: a change would make every checkpoint resume wrongly."""
    rows = [f"row-{i}" for i in range(6)]
    assert SampleOrder(rows, 1).take(0, 12) == [5, 0, 3, 1, 2, 4, 1, 3, 2, 4, 0, 5]
    assert SampleOrder(rows, 1, Grouping([3, 1, 2, 3, 1, 2], 2)).take(0, 12) == [
        *(5, 0, 1, 3, 4, 2),
        *(4, 2, 5, 0, 1, 3),
    ]
    assert epoch_order(rows, 1, 0) != epoch_order(rows, 2, 0)


@given(st.lists(st.text(), max_size=5), st.lists(st.text(), max_size=5))
def test_rolling_hash_continues(first: list[str], second: list[str]) -> None:
    assert roll(roll(EMPTY_HASH, first), second) == roll(EMPTY_HASH, [*first, *second])
