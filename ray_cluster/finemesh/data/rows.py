"""Making canonical rows: what every reader and every instruction shares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from finemesh.core.spec.data import Split
from finemesh.data.faults import RowFault
from finemesh.data.images import Picture
from finemesh.data.rle import Mask
from finemesh.data.schema import ContentPart, ImageRow, Message, ObjectRow, Row, SourceRef

Progress = Callable[[float, str], None]
"""Called with the share of the work that is done, 0 to 1, and a few words for people."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An input before it is judged: `build` makes its row, or raises RowFault."""

    row_id: str
    build: Callable[[], Row]


def masked_object(
    object_id: str, class_name: str | None, mask: Mask, *, iscrowd: bool = False, counts: str | None = None
) -> ObjectRow:
    """An object known by its mask. `counts` saves compressing the mask again where its source had it
    compressed.
    """
    area = mask.area
    return make_object(
        object_id,
        class_name,
        bbox=list(mask.box()),
        area=float(area),
        rle_counts=mask.counts() if counts is None else counts,
        visible=area > 0,
        iscrowd=iscrowd,
    )


def make_object(
    object_id: str,
    class_name: str | None,
    *,
    bbox: list[float],
    area: float | None = None,
    rle_counts: str | None = None,
    polygons: list[list[float]] | None = None,
    keypoints: list[float] | None = None,
    score: float | None = None,
    visible: bool | None = None,
    iscrowd: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> ObjectRow:
    """An object. Without `area` it is the box's; without `visible` it is whether the box holds anything."""
    return {
        "object_id": object_id,
        "class_name": class_name,
        "bbox": bbox,
        "area": bbox[2] * bbox[3] if area is None else area,
        "rle_counts": rle_counts,
        "polygons": polygons,
        "keypoints": keypoints,
        "score": score,
        "visible": bbox[2] > 0 and bbox[3] > 0 if visible is None else visible,
        "iscrowd": iscrowd,
        "attributes": json_text(attributes),
    }


_COMPACT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def json_text(value: Mapping[str, Any] | Sequence[Any] | None) -> str:
    """`value` as compact JSON; "" if it is empty."""
    return _COMPACT.encode(value) if value else ""


def make_row(
    row_id: str,
    *,
    source: SourceRef,
    pictures: Sequence[Picture] = (),
    objects: list[ObjectRow] | None = None,
    parents: list[str] | None = None,
    video_id: str | None = None,
    frame_index: int | None = None,
    class_name: str | None = None,
    captions: list[str] | None = None,
    text: str | None = None,
    messages: list[Message] | None = None,
    rejected: list[Message] | None = None,
    tools: Sequence[Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    split: str = Split.NONE,
) -> Row:
    """A canonical row; what is left out is empty. Raises RowFault (DUPLICATE_OBJECT_ID) if two of its objects
    share an id.
    """
    seen: set[str] = set()
    for index, item in enumerate(objects or ()):
        if item["object_id"] in seen:
            message = f"two objects have the id {item['object_id']}"
            raise RowFault("DUPLICATE_OBJECT_ID", message, f"objects[{index}].object_id")
        seen.add(item["object_id"])
    return {
        "row_id": row_id,
        "source": source,
        "video_id": video_id,
        "frame_index": frame_index,
        "images": [image_row(picture) for picture in pictures],
        "objects": objects or [],
        "class_name": class_name,
        "captions": captions or [],
        "text": text,
        "messages": messages or [],
        "rejected": rejected or [],
        "tools": json_text(tools),
        "attributes": json_text(attributes),
        "parents": parents or [],
        "split": split,
    }


def texts_of(row: Row) -> Iterator[str]:
    """All that a row says in words taken from its source."""
    yield from (row["row_id"], row["source"]["key"], row["video_id"] or "", row["class_name"] or "")
    yield from (row["text"] or "", row["tools"], row["attributes"], *row["captions"])
    for image in row["images"]:
        yield image["name"]
    for item in row["objects"]:
        yield from (item["object_id"], item["class_name"] or "", item["attributes"])
    for message in (*row["messages"], *row["rejected"]):
        yield from (message["role"], message["tool_calls"])
        yield from (part["text"] for part in message["content"])


def image_row(picture: Picture) -> ImageRow:
    return {
        "data": picture.data,
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "sha256": hashlib.sha256(picture.data).hexdigest(),
        "media": picture.media,
        "name": picture.name,
    }


def picture_size(row: Row) -> tuple[int, int]:
    """Width and height in pixels of the first picture, in which the row's objects lie."""
    first = row["images"][0]
    return first["width"], first["height"]


def class_name_of(value: object, field: str) -> str:
    """A class name without outer blanks. Raises RowFault (EMPTY_CLASS_NAME) if nothing is left, or it is no
    text.
    """
    if not isinstance(value, str) or not value.strip():
        raise RowFault(
            "EMPTY_CLASS_NAME", f"the class name is {value!r}: give it a name, or leave it out", field
        )
    return value.strip()


def check_mask_size(mask: Mask, picture: Picture, field: str) -> None:
    """Raises RowFault (MASK_SIZE_MISMATCH) unless mask and picture are of one size."""
    if (mask.height, mask.width) != (picture.height, picture.width):
        message = f"the mask is {mask.width} x {mask.height}, its picture {picture.width} x {picture.height}"
        raise RowFault("MASK_SIZE_MISMATCH", message, f"{field}.size")


def text_part(text: str) -> ContentPart:
    return {"type": "text", "text": text}


IMAGE_PART: Final[ContentPart] = {"type": "image", "text": ""}


def make_message(
    role: str,
    content: list[ContentPart],
    *,
    tool_calls: Sequence[Any] | None = None,
    train: bool | None = None,
) -> Message:
    return {"role": role, "content": content, "tool_calls": json_text(tool_calls), "train": train}
