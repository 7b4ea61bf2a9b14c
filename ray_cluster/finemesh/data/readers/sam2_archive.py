"""The SAM 2 export archive, a layout of this project: docs/reference/sam2-archive.md.

`manifest.json` names videos, classes and each object's class; masklets are SA-V JSON or SAM 2 demo mask
streams; frames are folders of pictures or a video file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from finemesh.core.errors import InvalidError
from finemesh.data.frames import FolderFrames, Frames, VideoFrames
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.readers.context import ReadContext, load_json, load_object
from finemesh.data.readers.frame_files import FrameFiles
from finemesh.data.readers.masklets import Video, rendered_frames, stream_frames, video_rows
from finemesh.data.readers.sav import load_video
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate
from finemesh.data.sources import Source

FORMAT: Final = "finemesh.sam2-export"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"


def detect(survey: Survey) -> str | None:
    return find_manifest(survey.source)


def find_manifest(source: Source) -> str | None:
    """The name of the archive's manifest: at the top, or in the one folder that wraps everything."""
    if MANIFEST in source.names:
        candidates = [MANIFEST]
    else:
        candidates = [name for name in source.names if name.count("/") == 1 and name.endswith("/" + MANIFEST)]
    for name in candidates:
        value = load_json(source, name)
        if isinstance(value, dict) and value.get("format") == FORMAT:
            return name
    return None


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of every video of the archive. Raises InvalidError for a manifest or masklets that are
    malformed.
    """
    name = find_manifest(context.source)
    if name is None:
        message = (
            f'the source has no manifest.json with "format": "{FORMAT}": see docs/reference/sam2-archive.md'
        )
        raise InvalidError(message, reason="MANIFEST_MISSING")
    manifest = load_object(context.source, name)
    if manifest.get("version") != VERSION:
        raise malformed_annotations(name, "version", f"is {manifest.get('version')!r}; {VERSION} is known")
    root = name.removesuffix(MANIFEST)
    known = _classes(manifest, name)
    listed = manifest.get("videos")
    if not isinstance(listed, list):
        raise malformed_annotations(name, "videos", "is missing or not a list")
    ids = [str(item.get("video_id")) for item in listed if isinstance(item, dict)]
    if len({*ids}) < len(ids):
        raise malformed_annotations(name, "videos", "names a video twice")
    archive = _Archive(context, name, root, known, frozenset(context.source.names), FrameFiles(context))
    rows = 0
    for index, item in enumerate(listed):
        video, frames = _video(archive, index, item)
        rows += len(video.frames)
        context.total = rows
        yield from video_rows(video, frames)


@dataclasses.dataclass(frozen=True, slots=True)
class _Archive:
    """The archive's manifest is called `name` and lies in `root`; `classes` are those that it knows."""

    context: ReadContext
    name: str
    root: str
    classes: frozenset[str]
    names: frozenset[str]
    files: FrameFiles


def _classes(manifest: Mapping[str, Any], name: str) -> frozenset[str]:
    classes = manifest.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(item, str) for item in classes):
        raise malformed_annotations(name, "classes", "is not a list of names")
    return frozenset(item.strip() for item in classes)


def _video(archive: _Archive, index: int, item: Any) -> tuple[Video, Frames]:
    where, name, root = f"videos[{index}]", archive.name, archive.root
    if not isinstance(item, dict):
        raise malformed_annotations(name, where, "is not an object")
    video_id, masklets = item.get("video_id"), item.get("masklets")
    if not isinstance(video_id, str) or not video_id:
        raise malformed_annotations(name, f"{where}.video_id", "is missing or not a text")
    if not isinstance(masklets, str) or root + masklets not in archive.names:
        raise malformed_annotations(
            name, f"{where}.masklets", f"is {masklets!r}, which the archive does not hold"
        )
    objects = item.get("objects")
    if objects is not None and not isinstance(objects, dict):
        raise malformed_annotations(name, f"{where}.objects", "is not an object of class names by object id")
    size = tuple(_positive(item.get(side), name, f"{where}.{side}") for side in ("width", "height"))
    stride = _positive(item.get("frame_stride", 1), name, f"{where}.frame_stride")
    video = dataclasses.replace(
        _load_masklets(archive.context, root + masklets, video_id, size),
        stride=stride,
        classes=objects,
        known_classes=archive.classes,
    )
    return video, _find_frames(archive, where, item, video)


def _positive(value: object, name: str, field: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise malformed_annotations(name, field, f"is {value!r}, not a positive whole number")


def _load_masklets(context: ReadContext, name: str, video_id: str, size: tuple[int, ...]) -> Video:
    """SA-V JSON (an object with `masklet`), or a SAM 2 mask stream as a JSON list or as JSON Lines."""
    if context.survey.json_head(name).kind == "object":
        return dataclasses.replace(load_video(context, name), video_id=video_id)
    return Video(name, video_id, size[0], size[1], stream_frames(context, name), 1)


def _find_frames(archive: _Archive, where: str, item: Mapping[str, Any], video: Video) -> Frames:
    context, limit = archive.context, archive.context.options.max_image_pixels
    folder, file = item.get("frames"), item.get("video")
    if isinstance(folder, str):
        by_number = archive.files.numbered(archive.root + folder)
        return FolderFrames(context.source, by_number, video.stride, limit)
    if isinstance(file, str):
        path = archive.root + file
        if path not in archive.names:
            problem = f"is {file!r}, which the archive does not hold"
            raise malformed_annotations(archive.name, f"{where}.video", problem)
        return VideoFrames(context.source, path, video.stride, limit)
    return rendered_frames(context, video)
