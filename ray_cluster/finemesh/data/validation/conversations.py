"""Checks of what a row says: the order of turns, empty ones, pictures shown, loss, preferences, encodings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from finemesh.data.schema import ContentPart, Message

Found = tuple[str, str, str]

# Who may speak after whom; CALLS is an assistant's turn that calls functions.
_CALLS: Final = "assistant calling"
_NEXT: Final[dict[str, tuple[str, ...]]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant", _CALLS),
    "assistant": ("user",),
    _CALLS: ("tool",),
    "tool": ("tool", "assistant", _CALLS),
}
_LAST: Final = ("assistant", _CALLS)


def check_conversation(row: Mapping[str, Any], images: int) -> Iterator[Found]:
    """What is said by a row with `messages`, `rejected`, `text` and `captions`, beside so many pictures."""
    yield from check_messages(row["messages"], images)
    if row["rejected"]:
        yield from _check_rejected(row["messages"], row["rejected"])
    texts = [("text", row["text"])] if row["text"] is not None else []
    for field, text in (*texts, *((f"captions[{i}]", each) for i, each in enumerate(row["captions"]))):
        if not text.strip():
            yield "EMPTY_TEXT", field, "nothing but blanks" if text else "it has no letter"
        yield from check_encoding(text, field)


def check_messages(messages: Sequence[Message], images: int) -> Iterator[Found]:
    """A conversation: perhaps a system turn, then user and assistant by turns, a function's result behind
    each call, every picture shown once, and loss on one turn at least.
    """
    if not messages:
        return
    roles = [_role(message) for message in messages]
    if not _in_order("", roles):
        yield "ROLE_ORDER", "messages", ", ".join(roles)
    shown = sum(part["type"] == "image" for message in messages for part in message["content"])
    if shown != images:
        yield "PLACEHOLDER_MISMATCH", "messages", f"{shown} shown, {images} there"
    if not any(_carries_loss(message) for message in messages):
        yield "ALL_MASKED", "messages", f"{len(messages)} turns, none to be learned"
    yield from _check_turns(messages, "messages")


def _check_rejected(messages: Sequence[Message], rejected: Sequence[Message]) -> Iterator[Found]:
    before = _role(messages[-2]) if len(messages) > 1 else "user"
    roles = [_role(message) for message in rejected]
    if not messages or not _in_order(before, roles):
        yield "ROLE_ORDER", "rejected", ", ".join(roles)
    if len(rejected) == 1 and messages and _said(rejected[0]) == _said(messages[-1]):
        yield "SAME_ANSWERS", "rejected", str(_said(rejected[0])[0])[:60]
    yield from _check_turns(rejected, "rejected")


def _check_turns(messages: Sequence[Message], field: str) -> Iterator[Found]:
    for index, message in enumerate(messages):
        text = _text(message["content"])
        pictures = any(part["type"] == "image" for part in message["content"])
        # A function may well return nothing.
        if not (text.strip() or pictures or message["tool_calls"] or message["role"] == "tool"):
            yield "EMPTY_TURN", f"{field}[{index}]", message["role"]
        yield from check_encoding(text, f"{field}[{index}]")


def _in_order(before: str, roles: Sequence[str]) -> bool:
    pairs = zip((before, *roles), roles, strict=False)
    return all(role in _NEXT.get(previous, ()) for previous, role in pairs) and roles[-1] in _LAST


def _role(message: Message) -> str:
    return _CALLS if message["role"] == "assistant" and message["tool_calls"] else message["role"]


def _carries_loss(message: Message) -> bool:
    train = message["train"]
    return message["role"] == "assistant" if train is None else train


def _said(message: Message) -> tuple[str, str]:
    return _text(message["content"]), message["tool_calls"]


def _text(content: Sequence[ContentPart]) -> str:
    return "".join(part["text"] for part in content)


def _misread(first: int, last: int) -> str:
    """The characters that the bytes `first` to `last` show as in Windows-1252 or in Latin-1, as a class of a
    pattern.
    """
    octets = bytes(range(first, last + 1))
    shown = octets.decode("latin-1") + octets.decode("windows-1252", errors="ignore")
    return "[" + "".join(map(re.escape, sorted({*shown}))) + "]"


_MORE: Final = _misread(0x80, 0xBF)
# UTF-8 read in another encoding (Unicode 16, table 3-7): Latin and Cyrillic letters, punctuation and kana,
# emoji; of other scripts two letters, as `é` before a blank and a quote looks like one.
_MOJIBAKE: Final = re.compile(
    f"{_misread(0xC2, 0xC3)}{_MORE}|{_misread(0xD0, 0xD1)}{_MORE}|{_misread(0xE2, 0xE3)}{_MORE}{{2}}"
    f"|{_misread(0xF0, 0xF0)}{_MORE}{{3}}|(?:{_misread(0xE0, 0xEF)}{_MORE}{{2}}){{2}}"
)


def check_encoding(text: str, field: str) -> Iterator[Found]:
    """Replacement characters, and UTF-8 that was read in another encoding."""
    if text.isascii():
        return
    at = text.find("\ufffd")
    found = _MOJIBAKE.search(text) if at < 0 else None
    if found is not None:
        at = found.start()
    if at >= 0:
        yield "SUSPICIOUS_ENCODING", field, text[max(at - 20, 0) : at + 40]
