"""Videos with masks per frame, whatever file they came from: from raw RLE to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.frames import Frames, RenderedFrames
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.readers.context import ReadContext, stem
from finemesh.data.readers.conversations.records import iter_records
from finemesh.data.rle import Mask, parse
from finemesh.data.rows import Candidate, check_mask_size, class_name_of, make_row, masked_object
from finemesh.data.schema import ObjectRow, Row


@dataclass(frozen=True, slots=True)
class RawMask:
    """An unparsed RLE and where it stands, e.g. `masklet[3][0]`."""

    object_id: str
    value: Any
    field: str


@dataclass(frozen=True, slots=True)
class AnnotatedFrame:
    """One annotated frame: `masks` gives its unparsed masks, or raises RowFault. `key` says where it stands
    in its file.
    """

    index: int
    key: str
    masks: Callable[[], list[RawMask]]


@dataclass(frozen=True, slots=True)
class Video:
    """The masklets of one video.

    Attributes:
        file: the file they stand in.
        frames: in order of their index.
        stride: annotated frame k is frame k x stride of the video.
        classes: class name per object id, as found; None if the source knows no classes.
        known_classes: what a class name must be one of; empty allows any.
        prefix: what the ids of its rows begin with; "" for the stem of the file.
    """

    file: str
    video_id: str
    width: int
    height: int
    frames: Sequence[AnnotatedFrame]
    stride: int
    classes: Mapping[str, Any] | None = None
    known_classes: frozenset[str] = frozenset()
    prefix: str = ""

    def class_name(self, object_id: str) -> str | None:
        """The object's class, None without one. Raises RowFault (EMPTY_CLASS_NAME, UNKNOWN_CLASS)."""
        if self.classes is None or object_id not in self.classes:
            return None
        field = f"objects.{object_id}"
        name = class_name_of(self.classes[object_id], field)
        if self.known_classes and name not in self.known_classes:
            raise RowFault("UNKNOWN_CLASS", f"{name!r} is not among the classes of the manifest", field)
        return name


def stream_frames(context: ReadContext, name: str) -> list[AnnotatedFrame]:
    """The frames of a SAM 2 mask stream, in order: a JSON list or JSON Lines of
    `{"frame_index", "results": [{"object_id", "mask"}]}`. A frame that comes twice, as tracking forwards and
    backwards gives it, is taken once if both are equal. Raises InvalidError (MALFORMED_ANNOTATIONS, and as
    iter_records).
    """
    frames: dict[int, list[tuple[str, Any]]] = {}
    for record in iter_records(context, name):
        if record.fault is not None:
            raise InvalidError(
                f"{name}: {record.fault.message}", reason=record.fault.reason, metadata={"file": name}
            )
        frame = record.value
        index = frame.get("frame_index") if isinstance(frame, dict) else None
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < 1 << 40:
            raise malformed_annotations(name, f"{record.key}.frame_index", "is missing or not a whole number")
        held = frames.setdefault(index, [])
        if all(results != frame.get("results") for _, results in held):
            held.append((record.key, frame.get("results")))
    return [
        AnnotatedFrame(index, key, partial(_streamed_masks, key, results))
        for index in sorted(frames)
        for key, results in frames[index]
    ]


def _streamed_masks(key: str, results: Any) -> list[RawMask]:
    if not isinstance(results, list):
        raise RowFault("MALFORMED_FRAME", "results is missing or not a list", f"{key}.results")
    masks: list[RawMask] = []
    for position, result in enumerate(results):
        field = f"{key}.results[{position}]"
        if not isinstance(result, dict) or not isinstance(result.get("object_id"), int | str):
            raise RowFault("MALFORMED_FRAME", "a result is not an object with object_id", field)
        masks.append(RawMask(str(result["object_id"]), result.get("mask"), f"{field}.mask"))
    return masks


def rendered_frames(context: ReadContext, video: Video) -> Frames:
    """Frames made from the masks, with a warning."""
    context.warn("video missing: frames rendered from masks")
    options = context.options
    return RenderedFrames(options.seed, video.video_id, video.width, video.height, options.max_image_pixels)


def video_rows(video: Video, frames: Frames) -> Iterator[Candidate]:
    """One candidate per annotated frame, in order."""
    for frame in video.frames:
        row_id = f"{video.prefix or stem(video.file)}/{frame.index:06d}"
        yield Candidate(row_id, partial(_row, row_id, video, frames, frame))


def _row(row_id: str, video: Video, frames: Frames, frame: AnnotatedFrame) -> Row:
    masks: list[tuple[RawMask, Mask]] = []
    objects: list[ObjectRow] = []
    for raw in frame.masks():
        mask = parse(raw.value, raw.field)
        counts = raw.value["counts"] if isinstance(raw.value["counts"], str) else None
        masks.append((raw, mask))
        objects.append(masked_object(raw.object_id, video.class_name(raw.object_id), mask, counts=counts))
    picture = frames.get(frame.index, [(raw.object_id, mask) for raw, mask in masks])
    for raw, mask in masks:
        check_mask_size(mask, picture, raw.field)
    return make_row(
        row_id,
        source={"file": video.file, "key": frame.key},
        pictures=[picture],
        objects=objects,
        parents=[f"{video.file}#{raw.field}" for raw, _ in masks],
        video_id=video.video_id,
        frame_index=frame.index,
    )
