"""What the forms that hold conversations ask of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from finemesh.data.faults import RowFault
from finemesh.data.writers.form import FormContext

_UNASKED: Final = "the row has no conversation: convert with an instruction task"
_TEXT: Final = (
    "the row is plain text, in which nobody speaks: write it as hugging-face, or train on it as it is"
)
_BESIDE: Final = ("objects", "captions", "class_name", "text")


def conversation_fault(row: Mapping[str, Any]) -> RowFault | None:
    """Why a row cannot be written as a conversation; None if it can."""
    if not row["messages"]:
        return RowFault("NO_MESSAGES", _TEXT if row["text"] else _UNASKED, "messages")
    turns = (*row["messages"], *row["rejected"])
    shown = sum(part["type"] == "image" for turn in turns for part in turn["content"])
    if shown != len(row["images"]):
        message = (
            f"the turns show {shown} pictures, the row has {len(row['images'])}: each must be shown once"
        )
        return RowFault("PLACEHOLDER_MISMATCH", message, "messages")
    return None


def warn_of_rest(context: FormContext, row: Mapping[str, Any]) -> None:
    """Say what a row has beside its conversation, and is left out."""
    if lost := [name for name in _BESIDE if row[name]]:
        context.warn(f"{', '.join(lost)} left out: a form of conversations has no place for them")
