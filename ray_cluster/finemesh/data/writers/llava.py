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

from finemesh.core.spec.data import MaskProof, ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.faults import RowFault
from finemesh.data.schema import ImageRow, Message
from finemesh.data.storage import describe_file
from finemesh.data.writers.form import FormContext

_SPEAKERS: Final = {"user": "human", "assistant": "gpt", "system": "system"}
_PLACEHOLDER: Final = "<image>"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_SUFFIXES: Final = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


class LlavaWriter:
    folders: ClassVar[tuple[str, ...]] = ("images", "llava_*.json")
    judges: ClassVar[bool] = True

    def __init__(self, context: FormContext) -> None:
        self._root = root = context.root
        self._files: dict[str, TextIO] = {}
        self._counts: dict[str, int] = {}
        self._images: list[ShardInfo] = []
        (root / "images").mkdir(parents=True, exist_ok=True)

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        if not row["messages"]:
            return RowFault(
                "NO_MESSAGES", "the row has no conversation: convert with an instruction task", "messages"
            )
        if len(row["images"]) > 1:
            return RowFault("SEVERAL_IMAGES", "LLaVA holds one picture a row: write messages", "images")
        texts = [part["text"] for message in row["messages"] for part in message["content"]]
        if any(_PLACEHOLDER in text for text in texts):
            message = f"a text holds {_PLACEHOLDER}, which LLaVA would take for a picture"
            return RowFault("PLACEHOLDER_IN_TEXT", message, "messages")
        return None

    def write(self, batch: RowBatch) -> None:
        for row in batch.rows:
            name = row["split"] or "all"
            if name not in self._files:
                self._files[name] = self._path(name).open("w", encoding="utf-8")
                self._counts[name] = 0
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

    def proof(self) -> MaskProof | None:
        return None

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
    turns: list[dict[str, str]] = []
    for message in messages:
        parts = [_PLACEHOLDER if part["type"] == "image" else part["text"] for part in message["content"]]
        turns.append({"from": _SPEAKERS[message["role"]], "value": "\n".join(parts)})
    return turns
