"""Splits over generated datasets: deterministic, independent of order, near their ratios, without leaks."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import Split, SplitOptions, SplitStrategy
from finemesh.data.splitting import RowKey, assign_splits, measure_leakage
from hypothesis import assume, given
from hypothesis import strategies as st


@st.composite
def datasets(draw: st.DrawFn) -> list[RowKey]:
    """Videos of several frames, and stills; a few pictures occur twice."""
    keys: list[RowKey] = []
    for video in range(draw(st.integers(0, 12))):
        for frame in range(draw(st.integers(1, 9))):
            picture = draw(st.integers(0, 400))
            keys.append(RowKey(f"v{video}/{frame}", f"v{video}", frame, (str(picture),)))
    keys.extend(
        RowKey(f"s{still}", None, None, (f"still {still // 2}",)) for still in range(draw(st.integers(0, 9)))
    )
    assume(keys)
    return keys


options = st.builds(
    lambda strategy, cut, seed, gap: SplitOptions(strategy, cut[0], cut[1], 1 - cut[0] - cut[1], gap, seed),
    st.sampled_from([SplitStrategy.AUTO, SplitStrategy.BY_VIDEO, SplitStrategy.TEMPORAL]),
    st.sampled_from([(0.7, 0.1), (0.8, 0.0), (0.5, 0.25), (1.0, 0.0), (0.34, 0.33)]),
    st.integers(0, 99),
    st.integers(0, 3),
)


@given(datasets(), options, st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(
    keys: list[RowKey], options: SplitOptions, shuffle: random.Random
) -> None:
    shuffled = keys.copy()
    shuffle.shuffle(shuffled)
    results: list[object] = []
    for order in (keys, shuffled):
        try:
            results.append(assign_splits(order, options))
        except InvalidError as error:
            results.append(error.reason)
    assert results[0] == results[1]


@given(datasets(), options)
def test_grouped_split_never_leaks_and_meets_its_ratios(keys: list[RowKey], options: SplitOptions) -> None:
    options = SplitOptions(
        SplitStrategy.BY_VIDEO, options.train, options.val, options.test, seed=options.seed
    )
    try:
        splits, _ = assign_splits(keys, options)
    except InvalidError as error:
        assert error.reason == "SPLIT_IMPOSSIBLE"
        return
    assert splits.keys() == {key.row_id for key in keys}
    assert measure_leakage(keys, splits).score == 0
    counts = Counter(splits.values())
    assert set(counts) == set(options.ratios), "no split that was asked for is empty"
    largest = max(Counter(group_of(keys)).values())
    for split, share in options.ratios.items():
        assert abs(counts[split] - share * len(keys)) <= 2 * largest + len(options.ratios)


def group_of(keys: list[RowKey]) -> list[int]:
    """The connected group of each row, found by spreading labels until nothing changes."""
    label = dict(enumerate(range(len(keys))))
    changed = True
    while changed:
        changed = False
        least: defaultdict[tuple[str, ...], int] = defaultdict(lambda: len(keys))
        for index, key in enumerate(keys):
            for name in (("image", *key.images), ("video", key.video_id or key.row_id)):
                least[name] = min(least[name], label[index])
        for index, key in enumerate(keys):
            new = min(least["image", *key.images], least["video", key.video_id or key.row_id])
            changed |= new != label[index]
            label[index] = new
    return list(label.values())


@given(st.integers(1, 200), st.integers(0, 12), options)
def test_temporal_split_keeps_time_and_gaps(frames: int, gap: int, options: SplitOptions) -> None:
    keys = [RowKey(f"v/{index}", "v", 7 * index, (str(index),)) for index in range(frames)]
    options = SplitOptions(SplitStrategy.TEMPORAL, options.train, options.val, options.test, gap)
    try:
        splits, _ = assign_splits(keys, options)
    except InvalidError as error:
        assert error.reason == "SPLIT_IMPOSSIBLE"
        assert frames < len(options.ratios) + gap * (len(options.ratios) - 1)
        return
    order = [splits[key.row_id] for key in keys]
    parts = [split for split in options.ratios for _ in range(order.count(split))]
    assert [split for split in order if split is not Split.GAP] == parts, "train, then val, then test"
    assert order.count(Split.GAP) == gap * (len(options.ratios) - 1)
    usable = len(parts)
    for split, share in options.ratios.items():
        assert abs(order.count(split) - share * usable) <= len(options.ratios)
