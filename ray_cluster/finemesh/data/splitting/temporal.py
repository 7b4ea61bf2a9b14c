"""Cutting videos in time: train first, then val, then test, with gaps between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import Split, SplitOptions
from finemesh.data.splitting.keys import RowKey


def cut_videos(keys: Sequence[RowKey], options: SplitOptions) -> tuple[dict[str, Split], list[str]]:
    """The split of every row by its id, and sentences about it. A video too short for all parts and gaps
    goes to train whole. Raises InvalidError (SPLIT_IMPOSSIBLE).
    """
    videos: defaultdict[str, list[RowKey]] = defaultdict(list)
    for key in keys:
        if key.video_id is None or key.frame_index is None:
            message = f"row {key.row_id} belongs to no video, so there is no time to cut: use by_video"
            raise InvalidError.of("options.strategy", message, reason="SPLIT_IMPOSSIBLE")
        videos[key.video_id].append(key)
    splits: dict[str, Split] = {}
    short = 0
    for frames in videos.values():
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
    share, start, position = 0.0, 0, 0
    for number, (split, ratio) in enumerate(ratios.items(), start=1):
        share += ratio
        # At least one frame each, for this split and for those to come.
        end = min(max(round(usable * share), start + 1), usable - (len(ratios) - number))
        after = position + end - start
        cut.update(dict.fromkeys(frames[position:after], split))
        if number < len(ratios):
            cut.update(dict.fromkeys(frames[after : after + options.gap_frames], Split.GAP))
        start, position = end, after + options.gap_frames
    return cut
