"""Evaluation of held-out splits: metrics, baselines, and the items behind them, one JSON line each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from finemesh.core.spec.finetune import Task
from finemesh.finetune.encoding import EncodedSplit
from finemesh.finetune.models import Model
from finemesh.finetune.scoring import AnswerSet, Score, score, split_answer
from finemesh.finetune.statistics import clustered_mean


def evaluate(model: Model, encoded: EncodedSplit, answers: AnswerSet | None, split: str) -> dict[str, float]:
    """Metrics of a split as `<split>/...`: loss per token in nats, accuracy of decisions, of tokens."""
    return _averages(score(model, encoded.samples, encoded.pictures.load, answers), split)


def evaluate_test(
    model: Model,
    encoded: EncodedSplit,
    answers: AnswerSet | None,
    base_model: Path,
    folder: Path,
) -> dict[str, float]:
    """The final test: metrics with 95% intervals, baselines if the spec asks for them, items under `folder`.

    Baselines, on the same items: the untrained model; for closed tasks the most frequent answer of the
    training split (`majority`) and the answer that is right most often here (`constant`, the most that a
    model blind to its input can reach when every question is the same); for vision tasks the trained model
    shown the mean colour in place of every picture (`blanked`).
    """
    seed = model.spec.optimization.seed
    samples, load = encoded.samples, encoded.pictures.load

    def report(scores: Sequence[Score], prefix: str) -> dict[str, float]:
        right = [float(each.correct) for each in scores]
        interval = clustered_mean(right, [each.group for each in scores], seed)
        return {
            f"test/{prefix}accuracy": interval.mean,
            f"test/{prefix}accuracy_low": interval.low,
            f"test/{prefix}accuracy_high": interval.high,
        }

    trained = score(model, samples, load, answers)
    _write_items(folder / "test.jsonl", trained)
    metrics = {"test/items": float(len(samples)), **_averages(trained, "test"), **report(trained, "")}
    if not model.spec.evaluation.baselines:
        return metrics
    with model.untrained(base_model) as untrained:
        scores = score(untrained, samples, load, answers)
    _write_items(folder / "test_untrained.jsonl", scores)
    metrics |= report(scores, "untrained_")
    if answers:
        expected = Counter(split[1] for sample in samples if (split := split_answer(sample)))
        metrics["test/majority_accuracy"] = expected[answers.majority] / len(samples)
        metrics["test/constant_accuracy"] = max(expected[each] for each in answers.answers) / len(samples)
    if model.spec.task is Task.VISION_LANGUAGE:
        scores = score(model, samples, load, answers, blank=True)
        _write_items(folder / "test_blanked.jsonl", scores)
        metrics |= report(scores, "blanked_")
    return metrics


def _averages(scores: Sequence[Score], split: str) -> dict[str, float]:
    tokens = sum(each.loss_tokens for each in scores)
    return {
        f"{split}/loss": sum(each.loss_sum for each in scores) / tokens,
        f"{split}/accuracy": sum(each.correct for each in scores) / len(scores),
        f"{split}/token_accuracy": sum(each.correct_tokens for each in scores) / tokens,
    }


def _write_items(path: Path, scores: Sequence[Score]) -> None:
    """One object per item, for paired comparison of runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {
                "row_id": each.row_id,
                "group": each.group,
                "prediction": each.prediction,
                "expected": each.expected,
                "correct": each.correct,
                "loss": each.loss_sum / each.loss_tokens,
            },
            ensure_ascii=False,
        )
        for each in scores
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
