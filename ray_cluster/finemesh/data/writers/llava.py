"""LLaVA form: `images/` and `llava_<split>.json`, a list of conversations in which `<image>` stands for the
picture.

Source: haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TextIO

from finemesh.core.spec.data import ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.faults import RowFault
from finemesh.data.placeholders import PLACEHOLDER, join_placeholders
from finemesh.data.schema import ImageRow, Message
from finemesh.data.storage import describe_file
from finemesh.data.writers.form import FormContext, FormWriter
from finemesh.data.writers.talk import conversation_fault, warn_of_rest

_SPEAKERS: Final = {"user": "human", "assistant": "gpt", "system": "system"}
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_SUFFIXES: Final = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


class LlavaWriter(FormWriter):
    folders: ClassVar[tuple[str, ...]] = ("images", "llava_*.json")

    def __init__(self, context: FormContext) -> None:
        self._context = context
        self._root = root = context.root
        self._files: dict[str, TextIO] = {}
        self._counts: dict[str, int] = {}
        self._images: list[ShardInfo] = []
        (root / "images").mkdir(parents=True, exist_ok=True)

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        fault = conversation_fault(row)
        if fault is not None:
            return fault
        if len(row["images"]) > 1:
            return RowFault("SEVERAL_IMAGES", "LLaVA holds one picture a row: write messages", "images")
        if row["rejected"]:
            return RowFault("HAS_PREFERENCE", "LLaVA holds one answer: write messages", "rejected")
        if row["tools"] or any(
            turn["tool_calls"] or turn["role"] not in _SPEAKERS for turn in row["messages"]
        ):
            return RowFault("HAS_TOOLS", "LLaVA knows no functions: write messages", "messages")
        texts = [part["text"] for message in row["messages"] for part in message["content"]]
        if any(PLACEHOLDER in text for text in texts):
            message = f"a text holds {PLACEHOLDER}, which LLaVA would take for a picture"
            return RowFault("PLACEHOLDER_IN_TEXT", message, "messages")
        return None

    def write(self, batch: RowBatch) -> None:
        for row in batch.rows:
            name = row["split"] or "all"
            if name not in self._files:
                self._files[name] = self._path(name).open("w", encoding="utf-8")
                self._counts[name] = 0
            warn_of_rest(self._context, row)
            if any(message["train"] is not None for message in row["messages"]):
                self._context.warn("LLaVA has no place for which turns carry loss: it was left out")
            pictures = [self._write_image(row["row_id"], image) for image in row["images"]]
            shown = {"image": pictures[0]} if pictures else {}
            entry = {"id": row["row_id"], **shown, "conversations": _turns(row["messages"])}
            self._files[name].write(
                ("[\n" if self._counts[name] == 0 else ",\n") + json.dumps(entry, ensure_ascii=False)
            )
            self._counts[name] += 1

    def _write_image(self, row_id: str, image: ImageRow) -> str:
        """Returns its path below the dataset."""
        path = f"images/{_file_name(row_id, image['format'])}"
        (self._root / path).write_bytes(image["data"])
        self._images.append(ShardInfo(path, image["sha256"], len(image["data"]), 0))
        return path

    def close(self) -> list[ShardInfo]:
        described: list[ShardInfo] = []
        for name, file in sorted(self._files.items()):
            file.write("\n]\n")
            file.close()
            described.append(describe_file(self._root, self._path(name), self._counts[name]))
        return [*described, *self._images]

    def _path(self, name: str) -> Path:
        return self._root / f"llava_{name}.json"


def _file_name(row_id: str, image_format: str) -> str:
    """A name that says where the row is from, and that no other row has."""
    digest = hashlib.sha256(row_id.encode()).hexdigest()[:12]
    return f"{_UNSAFE.sub('_', row_id)[-80:]}-{digest}{_SUFFIXES[image_format]}"


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [
        {"from": _SPEAKERS[message["role"]], "value": join_placeholders(message["content"])}
        for message in messages
    ]
