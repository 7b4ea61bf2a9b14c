"""Golden items of models that speak: prompts of conversations, and the tokens that follow.

Shape legend: T tokens of the prompt, G generated tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

import numpy as np
import torch

from finemesh.finetune.attention import attention
from finemesh.finetune.batches import collate
from finemesh.finetune.encoding import EncodedSplit, Encoder, Sample
from finemesh.finetune.generation import decode, end_ids, prompt_of
from finemesh.finetune.models import Model
from finemesh.finetune.rows import Row, read_rows
from finemesh.package.golden import GoldenItem
from finemesh.package.trained import Trained

MAX_GENERATED_TOKENS: Final = 8
# Of a prompt alone they follow from its tokens, and runtimes make them as they go.
_FOLLOW: Final = {"attention_mask", "position_ids"}


def text_items(trained: Trained, split: str, wanted: list[str]) -> Iterator[GoldenItem]:
    """The items of these rows, in their order; an item shows one picture at most."""
    model = trained.model
    encoder = Encoder(model.family, model.processor, model.config, trained.on_cpu.sequence)
    ranks = {row_id: rank for rank, row_id in enumerate(wanted)}
    rows = {row.row_id: row for row in read_rows(trained.dataset, split) if row.row_id in ranks}
    encoded = encoder.encode_rows(trained.dataset, rows.values())
    usable = [sample for sample in encoded.samples if len(sample.images) <= 1]
    for sample in sorted(usable, key=lambda each: ranks[each.row_id]):
        yield _item(model, rows[sample.row_id], sample, encoded)


def _item(model: Model, row: Row, sample: Sample, encoded: EncodedSplit) -> GoldenItem:
    last = max(turn for turn, message in enumerate(row.messages) if message["role"] == "assistant")
    prompt = prompt_of(sample)
    inputs = collate([prompt], encoded.pictures, packing=False, pad_id=model.pad_id).inputs
    tokens_G, logits_GV = _generate(model, prompt, encoded)
    return GoldenItem(
        row_id=row.row_id,
        group=row.group,
        messages=[*row.messages[:last]],
        image=row.images[0] if sample.images else b"",
        expected="".join(part["text"] for part in row.messages[last]["content"]),
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
