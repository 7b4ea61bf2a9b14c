"""SA-V masklets: one JSON file per video. Source: facebookresearch/sam2, sav_dataset/README.md.

`masklet[k][j]` is the RLE of object j in annotated frame k; `masklet_id[j]` is its id. Videos run at 24
frames per second and are annotated at 6, so annotated frame k is video frame 4k. An invisible object is an
all-zero RLE. There are no classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from finemesh.data.faults import RowFault
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.readers.context import ReadContext, load_object, stem
from finemesh.data.readers.frame_files import FrameFiles
from finemesh.data.readers.masklets import AnnotatedFrame, RawMask, Video, video_rows
from finemesh.data.readers.short_names import short_names
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate

_MARKS: Final = ("masklet", "masklet_id", "masklet_num")
_DEFAULT_STRIDE: Final = 4
_KIND: Final = re.compile(r"_(manual|auto)$")  # of the annotations, not in the name of the video


def detect(survey: Survey) -> str | None:
    return next(iter(survey.json_with_keys(*_MARKS)), None)


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of all SA-V files of a source. Raises InvalidError for a file that is not SA-V."""
    files = FrameFiles(context)
    for name, short in short_names(context.survey.json_with_keys(*_MARKS)).items():
        video = replace(load_video(context, name), prefix=short)
        context.total += len(video.frames)
        yield from video_rows(video, files.beside(video))


def load_video(context: ReadContext, name: str) -> Video:
    """The masklets of one file. Raises InvalidError (MALFORMED_ANNOTATIONS)."""
    value = load_object(context.source, name)
    frames, ids = value.get("masklet"), value.get("masklet_id")
    if not isinstance(frames, list):
        raise malformed_annotations(name, "masklet", "is missing or not a list of frames")
    if not isinstance(ids, list):
        raise malformed_annotations(name, "masklet_id", "is missing or not a list")
    object_ids = tuple(str(object_id) for object_id in ids)
    return Video(
        file=name,
        video_id=str(value.get("video_id") or _KIND.sub("", stem(name))),
        width=_whole(value.get("video_width"), name, "video_width"),
        height=_whole(value.get("video_height"), name, "video_height"),
        frames=[
            AnnotatedFrame(index, f"masklet[{index}]", partial(_masks, object_ids, index, masks))
            for index, masks in enumerate(frames)
        ],
        stride=_stride(value.get("video_frame_count"), len(frames)),
    )


def _masks(object_ids: tuple[str, ...], index: int, values: Any) -> list[RawMask]:
    if not isinstance(values, list) or len(values) != len(object_ids):
        found = f"{len(values)} masks" if isinstance(values, list) else type(values).__name__
        message = f"the frame holds {found} for {len(object_ids)} objects"
        raise RowFault("MASK_COUNT_MISMATCH", message, f"masklet[{index}]")
    pairs = enumerate(zip(object_ids, values, strict=True))
    return [RawMask(object_id, value, f"masklet[{index}][{j}]") for j, (object_id, value) in pairs]


def _whole(value: object, name: str, field: str) -> int:
    """A positive whole number; the files write some of them as floats."""
    if isinstance(value, int | float) and 0 < value < math.inf and value == int(value):
        return int(value)
    raise malformed_annotations(name, field, f"is {value!r}, not a positive whole number")


def _stride(video_frame_count: object, annotated_frames: int) -> int:
    if isinstance(video_frame_count, int | float) and 0 < video_frame_count < 1e9 and annotated_frames > 0:
        return max(1, round(video_frame_count / annotated_frames))
    return _DEFAULT_STRIDE
