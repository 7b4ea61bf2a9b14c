"""Splitting a dataset into train, val and test so that nothing leaks: by video, or along the time of one
video.

The split of a row depends on the seed and on what rows there are, never on their order.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import (
    DatasetManifest,
    DatasetOrigin,
    Leakage,
    Split,
    SplitOptions,
    SplitStrategy,
)
from finemesh.data.rows import Progress
from finemesh.data.storage import iter_batches, load_manifest, options_json
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter

_KEYS: Final = ("row_id", "video_id", "frame_index", "images.list.element.sha256")
_HELD_OUT: Final = (Split.VAL, Split.TEST)


@dataclass(frozen=True, slots=True)
class RowKey:
    """What decides the split of a row."""

    row_id: str
    video_id: str | None
    frame_index: int | None
    images: tuple[str, ...]
    """SHA-256 of each picture."""


def row_key(row: Mapping[str, Any]) -> RowKey:
    """The key of a row, or of its columns that make the key."""
    images = tuple(image["sha256"] for image in row["images"])
    return RowKey(row["row_id"], row["video_id"], row["frame_index"], images)


def split_dataset(dataset: Path, out: Path, options: SplitOptions, progress: Progress) -> DatasetManifest:
    """Write the canonical dataset in `dataset` to `out`, an empty or absent folder, with a split for every
    row.

    Raises:
        InvalidError: SPLIT_IMPOSSIBLE, there are too few videos or frames for the splits asked for.
        NotFoundError, PreconditionError: as `iter_batches`. AlreadyExistsError: OUTPUT_NOT_EMPTY.
    """
    parent = load_manifest(dataset)
    progress(0.0, "reading keys")
    keys = [row_key(row) for batch in iter_batches(dataset, _KEYS) for row in batch.to_pylist()]
    splits, notes = assign_splits(keys, options)
    leakage = measure_leakage(keys, splits)
    with DatasetWriter(parent.format, FormContext(out)) as writer:
        done = 0
        for batch in iter_batches(dataset):
            row_ids: list[str] = batch.column("row_id").to_pylist()
            writer.copy(_with_splits(batch, [splits[row_id] for row_id in row_ids]))
            done += len(row_ids)
            progress(done / max(parent.rows, 1), f"{done} of {parent.rows} rows")
        manifest = writer.commit(
            DatasetOrigin.SPLIT,
            options=options_json(options),
            parents=[parent.digest],
            warnings=list(dict.fromkeys([*parent.warnings, *notes])),
            leakage=leakage,
            header=parent.header,
        )
    progress(1.0, ", ".join(f"{split} {count}" for split, count in manifest.splits.items()))
    return manifest


def _with_splits(batch: pa.RecordBatch, splits: Sequence[Split]) -> pa.RecordBatch:
    index = batch.schema.get_field_index("split")
    return batch.set_column(
        index, batch.schema.field(index), pa.array([str(split) for split in splits], pa.string())
    )


def assign_splits(keys: Sequence[RowKey], options: SplitOptions) -> tuple[dict[str, Split], list[str]]:
    """The split of every row by its id, and sentences about it. Raises InvalidError (SPLIT_IMPOSSIBLE)."""
    groups = _groups(keys)
    strategy = options.strategy
    if strategy is SplitStrategy.AUTO:
        one_video = len({key.video_id for key in keys}) == 1 and keys[0].video_id is not None
        strategy = SplitStrategy.TEMPORAL if one_video else SplitStrategy.BY_VIDEO
    if strategy is SplitStrategy.TEMPORAL:
        return _temporal(keys, options)
    return _grouped(groups, options), []


def _groups(keys: Sequence[RowKey]) -> list[list[str]]:
    """Row ids that must stay together: of one video, or with one and the same picture, and so on through
    both.
    """
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        root = node
        while (above := parent.setdefault(root, root)) != root:
            root = above
        while parent[node] != root:
            parent[node], node = root, parent[node]
        return root

    owners = {
        key.row_id: f"row\0{key.row_id}" if key.video_id is None else f"video\0{key.video_id}" for key in keys
    }
    for key in keys:
        for image in key.images:
            parent[find(f"image\0{image}")] = find(owners[key.row_id])
    members: defaultdict[str, list[str]] = defaultdict(list)
    for row_id, owner in owners.items():
        members[find(owner)].append(row_id)
    return [sorted(group) for group in members.values()]


def _grouped(groups: list[list[str]], options: SplitOptions) -> dict[str, Split]:
    """Groups in an order drawn by the seed, each to the split that lacks most rows: no ratio is off by more
    than a group.
    """
    ratios = options.ratios
    if len(groups) < len(ratios):
        message = (
            f"{len(groups)} videos (or groups of identical pictures) cannot fill {len(ratios)} splits"
            " without leaking: use fewer splits, more videos, or the temporal strategy"
        )
        raise InvalidError.of("options.strategy", message, reason="SPLIT_IMPOSSIBLE")
    drawn = sorted(groups, key=lambda group: _draw(options.seed, group[0]))
    total = sum(len(group) for group in groups)
    lacking = {split: share * total for split, share in ratios.items()}
    splits: dict[str, Split] = {}
    empty = set(ratios)
    for position, group in enumerate(drawn):
        remaining = len(drawn) - position
        choices: Iterable[Split] = (
            [split for split in ratios if split in empty] if remaining <= len(empty) else ratios
        )
        chosen = max(choices, key=lambda split: lacking[split])
        lacking[chosen] -= len(group)
        empty.discard(chosen)
        splits.update(dict.fromkeys(group, chosen))
    return splits


def _draw(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{group}".encode()).digest()


def _temporal(keys: Sequence[RowKey], options: SplitOptions) -> tuple[dict[str, Split], list[str]]:
    """Each video cut in time. A video too short for all parts and gaps goes to train whole."""
    videos: defaultdict[str, list[RowKey]] = defaultdict(list)
    for key in keys:
        if key.video_id is None or key.frame_index is None:
            message = f"row {key.row_id} belongs to no video, so there is no time to cut: use by_video"
            raise InvalidError.of("options.strategy", message, reason="SPLIT_IMPOSSIBLE")
        videos[key.video_id].append(key)
    splits: dict[str, Split] = {}
    short = 0
    for video_id in sorted(videos):
        frames = sorted(videos[video_id], key=lambda key: (key.frame_index or 0, key.row_id))
        parts = _cut(sorted({key.frame_index or 0 for key in frames}), options)
        short += parts is None
        splits.update({key.row_id: parts[key.frame_index or 0] if parts else Split.TRAIN for key in frames})
    if short == len(videos):
        message = (
            f"no video has frames enough for {len(options.ratios)} splits with {options.gap_frames} frames"
            " between them: lower gap_frames, or use fewer splits"
        )
        raise InvalidError.of("options.gap_frames", message, reason="SPLIT_IMPOSSIBLE")
    counted = "one video" if len(videos) == 1 else f"{len(videos)} videos"
    notes = [f"{counted}: temporal split with a gap of {options.gap_frames} frames"]
    if short:
        notes.append(f"{short} videos are too short to be cut and lie in train whole")
    return splits, notes


def _cut(frames: list[int], options: SplitOptions) -> dict[int, Split] | None:
    """The split of each frame index, in order of time; None if there are too few frames."""
    ratios = options.ratios
    usable = len(frames) - options.gap_frames * (len(ratios) - 1)
    if usable < len(ratios):
        return None
    cut: dict[int, Split] = {}
    start, share = 0, 0.0
    ends: list[int] = []
    for number, ratio in enumerate(ratios.values(), start=1):
        share += ratio
        # At least one frame each, for this split and for those to come.
        end = min(max(round(usable * share), start + 1), usable - (len(ratios) - number))
        ends.append(end)
        start = end
    position = begin = 0
    for number, (split, end) in enumerate(zip(ratios, ends, strict=True)):
        if number:
            for index in frames[position : position + options.gap_frames]:
                cut[index] = Split.GAP
            position += options.gap_frames
        for index in frames[position : position + end - begin]:
            cut[index] = split
        position += end - begin
        begin = end
    return cut


def measure_leakage(keys: Sequence[RowKey], splits: Mapping[str, Split]) -> Leakage:
    """How much of val and test is also in train, by video and by exact picture."""
    train = [key for key in keys if splits[key.row_id] is Split.TRAIN]
    videos = {key.video_id for key in train if key.video_id is not None}
    images = {image for key in train for image in key.images}
    counts: Counter[str] = Counter()
    held_out = [key for key in keys if splits[key.row_id] in _HELD_OUT]
    for key in held_out:
        same_video, same_image = key.video_id in videos, not images.isdisjoint(key.images)
        counts.update(video=same_video, image=same_image, any=same_video or same_image)
    total = max(len(held_out), 1)
    return Leakage(
        score=counts["any"] / total, by_video=counts["video"] / total, by_image=counts["image"] / total
    )
