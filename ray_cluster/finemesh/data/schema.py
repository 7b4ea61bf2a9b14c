"""The canonical row, as Parquet and as Python.

One row is one picture with its objects, or one conversation about a picture. Shards lie in
`shards/part-00000.parquet` and on, the ledger in `ledger/part-00000.parquet` and on, and `manifest.json`
names them all (finemesh.core.spec.data.DatasetManifest).

    row_id          unique in the dataset; `<file stem>/<frame or image>`, with `#<object>` for a conversation
                    about one object
    source          file: path in the source; key: where in that file
    video_id        null for pictures that belong to no video
    frame_index     of the annotated frame, counted from 0; null without a video
    image           the encoded picture, byte for byte as it came where it came as a picture
    image_format    `JPEG`, `PNG` or `WEBP`
    width, height   in pixels
    image_sha256    hex digest of `image`, so that duplicates show without reading pictures
    media           `frame` (of a video), `image` (a still) or `rendered` (from the masks)
    objects         object_id: unique in the row
                    class_name: null where the source has none
                    bbox: [x, y, width, height] in pixels, from the top left
                    area: in pixels, of the mask if there is one
                    rle_counts: COCO's compressed run lengths of a mask of the row's height and width, or null
                    visible: false for an object that is known but hidden in this frame (its mask is all zero)
                    iscrowd: the mask covers a group that was not told apart
    messages        a conversation; role: `system`, `user` or `assistant`; content: parts of type `text` (with
                    `text`) or `image` (the row's picture, with an empty `text`)
    parents         ids of the annotations, or of the parent dataset's objects, that the row was made from
    split           "" (never split), `train`, `val`, `test` or `gap`
"""

from __future__ import annotations

from typing import Final, TypedDict

import pyarrow as pa


class SourceRef(TypedDict):
    file: str
    key: str


class ObjectRow(TypedDict):
    object_id: str
    class_name: str | None
    bbox: list[float]
    area: float
    rle_counts: str | None
    visible: bool
    iscrowd: bool


class ContentPart(TypedDict):
    type: str
    text: str


class Message(TypedDict):
    role: str
    content: list[ContentPart]


class Row(TypedDict):
    row_id: str
    source: SourceRef
    video_id: str | None
    frame_index: int | None
    image: bytes
    image_format: str
    width: int
    height: int
    image_sha256: str
    media: str
    objects: list[ObjectRow]
    messages: list[Message]
    parents: list[str]
    split: str


_OBJECT: Final = pa.struct(
    [
        pa.field("object_id", pa.string(), nullable=False),
        pa.field("class_name", pa.string()),
        pa.field("bbox", pa.list_(pa.float64(), 4), nullable=False),
        pa.field("area", pa.float64(), nullable=False),
        pa.field("rle_counts", pa.string()),
        pa.field("visible", pa.bool_(), nullable=False),
        pa.field("iscrowd", pa.bool_(), nullable=False),
    ]
)
_PART: Final = pa.struct(
    [pa.field("type", pa.string(), nullable=False), pa.field("text", pa.string(), nullable=False)]
)
_MESSAGE: Final = pa.struct(
    [pa.field("role", pa.string(), nullable=False), pa.field("content", pa.list_(_PART), nullable=False)]
)

ROW_SCHEMA: Final = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field(
            "source", pa.struct([pa.field("file", pa.string()), pa.field("key", pa.string())]), nullable=False
        ),
        pa.field("video_id", pa.string()),
        pa.field("frame_index", pa.int64()),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("image_format", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("media", pa.string(), nullable=False),
        pa.field("objects", pa.list_(_OBJECT), nullable=False),
        pa.field("messages", pa.list_(_MESSAGE), nullable=False),
        pa.field("parents", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

LEDGER_SCHEMA: Final = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("disposition", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("children", pa.list_(pa.string()), nullable=False),
    ]
)
