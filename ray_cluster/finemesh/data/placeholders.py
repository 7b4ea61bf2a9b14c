"""`<image>` inside a text: where a picture stands, as LLaVA and its kin write it.

A picture at the start or the end of a turn stands on a line of its own; that line break belongs to the
picture, not to the text. Within a text the picture stands exactly where `<image>` does.
Source: haotian-liu/LLaVA, llava/train/train.py, preprocess_multimodal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from finemesh.data.rows import IMAGE_PART, text_part
from finemesh.data.schema import ContentPart

PLACEHOLDER: Final = "<image>"
_OWN_LINE: Final = ("", "\n")


def split_placeholders(value: str) -> list[ContentPart]:
    """The parts of a text with placeholders; empty texts are left out."""
    pieces = value.split(PLACEHOLDER)
    end = len(pieces) - 1
    spoken = [index for index, piece in enumerate(pieces) if piece not in _OWN_LINE]
    first = 0 if pieces[0] else min(spoken, default=end)
    last = end if pieces[-1] else max(spoken, default=0)
    if first > last:
        return [IMAGE_PART] * end
    pieces[:first] = [""] * first
    pieces[last + 1 :] = [""] * (end - last)
    if first > 0:
        pieces[first] = pieces[first].removeprefix("\n")
    if last < end:
        pieces[last] = pieces[last].removesuffix("\n")
    parts: list[ContentPart] = []
    for index, piece in enumerate(pieces):
        parts += [IMAGE_PART] if index else []
        parts += [text_part(piece)] if piece else []
    return parts


def join_placeholders(parts: Sequence[ContentPart]) -> str:
    """The text with placeholders that `split_placeholders` takes apart into `parts` again."""
    shown = [part["type"] == "image" for part in parts]
    if all(shown):
        return "\n".join(PLACEHOLDER for _ in parts)
    first = shown.index(False)
    last = len(shown) - 1 - shown[::-1].index(False)
    middle = (PLACEHOLDER if part["type"] == "image" else part["text"] for part in parts[first : last + 1])
    return f"{PLACEHOLDER}\n" * first + "".join(middle) + f"\n{PLACEHOLDER}" * (len(parts) - last - 1)
