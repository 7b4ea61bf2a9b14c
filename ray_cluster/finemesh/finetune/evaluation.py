"""Evaluation of held-out splits: metrics, baselines, and the items behind them, one JSON line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from finemesh.core.spec.finetune import Task
from finemesh.finetune.encoding import EncodedSplit
from finemesh.finetune.generation import generate_answers, last_answer
from finemesh.finetune.jsonlines import write_lines
from finemesh.finetune.metrics import CLOSED_METRICS, OPEN_METRICS, installed_metrics, measure
from finemesh.finetune.models import Model
from finemesh.finetune.scoring import AnswerSet, Score, is_closed, score, split_answer
from finemesh.finetune.statistics import clustered_mean


def evaluate(
    model: Model, encoded: EncodedSplit, answers: AnswerSet | None, folder: Path, split: str
) -> dict[str, float]:
    """Metrics of a split as `<split>/...`: loss per token in nats, accuracy of decisions, of tokens. Its
    items go under `folder`.
    """
    scores = score(model, encoded.samples, encoded.pictures, answers)
    _write_items(folder / f"{split}.jsonl", scores)
    return _averages(scores, split)


def evaluate_test(
    model: Model,
    encoded: EncodedSplit,
    answers: AnswerSet | None,
    base_model: Path,
    folder: Path,
) -> dict[str, float]:
    """The final test: metrics with 95% intervals, baselines if the spec asks for them, items under `folder`.

    Where answers are open the model writes its own, up to `evaluation.max_generated_tokens`, and the metrics
    of `OPEN_METRICS` compare them with those expected; one that says nothing of any item is left out.
    Those of `evaluation.metrics` compare them too.

    Baselines, on the same items: the untrained model; for closed tasks the most frequent answer of the
    training split (`majority`) and the answer that is right most often here (`constant`, the most that a
    model blind to its input can reach when every question is the same); for vision tasks the trained model
    shown the mean colour in place of every picture (`blanked`).
    """
    samples, pictures = encoded.samples, encoded.pictures
    trained = score(model, samples, pictures, answers)
    answered = _answers(model, encoded, trained, answers)
    _write_items(folder / "test.jsonl", trained, answered)
    seed = model.spec.optimization.seed
    metrics = {
        "test/items": float(len(samples)),
        **_averages(trained, "test"),
        **_accuracy(trained, "", seed),
    }
    metrics |= _of_answers(answered, [each.group for each in trained], seed)
    if model.spec.evaluation.baselines:
        metrics |= _baselines(model, encoded, answers, base_model, folder)
    return metrics


def _baselines(
    model: Model, encoded: EncodedSplit, answers: AnswerSet | None, base_model: Path, folder: Path
) -> dict[str, float]:
    seed, samples, pictures = model.spec.optimization.seed, encoded.samples, encoded.pictures
    with model.untrained(base_model) as untrained:
        scores = score(untrained, samples, pictures, answers)
    _write_items(folder / "test_untrained.jsonl", scores)
    metrics = _accuracy(scores, "untrained_", seed)
    if answers:
        expected = Counter(split[1] for sample in samples if (split := split_answer(sample)))
        metrics["test/majority_accuracy"] = expected[answers.majority] / len(samples)
        metrics["test/constant_accuracy"] = max(expected[each] for each in answers.answers) / len(samples)
    if model.spec.task is Task.VISION_LANGUAGE:
        scores = score(model, samples, pictures, answers, blank=True)
        _write_items(folder / "test_blanked.jsonl", scores)
        metrics |= _accuracy(scores, "blanked_", seed)
    return metrics


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the model says to one item by itself, what it should say, and what the metrics make of that."""

    said: str
    expected: str
    values: dict[str, float]


def _answers(
    model: Model, encoded: EncodedSplit, scores: Sequence[Score], answers: AnswerSet | None
) -> list[_Answer]:
    """The decisions of a closed task; of an open one what the model writes, if it is to write."""
    if is_closed(encoded.samples, answers):
        said, wanted = [each.prediction for each in scores], [each.expected for each in scores]
        metrics = CLOSED_METRICS
    elif limit := model.spec.evaluation.max_generated_tokens:
        said = generate_answers(model, encoded.samples, encoded.pictures, limit)
        ends = [last_answer(sample) for sample in encoded.samples]
        spans = [sample.input_ids_T[slice(*end)] for sample, end in zip(encoded.samples, ends, strict=True)]
        wanted = [str(model.tokenizer.decode(ids_T, skip_special_tokens=True)).strip() for ids_T in spans]
        metrics = OPEN_METRICS
    else:
        return []
    metrics = metrics | installed_metrics(model.spec.evaluation.metrics)
    return [
        _Answer(one, other, measure(metrics, one, other, each.row_id))
        for one, other, each in zip(said, wanted, scores, strict=True)
    ]


def _of_answers(answered: Sequence[_Answer], groups: Sequence[str], seed: int) -> dict[str, float]:
    """The mean of each metric over the items it says something of, with its interval."""
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for each in answered for name in each.values):
        told = [
            (each.values[name], group)
            for each, group in zip(answered, groups, strict=True)
            if name in each.values
        ]
        interval = clustered_mean([value for value, _ in told], [group for _, group in told], seed)
        metrics |= interval.named(f"test/{name}")
    return metrics


def _accuracy(scores: Sequence[Score], prefix: str, seed: int) -> dict[str, float]:
    right = [float(each.correct) for each in scores]
    interval = clustered_mean(right, [each.group for each in scores], seed)
    return interval.named(f"test/{prefix}accuracy")


def _averages(scores: Sequence[Score], split: str) -> dict[str, float]:
    tokens = sum(each.loss_tokens for each in scores)
    return {
        f"{split}/loss": sum(each.loss_sum for each in scores) / tokens,
        f"{split}/accuracy": sum(each.correct for each in scores) / len(scores),
        f"{split}/token_accuracy": sum(each.correct_tokens for each in scores) / tokens,
    }


def _write_items(path: Path, scores: Sequence[Score], answered: Sequence[_Answer] = ()) -> None:
    """One object per item, for paired comparison of runs."""
    write_lines(
        path,
        (
            {
                "row_id": each.row_id,
                "group": each.group,
                "prediction": answer.said if answer else each.prediction,
                "expected": answer.expected if answer else each.expected,
                "correct": each.correct,
                "loss": each.loss_sum / each.loss_tokens,
                "tokens": each.loss_tokens,
                "correct_tokens": each.correct_tokens,
                **(answer.values if answer else {}),
            }
            for each, answer in zip_longest(scores, answered)
        ),
    )
