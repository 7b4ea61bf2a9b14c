"""Golden items of models that speak: prompts of conversations, or beginnings of texts, and what follows.

Shape legend: T tokens of the prompt, G generated tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import torch

from finemesh.finetune.attention import attention
from finemesh.finetune.batches import collate
from finemesh.finetune.encoding import EncodedSplit, Encoder, Sample
from finemesh.finetune.generation import decode, end_ids, prompt_of
from finemesh.finetune.models import Model
from finemesh.finetune.rows import ROW_COLUMNS, TEXT_COLUMNS, Row, read_rows
from finemesh.package.golden import GoldenItem
from finemesh.package.trained import Trained

MAX_GENERATED_TOKENS: Final = 8
# Of a prompt alone they follow from its tokens, and runtimes make them as they go.
_FOLLOW: Final = {"attention_mask", "position_ids"}


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What the model is asked, as messages and as tokens, and what the dataset says to it."""

    row: Row
    sample: Sample
    messages: list[Any]
    expected: str


def text_items(trained: Trained, split: str, wanted: list[str]) -> Iterator[GoldenItem]:
    """The items of these rows, in their order; an item shows one picture at most."""
    model = trained.model
    encoder = Encoder(model.family, model.processor, model.config, trained.on_cpu.sequence)
    of_text = trained.plain
    ranks = {row_id: rank for rank, row_id in enumerate(wanted)}
    columns = TEXT_COLUMNS if of_text else ROW_COLUMNS
    rows = (row for row in read_rows(trained.dataset, split, columns) if row.row_id in ranks)
    found = {row.row_id: row for row in rows}
    encoded = (
        EncodedSplit([], [], 0, encoder.pictures_of(trained.dataset))
        if of_text
        else encoder.encode_rows(trained.dataset, found.values())
    )
    prompts = _beginnings(model, found.values()) if of_text else _questions(found, encoded)
    for prompt in sorted(prompts, key=lambda each: ranks[each.row.row_id]):
        yield _item(model, prompt, encoded)


def _questions(rows: Mapping[str, Row], encoded: EncodedSplit) -> Iterator[_Prompt]:
    """Conversations up to their last answer."""
    for sample in encoded.samples:
        row = rows[sample.row_id]
        if len(sample.images) > 1:
            continue
        last = max(turn for turn, message in enumerate(row.messages) if message["role"] == "assistant")
        expected = "".join(part["text"] for part in row.messages[last]["content"])
        yield _Prompt(row, prompt_of(sample), [*row.messages[:last]], expected)


def _beginnings(model: Model, rows: Iterable[Row]) -> Iterator[_Prompt]:
    """The first half of the words of each text, as one message that no template touches."""
    for row in rows:
        text, rest = halves(row.text)
        if not text:
            continue
        ids_T = np.array(model.tokenizer(text)["input_ids"], np.int64)
        sample = Sample(row.row_id, row.group, ids_T, np.zeros(len(ids_T), np.bool_))
        yield _Prompt(row, sample, [said(text)], rest)


def halves(text: str) -> tuple[str, str]:
    """The first half of the words of a text and the others; a text of one word has no first half."""
    words = text.split()
    half = len(words) // 2
    return " ".join(words[:half]), " ".join(words[half:])


def said(text: str) -> dict[str, Any]:
    """A text as a message, for runtimes that take no less."""
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def _item(model: Model, prompt: _Prompt, encoded: EncodedSplit) -> GoldenItem:
    row, sample = prompt.row, prompt.sample
    inputs = collate([sample], encoded.pictures, packing=False, pad_id=model.pad_id).inputs
    tokens_G, logits_GV = _generate(model, sample, encoded)
    return GoldenItem(
        row_id=row.row_id,
        group=row.group,
        messages=prompt.messages,
        image=row.images[0] if sample.images else b"",
        expected=prompt.expected,
        inputs={name: each.numpy() for name, each in inputs.items() if name not in _FOLLOW},
        outputs={"logits": logits_GV.numpy()},
        decision={"tokens": tokens_G},
        generated=model.tokenizer.decode(tokens_G, skip_special_tokens=True).strip(),
    )


@torch.inference_mode()
def _generate(
    model: Model, prompt: Sample, encoded: EncodedSplit
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], torch.Tensor]:
    """Greedy tokens (G) up to the end token, and the logits (G, V) each was chosen from."""
    ends = set(end_ids(model))
    tokens: list[int] = []
    logits: list[torch.Tensor] = []
    with attention(model.module, model.family, model.family.plain_attention):
        for logits_BV in islice(decode(model, [prompt], encoded.pictures), MAX_GENERATED_TOKENS):
            logits.append(logits_BV[0])
            tokens.append(int(logits[-1].argmax()))
            if tokens[-1] in ends:
                break
    return np.array(tokens, np.int64), torch.stack(logits)
