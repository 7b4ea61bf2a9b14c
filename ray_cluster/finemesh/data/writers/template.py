"""Template form: a text per row by a Jinja template, as `{"id", "text"}` in a JSON Lines file per split.

A template sees the fields of the canonical row: `id`, `messages` (each with `role`, `content`, `tool_calls`,
`train`, and `text`, its words with `<image>` for each picture), `rejected`, `tools`, `text`, `captions`,
`class_name`, `objects`, `images` (without their bytes), `attributes`, `parents`, `source`, `split`,
`video_id` and `frame_index`. JSON in texts is taken apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from finemesh.core.spec.data import ShardInfo
from finemesh.data.batches import RowBatch
from finemesh.data.faults import RowFault
from finemesh.data.placeholders import join_placeholders
from finemesh.data.writers.form import FormContext, FormWriter
from finemesh.data.writers.lines import SplitLines
from finemesh.data.writers.rendering import TemplateRenderer

_AS_THEY_ARE: Final = (
    *("source", "video_id", "frame_index", "class_name", "captions", "text", "parents", "split"),
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
NAMES: Final = (*_AS_THEY_ARE, "id", "images", "objects", "messages", "rejected", "tools", "attributes")
"""What a template may use."""


class TemplateWriter(FormWriter):
    folders: ClassVar[tuple[str, ...]] = ("*.jsonl",)

    def __init__(self, context: FormContext) -> None:
        """Raises InvalidError (TEMPLATE_INVALID) before anything is written."""
        self._context = context
        self._renderer = TemplateRenderer(context.options.template, NAMES)
        self._lines = SplitLines(context.root)
        self._texts: dict[str, str] = {}

    def refusal(self, row: Mapping[str, Any]) -> RowFault | None:
        """The text that is made here is kept until the row is written."""
        try:
            text = self._renderer.render(template_context(row))
        except RowFault as fault:
            return fault
        if not text.strip():
            return RowFault("EMPTY_TEXT", "the template makes nothing of the row", "template")
        if not text.isascii() and _SURROGATE.search(text):
            return RowFault("TEXT_INVALID", "the template makes half a surrogate pair", "template")
        self._texts[row["row_id"]] = text
        return None

    def write(self, batch: RowBatch) -> None:
        if batch.media:
            self._context.warn("pictures were left out: a template makes texts alone")
        self._lines.write((row["split"], self._entry(row["row_id"])) for row in batch.rows)

    def _entry(self, row_id: str) -> dict[str, str]:
        return {"id": row_id, "text": self._texts.pop(row_id)}

    def close(self) -> list[ShardInfo]:
        self._renderer.close()
        return self._lines.close()


def template_context(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of NAMES for a canonical row, as JSON can hold them."""
    images = [{name: value for name, value in image.items() if name != "data"} for image in row["images"]]
    objects = [item | {"attributes": _parsed(item["attributes"], {})} for item in row["objects"]]
    return {
        **{name: row[name] for name in _AS_THEY_ARE},
        "id": row["row_id"],
        "images": images,
        "objects": objects,
        "messages": _turns(row["messages"]),
        "rejected": _turns(row["rejected"]),
        "tools": _parsed(row["tools"], []),
        "attributes": _parsed(row["attributes"], {}),
    }


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **message,
            "text": join_placeholders(message["content"]) if message["content"] else "",
            "tool_calls": _parsed(message["tool_calls"], []),
        }
        for message in messages
    ]


def _parsed(text: str, nothing: Any) -> Any:
    return json.loads(text) if text else nothing
