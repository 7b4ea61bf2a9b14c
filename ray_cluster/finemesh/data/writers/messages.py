"""Messages form: `images/`, and per split a JSON Lines file of conversations as OpenAI and Hugging Face have
them.

A record has `id` and `messages`; where the row has them `images` (paths, in the order in which the parts
`{"type": "image"}` show them), `tools`, `chosen` and `rejected`, `attributes`. Content is always a list of
parts, and arguments are always a text, so that all records are of one type for who reads them as a table.
`train` says whether a turn carries loss.
Sources: OpenAI, API reference, chat completions; TRL, docs/source/dataset_formats.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from finemesh.core.spec.data import ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.faults import RowFault
from finemesh.data.schema import Message, Row
from finemesh.data.writers.files import FileTree, by_row, picture_name
from finemesh.data.writers.form import FormContext, FormWriter
from finemesh.data.writers.lines import SplitLines
from finemesh.data.writers.talk import conversation_fault, warn_of_rest

_MORE: Final = ("message_fields", "rejected_fields")
"""Attributes in which readers keep what a turn holds beside its message."""
_OWN_ROLES: Final = ("developer", "function")
"""Names of roles that OpenAI tells from those of a row."""


class MessagesWriter(FormWriter):
    folders: ClassVar[tuple[str, ...]] = ("images", "*.jsonl")

    def __init__(self, context: FormContext) -> None:
        self._context = context
        self._lines = SplitLines(context.root)
        self._tree = FileTree(context.root)

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        return conversation_fault(row)

    def write(self, batch: RowBatch) -> None:
        self._lines.write((row["split"], self._entry(row)) for row in batch.rows)

    def close(self) -> list[ShardInfo]:
        return [*self._lines.close(), *self._tree.written]

    def _entry(self, row: Row) -> dict[str, Any]:
        warn_of_rest(self._context, row)
        attributes: dict[str, Any] = json.loads(row["attributes"] or "{}")
        said, refused = (_mapping(attributes.pop(name, {})) for name in _MORE)
        entry: dict[str, Any] = {"id": row["row_id"], "messages": _turns(row["messages"], said)}
        if row["images"]:
            entry["images"] = self._write_images(row)
        if row["rejected"]:
            entry["chosen"] = entry["messages"][-1:]
            entry["rejected"] = _turns(row["rejected"], refused)
        if row["tools"]:
            entry["tools"] = [_tool(tool) for tool in json.loads(row["tools"])]
        return entry | ({"attributes": attributes} if attributes else {})

    def _write_images(self, row: Row) -> list[str]:
        paths: list[str] = []
        for index, image in enumerate(row["images"]):
            name = picture_name(image["name"], image["format"], flat=True)
            if self._tree.is_taken(f"images/{name}"):
                name = by_row(name, f"{row['row_id']}#{index}")
            path = f"images/{name}"
            self._tree.write(path, image["data"], image["sha256"])
            paths.append(path)
        return paths


def _turns(messages: Sequence[Message], more: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turns with the fields of `more`, by their number, that came with them."""
    return [_turn(message, _mapping(more.get(str(index)))) for index, message in enumerate(messages)]


def _turn(message: Message, more: Mapping[str, Any]) -> dict[str, Any]:
    of_parts = _mapping(more.get("parts"))
    role = more["role"] if more.get("role") in _OWN_ROLES else message["role"]
    content = [
        {**_mapping(of_parts.get(str(index))), **_part(part["type"], part["text"])}
        for index, part in enumerate(message["content"])
    ]
    turn: dict[str, Any] = {name: value for name, value in more.items() if name != "parts"}
    turn |= {"role": role, "content": content}
    if message["tool_calls"]:
        turn["tool_calls"] = [_call(call) for call in json.loads(message["tool_calls"])]
    if message["train"] is not None:
        turn["train"] = message["train"]
    return turn


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _part(kind: str, text: str) -> dict[str, Any]:
    return {"type": "image"} if kind == "image" else {"type": "text", "text": text}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    identity = {"id": call["id"]} if "id" in call else {}
    return {**identity, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return tool if "function" in tool or "type" in tool else {"type": "function", "function": tool}
