"""What the model writes by itself: greedy decoding after the prompts of held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

import numpy as np
import torch

from finemesh.finetune.attention import attention
from finemesh.finetune.batches import LoadPicture, collate
from finemesh.finetune.encoding import Sample
from finemesh.finetune.models import Model

_ROWS: Final = 16


@torch.inference_mode()
def generate_answers(
    model: Model, samples: Sequence[Sample], load_picture: LoadPicture, max_tokens: int
) -> list[str]:
    """The last answer of each sample as the model writes it, in their order, special tokens left out.

    Earlier turns are given as they are. Prompts of equal length go together, so that none is padded.

    Args:
        model: set to evaluation meanwhile.
        samples: of a held-out split.
        load_picture: of that split.
        max_tokens: an answer is cut off after so many.
    """
    prompts = [_prompt(sample) for sample in samples]
    order = sorted(range(len(prompts)), key=lambda index: prompts[index].size)
    answers = [""] * len(prompts)
    was_training = model.module.training
    model.module.eval()
    try:
        with attention(model.module, model.family, model.family.plain_attention):
            for _, alike in groupby(order, key=lambda index: prompts[index].size):
                indices = [*alike]
                for start in range(0, len(indices), _ROWS):
                    part = indices[start : start + _ROWS]
                    written = _generate(model, [prompts[index] for index in part], load_picture, max_tokens)
                    for index, answer in zip(part, written, strict=True):
                        answers[index] = answer
    finally:
        model.module.train(was_training)
    return answers


def last_answer(sample: Sample) -> tuple[int, int]:
    """First token of the last answer, the last run of tokens with loss, and the one after its end token."""
    positions = np.flatnonzero(sample.loss_T)
    breaks = np.flatnonzero(np.diff(positions) > 1)
    start = positions[breaks[-1] + 1] if len(breaks) else positions[0]
    return int(start), int(positions[-1]) + 1


def _prompt(sample: Sample) -> Sample:
    start, _ = last_answer(sample)
    return replace(sample, input_ids_T=sample.input_ids_T[:start], loss_T=np.zeros(start, np.bool_))


def _generate(
    model: Model, prompts: Sequence[Sample], load_picture: LoadPicture, max_tokens: int
) -> list[str]:
    batch = collate(prompts, load_picture, packing=False, pad_id=model.pad_id).to(model.device)
    with model.autocast():
        ids_BT = model.module.generate(
            **batch.inputs,
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=_end_ids(model) or None,
            pad_token_id=model.pad_id,
        )
    length = prompts[0].size
    return [str(model.tokenizer.decode(ids_T[length:], skip_special_tokens=True)).strip() for ids_T in ids_BT]


def _end_ids(model: Model) -> list[int]:
    """Tokens that end an answer: those of the generation config, and the tokenizer's own."""
    configured = model.module.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({each for each in (*ends, model.tokenizer.eos_token_id) if each is not None})
