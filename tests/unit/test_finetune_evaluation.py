"""Scores against the long way round, intervals, baselines, and a model that learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finemesh.core.spec.finetune import (
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    Sequence,
    Task,
    Tower,
)
from finemesh.finetune.encoding import EncodedSplit, Encoder
from finemesh.finetune.loop import train
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.scoring import AnswerSet, Score, closed_answers, score, split_answer
from finemesh.finetune.statistics import clustered_mean
from torch.nn import functional

from tests.support.conversations import (
    COLOURS,
    colour_rows,
    message,
    row,
    spec,
    text_rows,
    tiny_model,
    write_dataset,
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llava"), "llava")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("llama"), "llama")


def loaded(
    chosen: FineTuneSpec, base: Path, dataset: Path, split: str = "train"
) -> tuple[Model, EncodedSplit]:
    model = load_model(chosen, base)
    model.module.eval()
    encoder = Encoder(model.family, model.processor, model.config, chosen.sequence)
    return model, encoder.encode(dataset, split)


def alone(model: Model, ids: list[int], pixels: torch.Tensor | None) -> torch.Tensor:
    """Log-probabilities (T, V) of a plain forward pass over one row."""
    inputs: dict[str, Any] = {"input_ids": torch.tensor([ids])}
    if pixels is not None:
        inputs["pixel_values"] = pixels
    with torch.inference_mode():
        return model.module(**inputs).logits[0].log_softmax(-1)


@pytest.mark.parametrize("answers", [list(COLOURS), ["red", "green is what it is", "blue"]])
def test_a_decision_is_the_likeliest_answer_by_the_long_way(
    llava: Path, tmp_path: Path, answers: list[str]
) -> None:
    rows = list(colour_rows({"train": 9}))
    for index, each in enumerate(rows):
        each["messages"][1] = message("assistant", answers[index % len(answers)])
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)
    plain = spec(sequence=Sequence(packing=False))
    model, encoded = loaded(plain, llava, dataset)
    known = closed_answers(encoded.samples)
    assert known
    assert len(known.answers) == len(answers)
    for sample, given in zip(
        encoded.samples, score(model, encoded.samples, encoded.pictures, known), strict=True
    ):
        split = split_answer(sample)
        assert split
        pixels = encoded.pictures.inputs([sample])["pixel_values"]
        prompt = split[0].tolist()
        likelihoods: dict[tuple[int, ...], float] = {}
        for answer in known.answers:
            logprobs_TV = alone(model, [*prompt, *answer], pixels)[len(prompt) - 1 : -1]
            likelihoods[answer] = float(logprobs_TV[range(len(answer)), answer].sum())
        best = max(likelihoods, key=lambda answer: likelihoods[answer])
        assert given.prediction == model.tokenizer.decode(best, skip_special_tokens=True)
        assert given.correct == (best == split[1])
        assert given.loss_sum == pytest.approx(-likelihoods[split[1]], abs=1e-4)
        assert given.loss_tokens == len(split[1])


def test_an_answer_never_trained_on_is_never_right(llava: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 8})))
    model, encoded = loaded(spec(), llava, dataset)
    known = closed_answers(encoded.samples)
    assert known
    without_red = AnswerSet(known.answers[1:], known.counts[1:])
    unseen = model.tokenizer.decode(known.answers[0], skip_special_tokens=True)
    scores = score(model, encoded.samples, encoded.pictures, without_red)
    assert not any(each.correct for each in scores if each.expected == unseen)
    assert unseen not in {each.prediction for each in scores}


def test_closed_and_open_scoring_agree_on_loss(llava: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 12})))
    model, encoded = loaded(spec(), llava, dataset)
    closed = score(model, encoded.samples, encoded.pictures, closed_answers(encoded.samples))
    opened = score(model, encoded.samples, encoded.pictures, None)
    for one, other in zip(closed, opened, strict=True):
        assert one.loss_sum == pytest.approx(other.loss_sum, abs=1e-4)
        assert (one.loss_tokens, one.correct_tokens) == (other.loss_tokens, other.correct_tokens)


def test_open_exact_match_is_that_of_greedy_generation(llama: Path, tmp_path: Path) -> None:
    """Half of the rows get as their answer what the model itself would say."""
    model = load_model(spec(Task.LANGUAGE, sequence=Sequence(packing=False)), llama)
    model.module.eval()
    rows: list[dict[str, Any]] = []
    for index in range(8):
        prompt = f"<s><|user|>{'say ' * (index + 1)}<|assistant|>"
        ids = model.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            said = model.module.generate(**ids, do_sample=False, max_new_tokens=4)[
                0, ids["input_ids"].shape[1] :
            ]
        text = model.tokenizer.decode(said) if index % 2 else "red"
        rows.append(
            row(str(index), "train", [message("user", "say " * (index + 1)), message("assistant", text)])
        )
    dataset = write_dataset(tmp_path / "dataset", rows, shards=1)
    model, encoded = loaded(spec(Task.LANGUAGE), llama, dataset)
    scores = score(model, encoded.samples, encoded.pictures, None)
    for sample, given in zip(encoded.samples, scores, strict=True):
        split = split_answer(sample)
        assert split
        ids_1T = torch.from_numpy(split[0]).unsqueeze(0)
        plain = load_model(spec(Task.LANGUAGE, sequence=Sequence(packing=False)), llama)
        plain.module.eval()
        with torch.inference_mode():
            generated = plain.module.generate(
                input_ids=ids_1T, do_sample=False, max_new_tokens=len(split[1]), eos_token_id=-1
            )
        assert given.correct == (tuple(generated[0, len(split[0]) :].tolist()) == split[1])


def test_many_turns_make_a_task_open(llama: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(text_rows({"train": 6})))
    model, encoded = loaded(spec(Task.LANGUAGE), llama, dataset)
    assert closed_answers(encoded.samples) is None
    [first, *_] = score(model, encoded.samples, encoded.pictures, None)
    sample = encoded.samples[0]
    ids, positions = sample.input_ids_T.tolist(), np.flatnonzero(sample.loss_T)
    plain = load_model(spec(Task.LANGUAGE, sequence=Sequence(packing=False)), llama)
    plain.module.eval()
    logprobs_TV = alone(plain, ids, None)
    losses_N = functional.nll_loss(logprobs_TV[positions - 1], torch.tensor(ids)[positions], reduction="sum")
    assert first.loss_sum == pytest.approx(float(losses_N), abs=1e-3)


def test_an_interval_over_clusters_is_wider_than_one_over_items() -> None:
    """Ten videos of twenty equal frames each know as much as ten items."""
    values = [float(i // 20 % 2) for i in range(200)]
    clustered = clustered_mean(values, [str(i // 20) for i in range(200)], seed=0)
    independent = clustered_mean(values, [str(i) for i in range(200)], seed=0)
    assert clustered.mean == independent.mean == 0.5
    assert clustered.high - clustered.low > 3 * (independent.high - independent.low)
    assert independent.high - independent.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 200), rel=0.1)
    assert clustered == clustered_mean(values, [str(i // 20) for i in range(200)], seed=0)


def test_one_video_alone_still_has_an_interval() -> None:
    values = [float(i % 2) for i in range(100)]
    alone = clustered_mean(values, ["the only video"] * 100, seed=0)
    assert alone == clustered_mean(values, [str(i) for i in range(100)], seed=0)
    assert alone.low < 0.45 < 0.55 < alone.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        videos = rng.beta(4, 2, 40)
        values = [float(each) for video in videos for each in rng.random(6) < video]
        interval = clustered_mean(values, [str(i // 6) for i in range(240)], seed=trial)
        covered += interval.low <= 4 / 6 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize("rank", [4, 16])
def test_a_lora_learns_colours_and_goes_blind_with_blanked_images(
    llava: Path, tmp_path: Path, rank: int
) -> None:
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 160, "val": 24, "test": 80})))
    chosen = FineTuneSpec(
        Task.VISION_LANGUAGE,
        "tiny",
        "projects/test/datasets/colours",
        method=Lora(rank=rank, alpha=2.0 * rank, train_connector=True),
        optimization=Optimization(learning_rate=4e-3, epochs=6, micro_batch_size=16),
        evaluation=Evaluation(baselines=True),
        checkpoint=Checkpointing(every_steps=20),
    )
    result = train(chosen, base_model=llava, dataset=dataset, work=tmp_path / "work")
    metrics = result.metrics
    assert metrics["test/items"] == 80
    assert metrics["test/accuracy"] > 0.95
    assert metrics["test/accuracy_low"] > max(
        metrics["test/untrained_accuracy_high"], metrics["test/majority_accuracy"]
    )
    assert metrics["test/blanked_accuracy"] <= metrics["test/constant_accuracy"] == 0.25
    items = [json.loads(line) for line in (tmp_path / "work/evaluation/test.jsonl").read_text().splitlines()]
    assert len({item["row_id"] for item in items}) == 80
    assert len({item["group"] for item in items}) == 20
    right = [item["prediction"] == item["expected"] for item in items]
    assert right == [item["correct"] for item in items]
    assert sum(right) / 80 == metrics["test/accuracy"]


@pytest.mark.parametrize(
    "method", [Lora(rank=4, train_connector=True), Full((Tower.LANGUAGE, Tower.CONNECTOR))]
)
def test_the_untrained_baseline_is_the_base_model(llava: Path, tmp_path: Path, method: Lora | Full) -> None:
    """The same items scored by a model that was never trained."""
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 16, "test": 12})))
    chosen = spec(method=method, test_split="test", evaluation=Evaluation(baselines=True))
    train(chosen, base_model=llava, dataset=dataset, work=tmp_path / "work")
    fresh, test_split = loaded(chosen, llava, dataset, "test")
    _, train_split = loaded(chosen, llava, dataset, "train")
    expected: list[Score] = score(
        fresh, test_split.samples, test_split.pictures, closed_answers(train_split.samples)
    )
    lines = (tmp_path / "work/evaluation/test_untrained.jsonl").read_text().splitlines()
    for line, each in zip(lines, expected, strict=True):
        assert json.loads(line)["loss"] == pytest.approx(each.loss_sum / each.loss_tokens, abs=1e-6)
