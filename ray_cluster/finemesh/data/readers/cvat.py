"""CVAT for images 1.1 and for video 1.1. Source: https://docs.cvat.ai/docs/other/xml_format.

`<image>` elements hold the shapes of a picture. `<track>` elements hold one shape for each frame that the
object is in, those between the key frames as CVAT has interpolated them; nothing is interpolated here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final
from xml.etree.ElementTree import Element

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import Split
from finemesh.data.faults import RowFault
from finemesh.data.frames import VIDEO_SUFFIXES, FolderFrames, Frames, RenderedFrames, VideoFrames
from finemesh.data.images import check_size
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.readers.context import ReadContext, stem
from finemesh.data.readers.cvat_shapes import Shape, make_shape_object, shape_from
from finemesh.data.readers.pictures import Pictures, drawn
from finemesh.data.readers.short_names import short_names, warn_unread
from finemesh.data.readers.splits import split_named, split_of_path
from finemesh.data.readers.survey import Survey
from finemesh.data.readers.xmltree import as_value, iter_xml, number_of
from finemesh.data.rows import Candidate, make_row
from finemesh.data.schema import Row

_ROOT: Final = re.compile(rb"<annotations[\s>]")
_INSIDE: Final = re.compile(rb"<(?:meta|image|track)[\s>]")
_LOOKS: Final = 32
_FRAME: Final = re.compile(r"^frame_(\d{1,12})$")
_CHANGED: Final = {
    "cuboid": "cuboids are kept as the boxes around them; their corners are in the objects' attributes",
    "polyline": "polylines are kept as the boxes around them; their points are in the objects' attributes",
    "ellipse": "ellipses are drawn as masks; their centres and radii are in the objects' attributes",
}


@dataclass(slots=True)
class _Task:
    """A task of the file, as its `<meta>` tells of it; `source` is what was uploaded to it."""

    task_id: str
    source: str = ""
    frames: int = 0
    size: tuple[int, int] | None = None
    shapes: dict[int, list[tuple[str, str | None, Shape]]] = field(
        default_factory=dict[int, list[tuple[str, str | None, Shape]]]
    )
    """By frame: id and label of the track, and where it is."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """An `<image>` element."""

    key: str
    values: Mapping[str, str]
    shapes: tuple[Shape, ...]


def detect(survey: Survey) -> str | None:
    return next((name for name in survey.with_suffix(".xml")[:_LOOKS] if _is_cvat(survey, name)), None)


def _is_cvat(survey: Survey, name: str) -> bool:
    head = survey.head(name)
    return bool(_ROOT.search(head) and _INSIDE.search(head))


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of all pictures and of all frames with shapes. Raises InvalidError (MALFORMED_XML,
    MALFORMED_ANNOTATIONS).
    """
    pictures = Pictures(context)
    files = context.survey.with_suffix(".xml")
    names = [name for name in files if _is_cvat(context.survey, name)] or files
    warn_unread(context, files, names)
    for name, short in short_names(names).items():
        yield from _read_file(context, pictures, name, short)


def _read_file(context: ReadContext, pictures: Pictures, name: str, short: str) -> Iterator[Candidate]:
    tasks: dict[str, _Task] = {}
    count = 0
    with _opened(context, name) as stream:
        for depth, element in iter_xml(stream, name):
            if depth != 1:
                continue
            if element.tag == "meta":
                tasks = _needed_tasks(context, name, element)
            elif element.tag == "track":
                _add_track(context, name, tasks, element)
            elif element.tag == "image":
                yield _image(context, pictures, name, short, count, element)
                count += 1
    for task in tasks.values():
        prefix = f"{short}/{task.task_id}" if len(tasks) > 1 else short
        yield from _frames_of(context, pictures, name, prefix, task)


def _opened(context: ReadContext, name: str) -> Any:
    try:
        return context.source.open(name)
    except RowFault as fault:
        raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault


def _needed_tasks(context: ReadContext, name: str, meta: Element) -> dict[str, _Task]:
    try:
        return _tasks(context, name, meta)
    except RowFault as fault:
        raise malformed_annotations(name, f"meta.{fault.field}", f"is wrong: {fault.message}") from fault


def _tasks(context: ReadContext, name: str, meta: Element) -> dict[str, _Task]:
    """The tasks of a file by id; all that `<meta>` says goes to the header."""
    context.header.setdefault("cvat", {})[name] = as_value(meta)
    tasks: dict[str, _Task] = {}
    for element in meta.iter("task"):
        task = _Task((element.findtext("id") or "").strip(), (element.findtext("source") or "").strip())
        count = (element.findtext("size") or "").strip()
        task.frames = int(count) if re.fullmatch(r"[0-9]{1,9}", count) else 0
        task.size = _size({side: element.findtext(f"original_size/{side}") for side in ("width", "height")})
        tasks[task.task_id] = task
        if element.findtext("mode") != "interpolation":
            context.total += task.frames
    return tasks


def _size(values: Mapping[str, str | None]) -> tuple[int, int] | None:
    """Width and height in pixels. None if one is left out. Raises RowFault (MALFORMED_IMAGE)."""
    sides = [values.get(side) for side in ("width", "height")]
    if not all(sides):
        return None
    width, height = (number_of(side, "size") for side in sides)
    if min(width, height) < 1 or width % 1 or height % 1:
        raise RowFault("MALFORMED_IMAGE", f"{width:g} x {height:g} is no size of a picture", "size")
    return int(width), int(height)


def _shapes(context: ReadContext, element: Element, where: str) -> list[Shape]:
    shapes = [
        shape_from(child, f"{where}.{child.tag}[{index}]")
        for index, child in enumerate(element)
        if child.tag not in {"tag", "attribute"}
    ]
    for shape in shapes:
        if shape.kind in _CHANGED:
            context.warn(_CHANGED[shape.kind])
    return shapes


def _image(
    context: ReadContext, pictures: Pictures, name: str, short: str, count: int, element: Element
) -> Candidate:
    values = dict(element.attrib)
    said = (
        "/".join(values[key] for key in ("subset", "task_id", "id") if values.get(key)) or f"image[{count}]"
    )
    row_id = f"{short}/{said}"
    tags = [shape_from(child, f"image[{count}].tag") for child in element if child.tag == "tag"]
    picture = _Picture(f"image[{count}]", values, tuple(_shapes(context, element, f"image[{count}]")))
    return Candidate(row_id, partial(_image_row, row_id, name, picture, tags, pictures))


def _image_row(row_id: str, name: str, picture: _Picture, tags: list[Shape], pictures: Pictures) -> Row:
    size = _size(picture.values)
    if size is None:
        raise RowFault("MALFORMED_IMAGE", "the image has no width or no height", picture.key)
    check_size(*size, pictures.max_pixels)
    objects = [
        make_shape_object(shape, str(index), shape.values.get("label"), size)
        for index, shape in enumerate(picture.shapes)
    ]
    called, subset = picture.values.get("name", ""), picture.values.get("subset", "")
    split = split_named(subset) or split_of_path(called)
    labels = [tag.values.get("label", "") for tag in tags]
    attributes: dict[str, Any] = {"subset": subset} if subset and not split_named(subset) else {}
    if len(labels) > 1 or any(tag.attributes for tag in tags):
        attributes["tags"] = [{**tag.values, **tag.attributes} for tag in tags]
    return make_row(
        row_id,
        source={"file": name, "key": picture.key},
        pictures=[
            pictures.get(called, size, objects, key=f"{name}/{picture.key}", field="name", folder=subset)
        ],
        objects=objects,
        class_name=(labels[0].strip() or None) if len(labels) == 1 else None,
        attributes=attributes,
        parents=[f"{name}#{shape.where}" for shape in picture.shapes],
        split=split,
    )


def _add_track(context: ReadContext, name: str, tasks: dict[str, _Task], track: Element) -> None:
    """Give the track's shapes to the frames of its task."""
    said = track.get("task_id", "")
    own = next(iter(tasks.values())) if not said and len(tasks) == 1 else tasks.setdefault(said, _Task(said))
    track_id, label = track.get("id", ""), track.get("label")
    # What the track says holds for all its shapes.
    common = {
        key: value for key, value in track.attrib.items() if key not in {"id", "label", "task_id", "subset"}
    }
    for shape in _shapes(context, track, f"track[{track_id}]"):
        frame = shape.values.get("frame", "")
        if not re.fullmatch(r"[0-9]{1,9}", frame):
            raise malformed_annotations(
                name, f"{shape.where}.frame", f"is {frame[:40]!r}, not a whole number"
            )
        merged = Shape(shape.kind, {**common, **shape.values}, shape.attributes, shape.parts, shape.where)
        own.shapes.setdefault(int(frame), []).append((track_id, label, merged))


def _frames_of(
    context: ReadContext, pictures: Pictures, name: str, prefix: str, task: _Task
) -> Iterator[Candidate]:
    """A candidate for every frame on which a track has a shape."""
    if not task.shapes:
        return
    frames = _find_frames(context, pictures, name, task)
    context.total += len(task.shapes)
    for index in sorted(task.shapes):
        row_id = f"{prefix}/{index:06d}"
        yield Candidate(
            row_id, partial(_frame_row, row_id, name, prefix, task, index, frames, pictures.max_pixels)
        )


def _find_frames(context: ReadContext, pictures: Pictures, name: str, task: _Task) -> Frames:
    """The video that was uploaded, or CVAT's numbered frames, or all pictures in their order, or rendered."""
    limit = context.options.max_image_pixels
    videos = [each for each in context.source.names if each.lower().endswith(VIDEO_SUFFIXES)]
    fitting = [
        each for each in videos if PurePosixPath(each).name == PurePosixPath(task.source).name
    ] or videos
    if len(fitting) == 1:
        return VideoFrames(context.source, fitting[0], 1, limit)
    own = f"{PurePosixPath(name).parent}/".removeprefix("./")
    near = [each for each in pictures.names if each.startswith(own)] or pictures.names
    numbered = {int(found[1]): each for each in near if (found := _FRAME.match(stem(each)))}
    if numbered:
        return FolderFrames(context.source, numbered, 1, limit)
    if near and len(near) == task.frames:
        context.warn(f"{name} names no pictures: frames are the pictures in the order of their names")
        return FolderFrames(context.source, dict(enumerate(near)), 1, limit)
    if near or task.size is None:
        problem = f"has {len(task.shapes)} frames, but neither their video nor pictures called frame_000000"
        raise malformed_annotations(name, f"task {task.task_id}", f"{problem}: put them beside it")
    context.warn("video missing: frames rendered from masks")
    return RenderedFrames(context.options.seed, task.source or name, *task.size, limit)


def _frame_row(
    row_id: str, name: str, video_id: str, task: _Task, index: int, frames: Frames, limit: int
) -> Row:
    shapes = task.shapes[index]
    picture = None
    size = task.size
    if size is None:
        picture = frames.get(index, ())
        size = (picture.width, picture.height)
    check_size(*size, limit)
    objects = [make_shape_object(shape, track_id, label, size) for track_id, label, shape in shapes]
    picture = picture or frames.get(index, drawn(objects, size))
    if (picture.width, picture.height) != size:
        message = f"the frame is {picture.width} x {picture.height}, but {size[0]} x {size[1]} is declared"
        raise RowFault("IMAGE_SIZE_MISMATCH", message, "original_size")
    return make_row(
        row_id,
        source={"file": name, "key": f"frame {index}"},
        pictures=[picture],
        objects=objects,
        parents=[f"{name}#{shape.where}" for _, _, shape in shapes],
        video_id=video_id,
        frame_index=index,
        split=Split.NONE,
    )
