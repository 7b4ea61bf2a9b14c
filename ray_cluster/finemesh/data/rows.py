"""Making canonical rows: what every reader and every instruction shares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from finemesh.core.spec.data import Split
from finemesh.data.faults import RowFault
from finemesh.data.images import Picture
from finemesh.data.rle import Mask
from finemesh.data.schema import ContentPart, Message, ObjectRow, Row, SourceRef

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
    return {
        "object_id": object_id,
        "class_name": class_name,
        "bbox": list(mask.box()),
        "area": float(area),
        "rle_counts": mask.counts() if counts is None else counts,
        "visible": area > 0,
        "iscrowd": iscrowd,
    }


def make_row(
    row_id: str,
    *,
    source: SourceRef,
    picture: Picture,
    objects: list[ObjectRow],
    parents: list[str],
    video_id: str | None = None,
    frame_index: int | None = None,
    messages: list[Message] | None = None,
    split: str = Split.NONE,
) -> Row:
    """A canonical row. Raises RowFault (DUPLICATE_OBJECT_ID) if two of its objects share an id."""
    seen: set[str] = set()
    for index, item in enumerate(objects):
        if item["object_id"] in seen:
            message = f"two objects have the id {item['object_id']}"
            raise RowFault("DUPLICATE_OBJECT_ID", message, f"objects[{index}].object_id")
        seen.add(item["object_id"])
    return {
        "row_id": row_id,
        "source": source,
        "video_id": video_id,
        "frame_index": frame_index,
        "image": picture.data,
        "image_format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "image_sha256": hashlib.sha256(picture.data).hexdigest(),
        "media": picture.media,
        "objects": objects,
        "messages": messages or [],
        "parents": parents,
        "split": split,
    }


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


IMAGE_PART: ContentPart = {"type": "image", "text": ""}


def question_and_answer(question: str, answer: str) -> list[Message]:
    """A conversation of one question about the row's picture."""
    return [
        {"role": "user", "content": [IMAGE_PART, text_part(question)]},
        {"role": "assistant", "content": [text_part(answer)]},
    ]
