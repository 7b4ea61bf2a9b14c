"""Canonical dataset folders, read: Parquet shards under `manifest.json` (finemesh.core.spec.data)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypedDict

from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.data import DatasetManifest

_IMAGES: Final = "images.list.element.data"
ROW_COLUMNS: Final = ("row_id", "video_id", _IMAGES, "messages")
_BATCH_ROWS: Final = 256


class Part(TypedDict):
    """A piece of a message: `text` with its text, or `image`, the next of the row's pictures."""

    type: str
    text: str


class Message(TypedDict):
    role: str
    content: list[Part]


@dataclass(frozen=True, slots=True)
class Location:
    """Where a row lies: shard path relative to the dataset, row group, row within it."""

    shard: str
    row_group: int
    row: int


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation.

    Attributes:
        group: the video it came from, or the row itself: what an interval resamples.
        train: of each message, whether it carries loss; None leaves it to its role.
        calls: messages that call tools, which no chat template is told of.
    """

    row_id: str
    group: str
    messages: list[Message]
    images: tuple[bytes, ...]
    location: Location
    train: tuple[bool | None, ...] = ()
    calls: int = 0


def read_manifest(dataset: Path) -> DatasetManifest:
    """Raises NotFoundError (DATASET_NOT_FOUND) or InvalidError (MALFORMED_MANIFEST)."""
    path = dataset / "manifest.json"
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise NotFoundError(
            f"{dataset} has no manifest.json, so it is not a finished dataset: give the folder of one",
            reason="DATASET_NOT_FOUND",
        ) from error
    except ValueError as error:
        raise InvalidError(f"{path} is not JSON: {error}", reason="MALFORMED_MANIFEST") from error
    return DatasetManifest.from_json(content)


def read_rows(dataset: Path, split: str | None = None, columns: Sequence[str] = ROW_COLUMNS) -> Iterator[Row]:
    """The rows of a split, or of all, in the order of the shards. Columns not asked for stay empty."""
    for shard in read_manifest(dataset).shards:
        if shard.rows == 0:
            continue
        parquet = _open(dataset / shard.path)
        for row_group in range(parquet.num_row_groups):
            table = parquet.read_row_group(row_group, columns=[*columns, "split"])
            start = 0
            for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
                for index, values in enumerate(batch.to_pylist(), start):
                    if split is None or values["split"] == split:
                        yield _row(values, Location(shard.path, row_group, index))
                start += batch.num_rows


def read_images(dataset: Path, location: Location) -> tuple[bytes, ...]:
    """The encoded pictures of one row. The last few row groups stay in memory."""
    images = _images(dataset / location.shard, location.row_group)[location.row].as_py()
    return tuple(image["data"] for image in images)


def _row(values: dict[str, Any], location: Location) -> Row:
    row_id = values.get("row_id", "")
    messages: list[dict[str, Any]] = values.get("messages") or []
    return Row(
        row_id=row_id,
        group=values.get("video_id") or row_id,
        messages=[{"role": message["role"], "content": message["content"]} for message in messages],
        images=tuple(image["data"] for image in values.get("images") or ()),
        location=location,
        train=tuple(message["train"] for message in messages),
        calls=sum(bool(message["tool_calls"]) for message in messages),
    )


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidError(
            f"{path} is not a readable Parquet shard ({error}): fetch the dataset again",
            reason="DATASET_CORRUPT",
        ) from error


@lru_cache(maxsize=8)
def _images(path: Path, row_group: int) -> Any:
    return _open(path).read_row_group(row_group, columns=[_IMAGES]).column("images")
