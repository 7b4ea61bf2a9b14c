"""A row token by token: which message a token belongs to, its text, and whether it carries loss.

Shape legend: T tokens of one sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from finemesh.core.errors import InvalidError
from finemesh.finetune.chat import Rendered, render
from finemesh.finetune.encoding import Encoder, Tokens, expanded
from finemesh.finetune.preflight_report import RowFigures, Segment, ShownRow, Turn
from finemesh.finetune.rows import Row

# One token as the segments group them: turn, carries loss, is cut, is an image placeholder.
_Kind = tuple[int, bool, bool, bool]


def show(row: Row, figures: RowFigures, rendered: Rendered, tokens: Tokens, encoder: Encoder) -> ShownRow:
    """Lay a row out as segments.

    Args:
        row: what was encoded.
        figures: the same row in numbers.
        rendered: its text before placeholders were expanded.
        tokens: what the processor made of it.
        encoder: renders the conversation up to each message, and says which tokens are cut.
    """
    image_id = encoder.image_token_id if encoder.sees else None
    end = encoder.trained_tokens(rendered, tokens) or encoder.sequence.max_tokens
    turn_T = _turns(tokens, _ends(encoder, row, rendered, tokens))
    loss_T = tokens.loss(rendered)
    texts = token_texts(tokens, expanded(rendered.text, tokens.replacements))
    kinds: list[_Kind] = [
        (int(turn), bool(loss and index < end), index >= end, int(token) == image_id)
        for index, (turn, loss, token) in enumerate(zip(turn_T, loss_T, tokens.ids_T, strict=True))
    ]
    segments = tuple(_segments(row, kinds, tokens.ids_T, texts))
    turns = tuple(
        Turn(message["role"], int((turn_T == index).sum()), int(loss_T[turn_T == index].sum()))
        for index, message in enumerate(row.messages)
    )
    return ShownRow(figures, turns if (turn_T >= 0).any() else (), segments)


def token_texts(tokens: Tokens, text: str) -> list[str]:
    """The text of every token. What a tokenizer skips belongs to the token after it, and a character of
    several tokens to the first of them, so that the texts joined are `text` up to the last token.
    """
    texts: list[str] = []
    read = 0
    for _, end in tokens.offsets_T2.reshape(-1, 2).tolist():
        texts.append(text[read:end])
        read = max(read, end)
    return texts


def _ends(encoder: Encoder, row: Row, rendered: Rendered, tokens: Tokens) -> list[int] | None:
    """Where each message ends in the expanded text; None if the template does not write them in order."""
    ends: list[int] = []
    for count in range(1, len(row.messages) + 1):
        try:
            turns = row.messages[:count]
            before = render(encoder.processor, turns, parts=encoder.sees, tools=row.tools).text
        except InvalidError:  # a template may refuse the beginning of what it takes as a whole
            return None
        if not rendered.text.startswith(before):
            return None
        ends.append(tokens.moved(len(before)))
    return ends


def _turns(tokens: Tokens, ends: list[int] | None) -> npt.NDArray[np.int64]:
    """The message of every token, by its first character; -1 where nothing says."""
    if not ends:
        return np.full(len(tokens.ids_T), -1, np.int64)
    starts_T = tokens.offsets_T2.reshape(-1, 2)[:, 0]
    return np.minimum(np.searchsorted(np.asarray(ends), starts_T, side="right"), len(ends) - 1)


def _segments(
    row: Row, kinds: Sequence[_Kind], ids_T: npt.NDArray[np.int64], texts: Sequence[str]
) -> list[Segment]:
    segments: list[Segment] = []
    at = 0
    for (turn, loss, cut, image), group in groupby(kinds):
        count = len(list(group))
        listed = 1 if image else count
        segments.append(
            Segment(
                turn=turn,
                role=row.messages[turn]["role"] if turn >= 0 else "",
                loss=loss,
                cut=cut,
                image=image,
                count=count,
                ids=tuple(ids_T[at : at + listed].tolist()),
                texts=tuple(texts[at : at + listed]),
            )
        )
        at += count
    return segments
