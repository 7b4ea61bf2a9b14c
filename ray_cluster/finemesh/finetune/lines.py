"""A dataset that is one file of JSON lines: text for where torch, transformers and peft are all there is.

A line is an object with `text`, or with `messages` as OpenAI writes them, and what else canonical rows have
for text: `tools`, `rejected`, `video_id`. Without `split` it is in `train`; without `row_id` it is called
`line-<number>`, counted from 1.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.data import DatasetFormat, DatasetManifest, DatasetOrigin
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.finetune.manifests import file_digest

TOOL_FIELDS: Final = ("tool_call_id", "name")
"""What a turn of a tool may have beside its words: which call it answers."""


def lines_manifest(path: Path) -> DatasetManifest:
    """What `manifest.json` says of a folder. Raises what `lines_values` raises."""
    splits = Counter(values["split"] for values in lines_values(path))
    rows = splits.total()
    return DatasetManifest(
        digest=f"sha256:{file_digest(path)}",
        format=DatasetFormat.CANONICAL,
        origin=DatasetOrigin.IMPORT,
        rows=rows,
        splits=dict(splits),
        classes=(),
        answers={},
        media={},
        has_class_names=False,
        videos=0,
        shards=(),
        ledger_shards=(),
        ledger=LedgerSummary(inputs=rows, kept=rows),
    )


def lines_values(path: Path) -> Iterator[dict[str, Any]]:
    """Every line as the columns of a canonical row.

    Raises:
        NotFoundError: DATASET_NOT_FOUND, the file cannot be read.
        InvalidError: DATASET_CORRUPT, naming the line, if it is no such object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFoundError(f"{path} cannot be read: {error}", reason="DATASET_NOT_FOUND") from error
    for number, line in enumerate(lines, 1):
        try:
            yield _values(json.loads(line), number)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidError(
                f"{path}:{number}: neither an object with `text` nor one with `messages` of texts "
                f"({type(error).__name__}: {error}); pictures need a dataset folder",
                reason="DATASET_CORRUPT",
            ) from error


def _values(given: dict[str, Any], number: int) -> dict[str, Any]:
    if not given.keys() & {"text", "messages"}:
        raise KeyError("text")
    tools = given.get("tools")
    return {
        "row_id": str(given.get("row_id") or f"line-{number}"),
        "split": str(given.get("split", "train")),
        "video_id": given.get("video_id"),
        "text": given.get("text"),
        "messages": [_message(each) for each in given.get("messages") or ()],
        "rejected": [_message(each) for each in given.get("rejected") or ()],
        "tools": _as_json(tools) if tools else None,
    }


def _message(given: dict[str, Any]) -> dict[str, Any]:
    content: Any = given.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    calls = given.get("tool_calls")
    return {
        "role": str(given["role"]),
        "content": [_part(each) for each in cast("list[dict[str, Any]]", parts)],
        "tool_calls": _as_json(calls) if calls else "",
        "train": _train(given),
    } | {key: given[key] for key in TOOL_FIELDS if key in given}


def _train(given: dict[str, Any]) -> bool | None:
    """Whether the turn carries loss: `train`, or OpenAI's `weight`."""
    said = given.get("train", given.get("weight"))
    if said not in (None, 0, 1):
        raise ValueError(f"a turn carries loss (1) or it does not (0), not {said!r}")
    return None if said is None else bool(said)


def _part(given: dict[str, Any]) -> dict[str, str]:
    if given["type"] != "text":
        raise ValueError(f"a part of type {given['type']!r}")
    return {"type": "text", "text": str(given["text"])}


def _as_json(value: Any) -> str:
    """Columns of a canonical row hold it as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
