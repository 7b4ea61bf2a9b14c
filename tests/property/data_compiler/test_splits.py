"""Splits over generated datasets: deterministic, independent of order, near their ratios, without leaks."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import Split, SplitOptions, SplitStrategy
from finemesh.data.splitting import AlikePictures, RowKey, assign_splits, measure_leakage
from hypothesis import assume, given
from hypothesis import strategies as st

S = SplitStrategy
GROUPING = (S.BY_VIDEO, S.STRATIFIED, S.GROUPED, S.RANDOM)
HELD_OUT = (Split.VAL, Split.TEST)
BITS = 1


@dataclass(frozen=True)
class Rows:
    """Keys, and a perceptual hash for each picture. Hashes of few bits, so that some are alike."""

    keys: list[RowKey]
    hashes: dict[str, int]

    @property
    def alike(self) -> AlikePictures:
        return AlikePictures.of(self.hashes, np.array([*self.hashes.values()], np.uint64), BITS)

    def resemble(self, one: RowKey, other: RowKey) -> bool:
        """Whether the rows show different pictures that are alike."""
        return any(
            first != second and (self.hashes[first] ^ self.hashes[second]).bit_count() <= BITS
            for first, second in product(one.images, other.images)
        )


@st.composite
def datasets(draw: st.DrawFn) -> Rows:
    """Videos of several frames, and stills; a few pictures occur twice, some rows have none or two."""
    keys: list[RowKey] = []
    for video in range(draw(st.integers(0, 12))):
        for frame in range(draw(st.integers(1, 9))):
            picture = draw(st.integers(0, 400))
            keys.append(RowKey(f"v{video}/{frame}", f"v{video}", frame, (str(picture),)))
    for still in range(draw(st.integers(0, 9))):
        pictures = tuple(f"still {(still + more) // 2}" for more in range(draw(st.integers(0, 2))))
        words = "" if pictures else draw(st.sampled_from(["", "hello", "bye"]))
        keys.append(RowKey(f"s{still}", None, None, pictures, words))
    assume(keys)
    named = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5), max_size=3)
    group = st.none() | st.sampled_from("xyz")
    keys = [replace(key, classes=draw(named), group=draw(group)) for key in keys]
    shown = sorted({image for key in keys for image in key.images})
    hashes = st.integers(0, 2 ** draw(st.integers(2, 40)) - 1)
    return Rows(keys, {image: draw(hashes) for image in shown})


def options_of(*strategies: SplitStrategy) -> st.SearchStrategy[SplitOptions]:
    return st.builds(
        lambda strategy, cut, seed, gap: SplitOptions(
            strategy,
            cut[0],
            cut[1],
            1 - cut[0] - cut[1],
            gap,
            group_key="key" if strategy is S.GROUPED else "",
            max_similar_bits=BITS,
            seed=seed,
        ),
        st.sampled_from(strategies),
        st.sampled_from([(0.7, 0.1), (0.8, 0.0), (0.5, 0.25), (1.0, 0.0), (0.34, 0.33)]),
        st.integers(0, 99),
        st.integers(0, 3),
    )


@given(datasets(), options_of(S.AUTO, S.TEMPORAL, *GROUPING), st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(rows: Rows, options: SplitOptions, shuffle: random.Random) -> None:
    shuffled, pictures = rows.keys.copy(), [*rows.hashes.items()]
    shuffle.shuffle(shuffled)
    shuffle.shuffle(pictures)
    results: list[object] = []
    for order in (rows, Rows(shuffled, dict(pictures))):
        try:
            results.append(assign_splits(order.keys, options, order.alike))
        except InvalidError as error:
            results.append(error.message)
    assert results[0] == results[1]


@given(datasets(), options_of(*GROUPING))
def test_groups_stay_whole_and_meet_the_ratios(rows: Rows, options: SplitOptions) -> None:
    keys = rows.keys
    groups = groups_of(rows, options.strategy)
    sizes = Counter(groups)
    try:
        splits, _ = assign_splits(keys, options, rows.alike)
    except InvalidError as error:
        assert error.reason == "SPLIT_IMPOSSIBLE"
        swallowed = len(keys) - max(sizes.values()) < (1 - max(options.ratios.values())) * len(keys) / 2
        keyless = options.strategy is S.GROUPED and all(key.group is None for key in keys)
        assert len(sizes) < len(options.ratios) or swallowed or keyless
        return
    assert splits.keys() == {key.row_id for key in keys}
    sides = {(group, splits[key.row_id]) for group, key in zip(groups, keys, strict=True)}
    assert len(sides) == len(sizes), "every group lies on one side"
    leakage = measure_leakage(keys, splits, rows.alike)
    assert leakage.by_image == leakage.by_similar == 0
    counts = Counter(splits.values())
    assert set(counts) == set(options.ratios), "no split that was asked for is empty"
    largest = max(sizes.values())
    smallest_share = min(options.ratios.values()) * len(keys)
    for split, share in options.ratios.items():
        off = abs(counts[split] - share * len(keys))
        assert off <= (largest + 1e-6 if smallest_share >= largest else 2 * largest + len(options.ratios))


def groups_of(rows: Rows, strategy: SplitStrategy) -> list[int]:
    """The connected group of each row, found by spreading labels until nothing changes."""
    keys = rows.keys
    ties = [{("row", key.row_id), *(("image", image) for image in key.images)} for key in keys]
    for key, tie in zip(keys, ties, strict=True):
        tie.update({("words", key.words)} if key.words else ())
    for key, tie in zip(keys, ties, strict=True):
        if strategy is S.GROUPED and key.group is not None:
            tie.add(("group", key.group))
        elif strategy is not S.RANDOM and key.video_id is not None:
            tie.add(("video", key.video_id))
    for one, other in product(range(len(keys)), repeat=2):
        if one < other and rows.resemble(keys[one], keys[other]):
            ties[one].add(("alike", f"{one} {other}"))
            ties[other].add(("alike", f"{one} {other}"))
    label = list(range(len(keys)))
    changed = True
    while changed:
        least: defaultdict[tuple[str, str], int] = defaultdict(lambda: len(keys))
        for place, tie in enumerate(ties):
            for each in tie:
                least[each] = min(least[each], label[place])
        new = [min(least[each] for each in tie) for tie in ties]
        changed, label = new != label, new
    return label


@given(datasets(), st.data())
def test_leakage_is_what_counting_by_hand_gives(rows: Rows, data: st.DataObject) -> None:
    sides = st.sampled_from([Split.TRAIN, *HELD_OUT, Split.GAP])
    splits = {key.row_id: data.draw(sides) for key in rows.keys}
    train = [key for key in rows.keys if splits[key.row_id] is Split.TRAIN]
    held_out = [key for key in rows.keys if splits[key.row_id] in HELD_OUT]
    ways = [
        (
            any(key.video_id is not None and key.video_id == other.video_id for other in train),
            any(
                set(key.images) & set(other.images) or (key.words and key.words == other.words)
                for other in train
            ),
            any(rows.resemble(key, other) for other in train),
        )
        for key in held_out
    ]
    total = max(len(held_out), 1)
    found = measure_leakage(rows.keys, splits, rows.alike)
    assert found.score == sum(map(any, ways)) / total
    shares = [sum(way[number] for way in ways) / total for number in range(3)]
    assert [found.by_video, found.by_image, found.by_similar] == shares
    assert measure_leakage(rows.keys, splits).by_similar is None


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 6).map(lambda tens: 10 * tens), min_size=1),
    st.integers(0, 99),
)
def test_stratified_split_of_one_class_a_row_is_exact(classes: dict[str, int], seed: int) -> None:
    names = [name for name, count in classes.items() for _ in range(count)]
    keys = [RowKey(str(row), None, None, (), classes={name: 1}) for row, name in enumerate(names)]
    splits, notes = assign_splits(keys, SplitOptions(S.STRATIFIED, seed=seed))
    got = Counter((name, splits[str(row)]) for row, name in enumerate(names))
    wanted = {Split.TRAIN: 6, Split.VAL: 1, Split.TEST: 3}
    assert got == {(name, split): classes[name] // 10 * wanted[split] for name in classes for split in wanted}
    assert not notes


@given(
    st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 4), max_size=4), min_size=3),
    st.integers(0, 99),
)
def test_stratified_split_follows_the_paper_step_by_step(rows: list[dict[str, int]], seed: int) -> None:
    keys = [RowKey(str(row), None, None, (), classes=classes) for row, classes in enumerate(rows)]
    options = SplitOptions(S.STRATIFIED, 0.5, 0.25, 0.25, seed=seed)
    splits, _ = assign_splits(keys, options)
    assert splits == stratified_naively(rows, options)


def stratified_naively(rows: list[dict[str, int]], options: SplitOptions) -> dict[str, Split]:
    """Every row a group: at each step all classes are counted anew, and all splits."""
    waiting = sorted(
        range(len(rows)), key=lambda row: hashlib.sha256(f"{options.seed}\0{row}".encode()).digest()
    )
    splits: dict[str, Split] = {}

    def lacking(split: Split, name: str = "") -> float:
        total = sum(row.get(name, 0) for row in rows) if name else len(rows)
        got = [rows[int(row)].get(name, 0) if name else 1 for row, at in splits.items() if at is split]
        return round(options.ratios[split] * total - sum(got), 6)

    while waiting:
        left = Counter(name for row in waiting for name in rows[row])
        rarest = min(left, key=lambda name: (left[name], name), default="")
        for row in [row for row in waiting if not rarest or rarest in rows[row]]:
            empty = [split for split in options.ratios if split not in splits.values()]
            open_to = empty if len(waiting) <= len(empty) else [*options.ratios]
            most = max(open_to, key=lacking)
            fitting = [split for split in open_to if lacking(split) >= 1] or [most]
            best = (
                max(fitting, key=lambda split: (lacking(split, rarest), lacking(split))) if rarest else most
            )
            splits[str(row)] = best
            waiting.remove(row)
    return splits


@given(datasets(), st.data())
def test_lists_are_followed_or_refused(rows: Rows, data: st.DataObject) -> None:
    keys = rows.keys
    names = [*(key.row_id for key in keys), *{key.video_id for key in keys if key.video_id}, "*"]
    listed = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(["train", "val", "gap"])))
    options = SplitOptions(S.PREDEFINED, assignments=listed)
    wanted = {
        key.row_id: listed.get(key.row_id, listed.get(key.video_id or "", listed.get("*"))) for key in keys
    }
    try:
        splits, notes = assign_splits(keys, options)
    except InvalidError as error:
        assert error.reason == "ASSIGNMENT_INCOMPLETE"
        assert None in wanted.values()
        return
    assert splits == wanted
    by_star = [key for key in keys if key.row_id not in listed and (key.video_id or "") not in listed]
    assert len(notes) == bool(by_star)


@given(st.integers(1, 200), st.integers(0, 12), options_of(S.TEMPORAL))
def test_temporal_split_keeps_time_and_gaps(frames: int, gap: int, options: SplitOptions) -> None:
    keys = [RowKey(f"v/{index}", "v", 7 * index, (str(index),)) for index in range(frames)]
    options = replace(options, gap_frames=gap)
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
