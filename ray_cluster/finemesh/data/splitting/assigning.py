"""A split for every row, by each strategy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import Split, SplitOptions, SplitStrategy
from finemesh.data.splitting.alike import AlikePictures
from finemesh.data.splitting.filling import fill, in_drawn_order
from finemesh.data.splitting.groups import Group, Groups, Tie, group_rows
from finemesh.data.splitting.keys import RowKey
from finemesh.data.splitting.predefined import look_up
from finemesh.data.splitting.stratifying import stratify
from finemesh.data.splitting.temporal import cut_videos

_WORTH_A_WORD: Final = 0.05  # by which a share is off


def strategy_of(keys: Sequence[RowKey], options: SplitOptions) -> SplitStrategy:
    """The strategy, AUTO decided."""
    if options.strategy is not SplitStrategy.AUTO:
        return options.strategy
    one_video = len({key.video_id for key in keys}) == 1 and keys[0].video_id is not None
    return SplitStrategy.TEMPORAL if one_video else SplitStrategy.BY_VIDEO


def assign_splits(
    keys: Sequence[RowKey], options: SplitOptions, alike: AlikePictures | None = None
) -> tuple[dict[str, Split], list[str]]:
    """The split of every row by its id, and sentences about it.

    Raises InvalidError: SPLIT_IMPOSSIBLE, or as `look_up`.
    """
    keys = sorted(keys, key=lambda key: key.row_id)
    strategy = strategy_of(keys, options)
    if strategy is SplitStrategy.TEMPORAL:
        return cut_videos(keys, options)
    if strategy is SplitStrategy.PREDEFINED:
        return look_up(keys, options)
    groups = group_rows(keys, _tie_of(strategy), alike)
    notes = _notes(keys, groups, strategy, options)
    _refuse_impossible(groups, options)
    drawn = in_drawn_order(groups.tied, keys, options.seed)
    if strategy is SplitStrategy.STRATIFIED:
        chosen = stratify(drawn, keys, options.ratios)
    else:
        chosen = fill(drawn, options.ratios)
    splits = {
        keys[place].row_id: split for group, split in zip(drawn, chosen, strict=True) for place in group
    }
    return splits, notes + _off_ratios(splits, groups.tied, options.ratios)


def _tie_of(strategy: SplitStrategy) -> Callable[[RowKey], Tie | None]:
    """What holds rows together besides their pictures."""
    if strategy is SplitStrategy.RANDOM:
        return lambda _: None
    if strategy is SplitStrategy.GROUPED:
        return lambda key: _video(key) if key.group is None else ("group", key.group)
    return _video


def _video(key: RowKey) -> Tie | None:
    return None if key.video_id is None else ("video", key.video_id)


def _refuse_impossible(groups: Groups, options: SplitOptions) -> None:
    """Too few groups, or a chain of similar pictures that leaves next to nothing for the other splits."""
    ratios = options.ratios
    if len(groups.apart) < len(ratios):
        message = (
            f"{len(groups.apart)} videos (or groups of rows that belong together, or are the same) cannot"
            f" fill {len(ratios)} splits without leaking: use fewer splits, more videos, or the"
            " temporal strategy"
        )
        raise InvalidError.of("options.strategy", message, reason="SPLIT_IMPOSSIBLE")
    few = len(groups.tied) < len(ratios)
    if few or (_swallows(groups.tied, ratios) and not _swallows(groups.apart, ratios)):
        rows, largest = _sizes(groups.tied)
        message = (
            f"pictures that resemble each other tie {largest} of {rows} rows together, which leaves too few"
            f" for {len(ratios)} splits: lower max_similar_bits, which is {options.max_similar_bits}"
            " (-1 looks at identical pictures alone)"
        )
        raise InvalidError.of("options.max_similar_bits", message, reason="SPLIT_IMPOSSIBLE")


def _swallows(groups: Sequence[Group], ratios: Mapping[Split, float]) -> bool:
    """Whether the largest group leaves less than half of what the smaller splits should get."""
    rows, largest = _sizes(groups)
    return rows - largest < (1 - max(ratios.values())) * rows / 2


def _sizes(groups: Sequence[Group]) -> tuple[int, int]:
    """Rows in all, and in the largest group."""
    return sum(map(len, groups)), max(map(len, groups))


def _notes(
    keys: Sequence[RowKey], groups: Groups, strategy: SplitStrategy, options: SplitOptions
) -> list[str]:
    notes: list[str] = []
    if strategy is SplitStrategy.STRATIFIED and not any(key.classes for key in keys):
        notes.append("no row has a class: divided by video, as there is nothing to stratify by")
    if strategy is SplitStrategy.GROUPED:
        notes += _without_key(keys, options.group_key)
    if joined := len(groups.apart) - len(groups.tied):
        notes.append(
            f"{joined} groups were joined to others because their pictures differ in at most"
            f" {options.max_similar_bits} of 64 bits"
        )
    return notes


def _without_key(keys: Sequence[RowKey], group_key: str) -> list[str]:
    missing = [key.row_id for key in keys if key.group is None]
    if len(missing) == len(keys):
        message = (
            f"no row has {group_key!r}: group by video_id, class_name, source.file, folder or an attribute"
        )
        raise InvalidError.of("options.group_key", message, reason="SPLIT_IMPOSSIBLE")
    if not missing:
        return []
    return [f"{len(missing)} rows have no {group_key}, e.g. {missing[0]}: grouped by video, or each alone"]


def _off_ratios(
    splits: Mapping[str, Split], groups: Sequence[Group], ratios: Mapping[Split, float]
) -> list[str]:
    """A sentence if groups are too large for the shares that were asked for."""
    rows, largest = _sizes(groups)
    got = Counter(splits.values())
    off = [
        f"{split} {got[split] / rows:.1%} instead of {share:.1%}"
        for split, share in ratios.items()
        if abs(got[split] / rows - share) > _WORTH_A_WORD
    ]
    return [f"{', '.join(off)}: the largest group has {largest} of {rows} rows"] if off else []
