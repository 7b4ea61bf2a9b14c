"""Where the frames of a video come from: a folder of pictures, the video itself, or, without either, its
masks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final, Protocol

from finemesh.data.faults import RowFault
from finemesh.data.images import FRAME, SUFFIXES, Picture, check_picture, check_size, encode_jpeg
from finemesh.data.render import Renderer
from finemesh.data.rle import Mask
from finemesh.data.sources import Source

VIDEO_SUFFIXES: Final = (".mp4", ".mov", ".mkv", ".webm")
_NUMBER: Final = re.compile(r"(\d+)\D*$")


class Frames(Protocol):
    def get(self, index: int, masks: Sequence[tuple[str, Mask]]) -> Picture:
        """The picture of annotated frame `index`, asked for in rising order; `masks` are its objects'. Raises
        RowFault.
        """
        ...


class FolderFrames:
    """Pictures by the number of their frame in the video; annotated frame k is video frame k x `stride`."""

    def __init__(self, source: Source, by_number: Mapping[int, str], stride: int, max_pixels: int) -> None:
        self._source, self._by_number, self._stride, self._max_pixels = source, by_number, stride, max_pixels

    def get(self, index: int, masks: Sequence[tuple[str, Mask]]) -> Picture:
        del masks
        name = self._by_number.get(index * self._stride)
        if name is None:
            raise RowFault(
                "FRAME_MISSING", f"the folder has no picture of frame {index * self._stride}", "image"
            )
        return check_picture(self._source.read(name), FRAME, self._max_pixels)


class VideoFrames:
    """Frames decoded from a video file, forwards only, each once."""

    def __init__(self, source: Source, name: str, stride: int, max_pixels: int) -> None:
        self._frames = _decode(source, name, max_pixels)
        self._next, self._stride = 0, stride
        self._fault: RowFault | None = None

    def get(self, index: int, masks: Sequence[tuple[str, Mask]]) -> Picture:
        del masks
        if self._fault:  # nothing comes behind it
            raise RowFault(self._fault.reason, self._fault.message, self._fault.field)
        try:
            for frame in self._frames:
                self._next += 1
                if self._next > index * self._stride:
                    return encode_jpeg(frame.to_image(), FRAME)
        except RowFault as fault:
            self._fault = fault
            raise
        message = f"the video ends after {self._next} frames, before frame {index * self._stride}"
        raise RowFault("FRAME_MISSING", message, "image")


class RenderedFrames:
    """Frames made from the masks."""

    def __init__(self, seed: int, video_id: str, width: int, height: int, max_pixels: int) -> None:
        self._seed, self._video_id, self._max_pixels = seed, video_id, max_pixels
        self._width, self._height = width, height
        self._renderer: Renderer | None = None

    def get(self, index: int, masks: Sequence[tuple[str, Mask]]) -> Picture:
        del index
        if self._renderer is None:
            check_size(self._width, self._height, self._max_pixels)
            self._renderer = Renderer(self._seed, self._video_id, self._width, self._height)
        return self._renderer.picture(masks)


def _decode(source: Source, name: str, max_pixels: int) -> Iterator[Any]:
    """Decoded frames of the first video stream. Raises RowFault (VIDEO_UNREADABLE, IMAGE_TOO_LARGE)."""
    import av

    try:
        with av.open(str(source.local_path(name))) as container:
            if not container.streams.video:
                raise RowFault("VIDEO_UNREADABLE", f"{name} has no video stream", "image")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            check_size(stream.width, stream.height, max_pixels)
            # A stream may change its size on the way.
            stream.codec_context.options = {"max_pixels": str(max_pixels)}
            yield from container.decode(stream)
    except (av.FFmpegError, ValueError) as error:
        why = getattr(error, "strerror", None) or error  # without the path on this machine
        raise RowFault("VIDEO_UNREADABLE", f"{name} cannot be decoded: {why}", "image") from error


def numbered_pictures(names: Sequence[str]) -> dict[int, str]:
    """Pictures by the last number in their name, e.g. 12 for `frames/dog/00012.jpg`."""
    numbers: dict[int, str] = {}
    for name in names:
        path = PurePosixPath(name)
        found = _NUMBER.search(path.stem) if path.suffix.lower() in SUFFIXES else None
        if found:
            numbers[int(found.group(1))] = name
    return numbers
