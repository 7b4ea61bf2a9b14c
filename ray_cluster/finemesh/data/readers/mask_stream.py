"""What the SAM 2 demo streams of a video, as a source of its own. Source: facebookresearch/sam2, demo
(`propagate_in_video`): JSON Lines, or a list, of `{"frame_index", "results": [{"object_id", "mask"}]}`.

The file is called as its video, or as the folder of its frames. There are no classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finemesh.data.faults import RowFault
from finemesh.data.frames import RenderedFrames
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.readers.context import ReadContext, stem
from finemesh.data.readers.frame_files import FrameFiles
from finemesh.data.readers.masklets import AnnotatedFrame, Video, stream_frames, video_rows
from finemesh.data.readers.short_names import short_names, warn_unread
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate


def detect(survey: Survey) -> str | None:
    return next((name for name in _json_files(survey) if _is_stream(survey, name)), None)


def _json_files(survey: Survey) -> list[str]:
    return [*survey.json_files, *survey.json_lines_files]


def _is_stream(survey: Survey, name: str) -> bool:
    record = survey.first_record(name)
    return record is not None and "frame_index" in record and isinstance(record.get("results"), list)


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of the frames of all streams, one video after the other. Raises InvalidError (see
    stream_frames).
    """
    survey, rows, files = context.survey, 0, FrameFiles(context)
    names = [name for name in _json_files(survey) if _is_stream(survey, name)] or _json_files(survey)
    warn_unread(context, _json_files(survey), names)
    for name, short in short_names(names).items():
        frames = stream_frames(context, name)
        rows += len(frames)
        context.total = rows
        size = _size(frames)
        video = Video(name, stem(name), *(size or (1, 1)), frames, 1, prefix=short)
        pictures = files.beside(video)
        if size is None and isinstance(pictures, RenderedFrames) and frames:
            problem = "hold no mask whose size would be the picture's: put the video beside the stream"
            raise malformed_annotations(name, "results", problem)
        yield from video_rows(video, pictures)


def _size(frames: list[AnnotatedFrame]) -> tuple[int, int] | None:
    """Width and height of the first mask that states them."""
    for frame in frames:
        try:
            values = [raw.value for raw in frame.masks()]
        except RowFault:
            continue
        for value in values:
            size: Any = value.get("size") if isinstance(value, dict) else None
            if (
                isinstance(size, list)
                and len(size) == 2
                and all(type(side) is int and side > 0 for side in size)
            ):
                return size[1], size[0]
    return None
