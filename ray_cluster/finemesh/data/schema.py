"""The canonical row, as Parquet and as Python.

One row is one picture with its objects, or one text or conversation, with any number of pictures. Shards lie
in `shards/part-00000.parquet` and on, the ledger in `ledger/part-00000.parquet` and on, and `manifest.json`
names them all (finemesh.core.spec.data.DatasetManifest).

    row_id          unique in the dataset; `<file stem>/<frame or image>`, with `#<object>` for a conversation
                    about one object
    source          file: path in the source; key: where in that file
    video_id        null for pictures that belong to no video
    frame_index     of the annotated frame, counted from 0; null without a video
    images          data: the encoded picture, byte for byte as it came where it came as a picture
                    format: `JPEG`, `PNG` or `WEBP`; width, height: in pixels
                    sha256: hex digest of `data`, so that duplicates show without reading pictures
                    media: `frame` (of a video), `image` (a still) or `rendered` (from the masks)
                    name: path in the source, or ""
    objects         of the first picture; object_id: unique in the row
                    class_name: null where the source has none
                    bbox: [x, y, width, height] in pixels, from the top left
                    area: in pixels, of the mask if there is one
                    rle_counts: COCO's compressed run lengths of a mask of the picture's size, or null
                    polygons: the outlines `[x0, y0, x1, y1, ...]` that the mask was drawn from, or null
                    keypoints: [x, y, visibility] for each point of the class, or null
                    score: of a prediction, 0 to 1; null for an annotation
                    visible: false for an object that is known but hidden in this frame (its mask is all zero)
                    iscrowd: the mask covers a group that was not told apart
                    attributes: a JSON object of what else the source says of it, or ""
    class_name      of the whole row, for classification, or null
    captions        of the first picture
    text            plain text to be modelled, or null
    messages        a conversation; role: `system`, `user`, `assistant` or `tool`
                    content: parts of type `text` (with `text`) or `image` (the row's pictures in their order,
                    with an empty `text`)
                    tool_calls: a JSON list of `{"name", "arguments"}` that an assistant makes, or ""
                    train: whether the turn carries loss; null leaves it to its role
    rejected        for preference tuning: the turns that are worse than the last of `messages`
    tools           a JSON list of the functions that may be called, or ""
    attributes      a JSON object of what else the source says of the row, or ""
    parents         ids of the annotations, or of the parent dataset's objects, that the row was made from
    split           "" (never split), `train`, `val`, `test` or `gap`
"""

from __future__ import annotations

from typing import Final, TypedDict

import pyarrow as pa


class SourceRef(TypedDict):
    file: str
    key: str


class ImageRow(TypedDict):
    data: bytes
    format: str
    width: int
    height: int
    sha256: str
    media: str
    name: str


class ObjectRow(TypedDict):
    object_id: str
    class_name: str | None
    bbox: list[float]
    area: float
    rle_counts: str | None
    polygons: list[list[float]] | None
    keypoints: list[float] | None
    score: float | None
    visible: bool
    iscrowd: bool
    attributes: str


class ContentPart(TypedDict):
    type: str
    text: str


class Message(TypedDict):
    role: str
    content: list[ContentPart]
    tool_calls: str
    train: bool | None


class Row(TypedDict):
    row_id: str
    source: SourceRef
    video_id: str | None
    frame_index: int | None
    images: list[ImageRow]
    objects: list[ObjectRow]
    class_name: str | None
    captions: list[str]
    text: str | None
    messages: list[Message]
    rejected: list[Message]
    tools: str
    attributes: str
    parents: list[str]
    split: str


def _needed(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_STRINGS: Final = pa.list_(pa.string())
_IMAGE: Final = pa.struct(
    [
        _needed("data", pa.binary()),
        _needed("format", pa.string()),
        _needed("width", pa.int32()),
        _needed("height", pa.int32()),
        _needed("sha256", pa.string()),
        _needed("media", pa.string()),
        _needed("name", pa.string()),
    ]
)
_OBJECT: Final = pa.struct(
    [
        _needed("object_id", pa.string()),
        pa.field("class_name", pa.string()),
        _needed("bbox", pa.list_(pa.float64(), 4)),
        _needed("area", pa.float64()),
        pa.field("rle_counts", pa.string()),
        pa.field("polygons", pa.list_(pa.list_(pa.float64()))),
        pa.field("keypoints", pa.list_(pa.float64())),
        pa.field("score", pa.float64()),
        _needed("visible", pa.bool_()),
        _needed("iscrowd", pa.bool_()),
        _needed("attributes", pa.string()),
    ]
)
_PART: Final = pa.struct([_needed("type", pa.string()), _needed("text", pa.string())])
_MESSAGE: Final = pa.struct(
    [
        _needed("role", pa.string()),
        _needed("content", pa.list_(_PART)),
        _needed("tool_calls", pa.string()),
        pa.field("train", pa.bool_()),
    ]
)

ROW_SCHEMA: Final = pa.schema(
    [
        _needed("row_id", pa.string()),
        _needed("source", pa.struct([pa.field("file", pa.string()), pa.field("key", pa.string())])),
        pa.field("video_id", pa.string()),
        pa.field("frame_index", pa.int64()),
        _needed("images", pa.list_(_IMAGE)),
        _needed("objects", pa.list_(_OBJECT)),
        pa.field("class_name", pa.string()),
        _needed("captions", _STRINGS),
        pa.field("text", pa.string()),
        _needed("messages", pa.list_(_MESSAGE)),
        _needed("rejected", pa.list_(_MESSAGE)),
        _needed("tools", pa.string()),
        _needed("attributes", pa.string()),
        _needed("parents", _STRINGS),
        _needed("split", pa.string()),
    ]
)

LEDGER_SCHEMA: Final = pa.schema(
    [
        _needed("row_id", pa.string()),
        _needed("disposition", pa.string()),
        _needed("reason", pa.string()),
        _needed("message", pa.string()),
        _needed("field", pa.string()),
        _needed("children", _STRINGS),
    ]
)


def leaf_columns(schema: pa.Schema) -> list[str]:
    """The names that Parquet gives to the columns it stores, e.g. `images.list.element.data`."""

    def below(field: pa.Field, path: str) -> list[str]:
        kind = field.type
        if pa.types.is_struct(kind):
            fields = [kind.field(index) for index in range(kind.num_fields)]
            return [leaf for each in fields for leaf in below(each, f"{path}.{each.name}")]
        if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            return below(kind.value_field, f"{path}.list.element")
        return [path]

    return [leaf for field in schema for leaf in below(field, field.name)]
