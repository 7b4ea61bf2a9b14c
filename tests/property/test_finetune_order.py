"""The order of samples: the same everywhere, every sample once an epoch."""

from __future__ import annotations

from finemesh.finetune.order import EMPTY_HASH, SampleOrder, epoch_order, roll
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


def test_order_is_pinned() -> None:
    """The order is part of the checkpoint format: a change would make every checkpoint resume wrongly."""
    rows = [f"row-{i}" for i in range(6)]
    assert SampleOrder(rows, 1).take(0, 12) == [5, 0, 3, 1, 2, 4, 1, 3, 2, 4, 0, 5]
    assert epoch_order(rows, 1, 0) != epoch_order(rows, 2, 0)


@given(st.lists(st.text(), max_size=5), st.lists(st.text(), max_size=5))
def test_rolling_hash_continues(first: list[str], second: list[str]) -> None:
    assert roll(roll(EMPTY_HASH, first), second) == roll(EMPTY_HASH, [*first, *second])
