"""Scores of held-out samples: loss, tokens, and the decision that the model takes.

Two ways, of which the training data chooses:

* *Closed*: every training row has one short answer out of few, as in classification. The model decides for
  the answer with the highest log-likelihood, end token included. The prompt is computed once per row and its
  keys and values are shared by all answers.
* *Open*: a row is right if every token with loss is the most likely one given those before it, which is exact
  match under greedy decoding. The prediction shown is what the model says after the reference, token by
  token.

Shape legend: B rows, P tokens of a prompt, A answers, L tokens of the longest answer, V vocabulary, N loss
tokens, X axes of positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from finemesh.finetune.attention import PACKED, attention
from finemesh.finetune.batches import collate
from finemesh.finetune.encoding import Sample
from finemesh.finetune.generation import fresh_cache, inputs_after
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.objective import moved
from finemesh.finetune.sight import Pictures

MAX_ANSWERS: Final = 32
MAX_ANSWER_TOKENS: Final = 16
_ROWS_TIMES_ANSWERS: Final = 256
_OPEN_ROWS: Final = 16

Answer = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """What the model made of one row. `loss_sum` is in nats over `loss_tokens` tokens."""

    row_id: str
    group: str
    prediction: str
    expected: str
    correct: bool
    loss_sum: float
    loss_tokens: int
    correct_tokens: int


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """The answers of a closed task, with how often each occurs in the training split."""

    answers: tuple[Answer, ...]
    counts: tuple[int, ...]

    @property
    def majority(self) -> Answer:
        """The most frequent answer; of equals the first by token ids."""
        return self.answers[self.counts.index(max(self.counts))]


def closed_answers(samples: Sequence[Sample]) -> AnswerSet | None:
    """The answers of the training samples, or None if the task is open."""
    counter: Counter[Answer] = Counter()
    for sample in samples:
        parts = split_answer(sample)
        if parts is None or len(parts[1]) > MAX_ANSWER_TOKENS:
            return None
        counter[parts[1]] += 1
        if len(counter) > MAX_ANSWERS:
            return None
    answers = tuple(sorted(counter))
    return AnswerSet(answers, tuple(counter[answer] for answer in answers))


def is_closed(samples: Sequence[Sample], answers: AnswerSet | None) -> bool:
    """Whether the model decides among `answers` for all of `samples`."""
    return answers is not None and all(split_answer(sample) for sample in samples)


def split_answer(sample: Sample) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Answer] | None:
    """Prompt and answer of a sample with one turn of the assistant, or None."""
    positions = np.flatnonzero(sample.loss_T)
    first, last = int(positions[0]), int(positions[-1])
    if last - first + 1 != len(positions):
        return None
    return sample.input_ids_T[:first], tuple(sample.input_ids_T[first : last + 1].tolist())


def score(
    model: Model,
    samples: Sequence[Sample],
    pictures: Pictures,
    answers: AnswerSet | None,
    *,
    blank: bool = False,
) -> list[Score]:
    """Score `samples`, in their order. `blank` replaces every picture by the processor's mean colour."""
    if blank:
        pictures = pictures.blanked()
    with model.evaluating():
        if answers and is_closed(samples, answers):
            scored = _score_closed(model, samples, pictures, answers)
        else:
            scored = _score_open(model, samples, pictures)
        by_id = {each.row_id: each for each in scored}
    return [by_id[sample.row_id] for sample in samples]


def _score_open(model: Model, samples: Sequence[Sample], pictures: Pictures) -> Iterator[Score]:
    ordered = sorted(samples, key=lambda sample: sample.size)
    with attention(model.module, model.family, PACKED):
        for start in range(0, len(ordered), _OPEN_ROWS):
            chunk = ordered[start : start + _OPEN_ROWS]
            batch = collate(chunk, pictures, packing=True, pad_id=model.pad_id).to(model.device)
            logits_NV = model.logits(batch)
            losses_N = functional.cross_entropy(logits_NV, batch.targets_N, reduction="none")
            best_N = logits_NV.argmax(-1)
            parts = (each.split(batch.targets_per_sample) for each in (losses_N, best_N, batch.targets_N))
            for sample, losses, best, targets in zip(chunk, *parts, strict=True):
                yield Score(
                    sample.row_id,
                    sample.group,
                    prediction=_text(model, best.tolist()),
                    expected=_text(model, targets.tolist()),
                    correct=bool((best == targets).all()),
                    loss_sum=float(losses.double().sum()),
                    loss_tokens=len(targets),
                    correct_tokens=int((best == targets).sum()),
                )


def _score_closed(
    model: Model, samples: Sequence[Sample], pictures: Pictures, answers: AnswerSet
) -> Iterator[Score]:
    """Rows with prompts of equal length go together, so that nothing is padded on the left."""

    def prompt_length(sample: Sample) -> int:
        return int(sample.loss_T.argmax())

    rows = max(1, _ROWS_TIMES_ANSWERS // len(answers.answers))
    with attention(model.module, model.family, model.family.plain_attention):
        for _, same_length in groupby(sorted(samples, key=prompt_length), prompt_length):
            group = list(same_length)
            for start in range(0, len(group), rows):
                yield from _decide(model, group[start : start + rows], pictures, answers)


def _decide(
    model: Model, samples: Sequence[Sample], pictures: Pictures, answers: AnswerSet
) -> Iterator[Score]:
    parts = [split for sample in samples if (split := split_answer(sample))]
    expected = [answer for _, answer in parts]
    # An answer never seen in training is scored for its loss, but the model cannot decide for it.
    candidates = [*answers.answers, *sorted(set(expected) - set(answers.answers))]
    prompts_BP = torch.from_numpy(np.stack([prompt for prompt, _ in parts]))
    inputs: dict[str, Any] = {"input_ids": prompts_BP, **pictures.inputs(samples)}
    positions = [each for each in map(pictures.positions, samples) if each is not None]
    if positions:
        prompts = [each[:, : prompts_BP.shape[1]] for each in positions]
        inputs["position_ids"] = torch.from_numpy(np.stack(prompts, axis=1))
    after = pictures.inputs([])
    logprobs_BAL, best_BAL = _candidate_scores(
        model, moved(inputs, model.device), moved(after, model.device), candidates
    )
    decided_B = logprobs_BAL[:, : len(answers.answers)].sum(-1).argmax(-1).tolist()
    for index, (sample, answer) in enumerate(zip(samples, expected, strict=True)):
        right = candidates.index(answer)
        length = len(answer)
        yield Score(
            sample.row_id,
            sample.group,
            prediction=_text(model, candidates[decided_B[index]]),
            expected=_text(model, answer),
            correct=decided_B[index] == right,
            loss_sum=-float(logprobs_BAL[index, right, :length].sum()),
            loss_tokens=length,
            correct_tokens=int(best_BAL[index, right, :length].sum()),
        )


def _candidate_scores(
    model: Model, prompts: dict[str, Any], after: dict[str, Any], candidates: Sequence[Answer]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per token of a candidate (B, A, L): log-probability, 0 beyond the end; if it is the likeliest.

    `prompts` and `after` are the model's inputs for the prompts and beside the tokens that follow them.
    """
    rows, longest = len(prompts["input_ids"]), max(len(candidate) for candidate in candidates)
    answers_AL = torch.full((len(candidates), longest), model.pad_id, device=model.device)
    inside_AL = torch.zeros_like(answers_AL, dtype=torch.bool)
    for index, candidate in enumerate(candidates):
        answers_AL[index, : len(candidate)] = torch.tensor(candidate, device=model.device)
        inside_AL[index, : len(candidate)] = True
    with model.autocast():
        cache = fresh_cache(model)
        prompt = model.module(**prompts, past_key_values=cache, use_cache=True, logits_to_keep=1)
        first_B1V = prompt.logits.float()
        logits_BALV = first_B1V.unsqueeze(1).expand(-1, len(candidates), -1, -1)
        if longest > 1:
            cache.batch_repeat_interleave(len(candidates))
            following = inputs_after(prompts, answers_AL[:, :-1].repeat(rows, 1), cache.get_seq_length())
            rest = model.module(**following, **after, past_key_values=cache).logits.float()
            logits_BALV = torch.cat([logits_BALV, rest.unflatten(0, (rows, len(candidates)))], dim=2)
    answers_BAL1 = answers_AL.expand(rows, -1, -1).unsqueeze(-1)
    logprobs_BAL = logits_BALV.log_softmax(-1).gather(-1, answers_BAL1).squeeze(-1).double()
    best_BAL = logits_BALV.argmax(-1) == answers_AL
    return logprobs_BAL * inside_AL, best_BAL & inside_AL


def _text(model: Model, ids: Sequence[int]) -> str:
    return str(model.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
