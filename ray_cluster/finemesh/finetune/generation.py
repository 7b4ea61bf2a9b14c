"""What the model writes by itself: greedy decoding after the prompts of held-out samples.

Shape legend: B rows, T tokens, V vocabulary, X axes of positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Any, Final

import numpy as np
import torch

from finemesh.finetune.attention import attention
from finemesh.finetune.batches import collate
from finemesh.finetune.encoding import Sample
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.objective import moved
from finemesh.finetune.sight import Pictures, positions_after

_ROWS: Final = 16


def generate_answers(
    model: Model, samples: Sequence[Sample], pictures: Pictures, max_tokens: int
) -> list[str]:
    """The last answer of each sample as the model writes it, in their order, special tokens left out.

    Earlier turns are given as they are. Prompts of equal length go together, so that none is padded.

    Args:
        model: set to evaluation meanwhile.
        samples: of a held-out split.
        pictures: of that split.
        max_tokens: an answer is cut off after so many.
    """
    prompts = [prompt_of(sample) for sample in samples]
    order = sorted(range(len(prompts)), key=lambda index: prompts[index].size)
    answers = [""] * len(prompts)
    with model.evaluating(), attention(model.module, model.family, model.family.plain_attention):
        for _, alike in groupby(order, key=lambda index: prompts[index].size):
            indices = [*alike]
            for start in range(0, len(indices), _ROWS):
                part = indices[start : start + _ROWS]
                written = _generate(model, [prompts[index] for index in part], pictures, max_tokens)
                for index, answer in zip(part, written, strict=True):
                    answers[index] = answer
    return answers


def last_answer(sample: Sample) -> tuple[int, int]:
    """First token of the last answer, the last run of tokens with loss, and the one after its end token."""
    positions = np.flatnonzero(sample.loss_T)
    breaks = np.flatnonzero(np.diff(positions) > 1)
    start = positions[breaks[-1] + 1] if len(breaks) else positions[0]
    return int(start), int(positions[-1]) + 1


def prompt_of(sample: Sample) -> Sample:
    """What stands before the last answer of a sample."""
    start, _ = last_answer(sample)
    return replace(sample, input_ids_T=sample.input_ids_T[:start], loss_T=np.zeros(start, np.bool_))


def decode(model: Model, prompts: Sequence[Sample], pictures: Pictures) -> Iterator[torch.Tensor]:
    """The logits (B, V) in fp32 of one token after the other of equally long prompts, each the likeliest.

    Keys and values are kept; what a family needs beside tokens is given by its hooks, which `generate` of
    transformers would have each model do in its own way.
    """
    batch = collate(prompts, pictures, packing=False, pad_id=model.pad_id).to(model.device)
    inputs, after = batch.inputs, moved(pictures.inputs([]), model.device)
    cache = fresh_cache(model)
    while True:
        with model.autocast():
            output = model.module(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits_BV = output.logits[:, -1].float()
        yield logits_BV
        next_B1 = logits_BV.argmax(-1, keepdim=True)
        inputs = inputs_after(inputs, next_B1, cache.get_seq_length()) | after


def inputs_after(before: dict[str, Any], ids_BT: torch.Tensor, seen: int) -> dict[str, Any]:
    """What the model takes for tokens after `seen` ones whose keys and values are kept, none of them padding.

    `before` are the inputs for those; a multiple of its rows may follow, as many after each.
    """
    # Said, since InstructBLIP would take the new tokens alone for all that are seen.
    seen_BT = torch.ones(len(ids_BT), seen + ids_BT.shape[1], dtype=torch.long, device=ids_BT.device)
    following = {"input_ids": ids_BT, "attention_mask": seen_BT}
    if "position_ids" in before:
        positions_XBT = before["position_ids"]
        positions_XBT = positions_XBT.repeat_interleave(len(ids_BT) // positions_XBT.shape[1], dim=1)
        following["position_ids"] = positions_after(positions_XBT, ids_BT.shape[1])
    return following


def fresh_cache(model: Model) -> Any:
    """Room for the keys and values of a language model; its forward fills it in place."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config.get_text_config())


def end_ids(model: Model) -> list[int]:
    """Tokens that end an answer: those of the generation config, and the tokenizer's own."""
    configured = model.module.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({each for each in (*ends, model.tokenizer.eos_token_id) if each is not None})


def _generate(model: Model, prompts: Sequence[Sample], pictures: Pictures, max_tokens: int) -> list[str]:
    ends, written = end_ids(model), list[list[int]]()
    done_B = np.zeros(len(prompts), np.bool_)
    for logits_BV in islice(decode(model, prompts, pictures), max_tokens):
        next_B = logits_BV.argmax(-1).cpu().numpy()
        written.append([-1 if done else token for done, token in zip(done_B, next_B.tolist(), strict=True)])
        done_B |= np.isin(next_B, ends)
        if done_B.all():
            break
    answers = ([token for token in tokens if token >= 0] for tokens in zip(*written, strict=True))
    return [str(model.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in answers]
