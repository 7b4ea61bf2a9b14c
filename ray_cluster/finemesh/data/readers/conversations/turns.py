"""One turn of a conversation, as any of the formats writes it.

Speakers are named by `from` or `role`, words stand in `value` or `content`. Sources: LLaVA,
docs/Finetune_Custom_Data.md; LLaMA-Factory, data/README.md (ShareGPT with tools); OpenAI, API reference, chat
completions and fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from finemesh.data.faults import RowFault
from finemesh.data.readers.conversations.fields import Fields, embedded_json, kind_of, refuse, shown
from finemesh.data.readers.conversations.gallery import Gallery
from finemesh.data.rows import IMAGE_PART, make_message, text_part
from finemesh.data.schema import ContentPart, Message

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
_CALLS: Final = ("function_call", "tool_call")
_ROLES: Final = {
    **dict.fromkeys((SYSTEM, "developer"), SYSTEM),
    **dict.fromkeys((USER, "human"), USER),
    **dict.fromkeys((ASSISTANT, "gpt", "chatgpt", "bot", "bard", "bing", "model", *_CALLS), ASSISTANT),
    **dict.fromkeys((TOOL, "observation", "function", "function_response", "ipython"), TOOL),
}
# What `_ROLES` makes of these is written back as it came; of others the row keeps the name.
_PLAIN: Final = (SYSTEM, USER, ASSISTANT, TOOL, "human", "gpt", "observation", *_CALLS)


@dataclass(frozen=True, slots=True)
class Turn:
    """`more` is what the turn holds beside its message; `empty` whether it says nothing."""

    message: Message
    more: dict[str, Any]

    @property
    def empty(self) -> bool:
        message = self.message
        silent = all(part["type"] == "text" and not part["text"].strip() for part in message["content"])
        return silent and not message["tool_calls"]


def read_turn(value: Any, field: str, gallery: Gallery) -> Turn:
    """The turn `value`, which stands at `field`.

    Raises:
        RowFault: RECORD_INVALID, UNKNOWN_ROLE, CONTENT_UNSUPPORTED, TOOL_CALL_INVALID, WEIGHT_INVALID, or a
            fault of a picture (see Gallery).
    """
    if not isinstance(value, Mapping):
        refuse(field, value, "a turn with a role and a content")
    turn = Fields(value)
    name = turn.take("from") if turn.has("from") else turn.take("role")
    name = name.strip().lower() if isinstance(name, str) else None
    role = _ROLES.get(name) if name is not None else None
    if role is None:
        known = ", ".join(sorted(_ROLES))
        key = "from" if "from" in value else "role"
        message = f"{shown(value.get(key))} is no known speaker: use one of {known}"
        raise RowFault("UNKNOWN_ROLE", message, f"{field}.{key}")
    words = "value" if value.get("value") is not None else "content"
    where, content = f"{field}.{words}", turn.take(words)
    calls = _calls(turn, field)
    if name in _CALLS:
        calls += tool_calls(content, where)
        content = None
    more: dict[str, Any] = {} if name in _PLAIN else {"role": name}
    parts = _content(content, where, gallery, more)
    train = _train(turn, field)
    more |= turn.rest()
    return Turn(make_message(role, parts, tool_calls=calls, train=train), more)


def as_turns(value: Any, field: str, role: str = ASSISTANT) -> list[Any]:
    """Turns of a list of them, of one, or of a text that `role` says, not looked into yet. Raises RowFault
    (RECORD_INVALID).
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, list) or not value:
        refuse(field, value, "a text or a list of turns")
    return value


def turn_text(turn: Any) -> Any:
    """What a turn says, as it came."""
    return turn.get("content", turn.get("value")) if isinstance(turn, Mapping) else None


def _content(value: Any, field: str, gallery: Gallery, more: dict[str, Any]) -> list[ContentPart]:
    if value is None:
        return []
    if isinstance(value, str):
        return gallery.text(value, field)
    if not isinstance(value, list):
        refuse(field, value, "a text or a list of parts")
    content: list[ContentPart] = []
    for index, part in enumerate(value):
        where = f"{field}[{index}]"
        if isinstance(part, str):
            content.append(text_part(part))
            continue
        if not isinstance(part, Mapping):
            refuse(where, part, "a part with a type")
        content += _part(Fields(part), where, gallery, more, index)
    return content


def _part(part: Fields, field: str, gallery: Gallery, more: dict[str, Any], index: int) -> list[ContentPart]:
    kind = part.take("type")
    if kind in ("text", "input_text", "output_text"):
        text = part.take("text")
        if not isinstance(text, str):
            refuse(f"{field}.text", text, "a text")
        content = [text_part(text)] if text else []
    elif kind in ("image_url", "input_image", "image"):
        _show(part, field, gallery)
        content = [IMAGE_PART]
    else:
        message = f"a part of type {shown(kind)} cannot be kept: texts and pictures can"
        raise RowFault("CONTENT_UNSUPPORTED", message, f"{field}.type")
    if rest := {name: value for name, value in part.rest().items() if value != ""}:
        more.setdefault("parts", {})[str(index)] = rest
    return content


def _show(part: Fields, field: str, gallery: Gallery) -> None:
    """A picture that the part names, or, of a bare `{"type": "image"}`, the next that the record names."""
    for name in ("image_url", "image", "url", "path"):
        if part.has(name):
            reference = part.take(name)
            if isinstance(reference, Mapping) and name == "image_url":
                reference = reference.get("url")
            gallery.show(reference, f"{field}.{name}")
            return
    gallery.show_next(field)


def _calls(turn: Fields, field: str) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for name in ("tool_calls", "function_call"):
        if turn.has(name):
            calls += tool_calls(turn.take(name), f"{field}.{name}")
        else:
            turn.take(name)
    return calls


def tool_calls(value: Any, field: str) -> list[dict[str, Any]]:
    """Calls of functions as `{"name", "arguments"}`, with the `id` of those that have one; given as one or as
    a list, also as JSON in a text. Raises RowFault (TOOL_CALL_INVALID).
    """
    value = embedded_json(value, field, "TOOL_CALL_INVALID")
    return [_call(item, field) for item in (value if isinstance(value, list) else [value])]


def _call(value: Any, field: str) -> dict[str, Any]:
    inner = value.get("function", value) if isinstance(value, Mapping) else value
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"]:
        message = f"{field} is {kind_of(value)} without the name of a function"
        raise RowFault("TOOL_CALL_INVALID", message, field)
    arguments = inner.get("arguments", inner.get("parameters")) or {}
    arguments = embedded_json(arguments, f"{field}.arguments", "TOOL_CALL_INVALID")
    identity = {"id": value["id"]} if value.get("id") else {}
    return {**identity, "name": inner["name"], "arguments": arguments}


def read_tools(value: Any, field: str) -> list[Any]:
    """Functions that may be called, given as a list or as JSON in a text, out of OpenAI's wrapping. Raises
    RowFault (TOOLS_INVALID).
    """
    value = embedded_json(value, field, "TOOLS_INVALID")
    tools = value if isinstance(value, list) else [value]
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            message = f"a tool is {kind_of(tool)}, not an object that describes a function"
            raise RowFault("TOOLS_INVALID", message, f"{field}[{index}]")
    return [
        tool["function"]
        if tool.keys() == {"type", "function"} and isinstance(tool["function"], Mapping)
        else tool
        for tool in tools
    ]


def _train(turn: Fields, field: str) -> bool | None:
    """Whether the turn carries loss: `train`, or OpenAI's `weight`."""
    for name in ("train", "weight"):
        value = turn.take(name)
        if value is None:
            continue
        if value not in (0, 1):
            message = f"{name} is {shown(value)}: a turn carries loss (1) or it does not (0)"
            raise RowFault("WEIGHT_INVALID", message, f"{field}.{name}")
        return bool(value)
    return None
