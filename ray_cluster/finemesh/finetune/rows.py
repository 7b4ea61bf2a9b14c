"""Canonical dataset folders, read: Parquet shards under `manifest.json` (finemesh.core.spec.data). A file
stands for one of text alone (finemesh.finetune.lines).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict, cast

from finemesh.core.errors import FinemeshError, InvalidError, NotFoundError, PreconditionError
from finemesh.core.spec.data import DatasetManifest
from finemesh.finetune.lines import TOOL_FIELDS, lines_manifest, lines_values

_IMAGES: Final = "images.list.element.data"
ROW_COLUMNS: Final = ("row_id", "video_id", _IMAGES, "messages", "tools", "attributes")
PREFERENCE_COLUMNS: Final = (*ROW_COLUMNS, "rejected")
TEXT_COLUMNS: Final = ("row_id", "video_id", "text")
_BATCH_ROWS: Final = 256


class Part(TypedDict):
    """A piece of a message: `text` with its text, or `image`, the next of the row's pictures."""

    type: str
    text: str


class Message(TypedDict):
    """A turn. `tool_calls` are objects of `name`, `arguments` and perhaps `id`, empty for most. Of a tool's
    turn, `tool_call_id` and `name` say what it answers, where the source tells.
    """

    role: str
    content: list[Part]
    tool_calls: list[Any]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Location:
    """Where a row lies: shard path relative to the dataset, row group, row within it."""

    shard: str
    row_group: int
    row: int


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation, or one text.

    Attributes:
        group: the video it came from, or the row itself: what an interval resamples.
        train: of each message, whether it carries loss; None leaves it to its role.
        tools: the functions that the assistant may call, as the source describes them.
        rejected: for preference tuning, the turns that are worse than the last of `messages`.
        text: plain text, where there is no conversation.
    """

    row_id: str
    group: str
    messages: list[Message]
    images: tuple[bytes, ...]
    location: Location
    train: tuple[bool | None, ...] = ()
    tools: tuple[Any, ...] = ()
    rejected: tuple[Message, ...] = ()
    text: str = ""


def read_manifest(dataset: Path) -> DatasetManifest:
    """Raises NotFoundError (DATASET_NOT_FOUND) or InvalidError (MALFORMED_MANIFEST, DATASET_CORRUPT)."""
    if dataset.is_file():
        return lines_manifest(dataset)
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
    for values, location in read_values(dataset, split, columns):
        yield _row(values, location)


def no_rows(dataset: Path, split: str) -> PreconditionError:
    """SPLIT_EMPTY: what there is to say of a split without rows."""
    splits = sorted(read_manifest(dataset).splits.items())
    has = ", ".join(f"{rows} in {name or 'no split'}" for name, rows in splits) or "none at all"
    return PreconditionError(
        f"the dataset has no rows in the split {split!r} (it has {has}): split it first, or name another "
        "split; in a spec validation_split and test_split may be empty",
        reason="SPLIT_EMPTY",
    )


def read_values(
    dataset: Path, split: str | None, columns: Sequence[str]
) -> Iterator[tuple[dict[str, Any], Location]]:
    """The columns asked for, and `split`, of the rows of a split, or of all, in the order of the shards."""
    if dataset.is_file():
        for index, values in enumerate(lines_values(dataset)):
            if split is None or values["split"] == split:
                yield values, Location(dataset.name, 0, index)
        return
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
                        yield values, Location(shard.path, row_group, index)
                start += batch.num_rows


def read_images(dataset: Path, location: Location) -> tuple[bytes, ...]:
    """The encoded pictures of one row. The last few row groups stay in memory."""
    images = _images(dataset / location.shard, location.row_group)[location.row].as_py()
    return tuple(image["data"] for image in images)


def row_id_at(dataset: Path, location: Location) -> str:
    """The id of a row, or the place of it where that does not read either."""
    try:
        group = _open(dataset / location.shard).read_row_group(location.row_group, columns=["row_id"])
        return str(group.column("row_id")[location.row])
    except (FinemeshError, OSError, ValueError):
        return f"{location.row} of group {location.row_group} in {location.shard}"


def _row(values: dict[str, Any], location: Location) -> Row:
    row_id = values.get("row_id", "")
    messages: list[dict[str, Any]] = values.get("messages") or []
    rejected: list[dict[str, Any]] = values.get("rejected") or []
    tools = values.get("tools")
    more = _attributes(values) if any(each["role"] == "tool" for each in (*messages, *rejected)) else {}
    return Row(
        row_id=row_id,
        group=values.get("video_id") or row_id,
        messages=_turns(messages, more.get("message_fields")),
        images=tuple(image["data"] for image in values.get("images") or ()),
        location=location,
        train=tuple(message["train"] for message in messages),
        tools=tuple(json.loads(tools)) if tools else (),
        rejected=tuple(_turns(rejected, more.get("rejected_fields"))),
        text=values.get("text") or "",
    )


def _attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    attributes: Any = json.loads(values.get("attributes") or "{}")
    return attributes if isinstance(attributes, dict) else {}


def _turns(messages: Sequence[dict[str, Any]], more: Any) -> list[Message]:
    """Turns; `more` is what readers keep beside them, by their number."""
    beside: dict[str, Any] = more if isinstance(more, dict) else {}
    return [_message(message, beside.get(str(index))) for index, message in enumerate(messages)]


def _message(message: dict[str, Any], beside: Any) -> Message:
    calls = message["tool_calls"]
    turn: Message = {
        "role": message["role"],
        "content": message["content"],
        "tool_calls": json.loads(calls) if calls else [],
    }
    if message["role"] == "tool":
        said: dict[str, Any] = message | (beside if isinstance(beside, dict) else {})
        turn.update(cast("Message", {key: said[key] for key in TOOL_FIELDS if key in said}))
    return turn


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
