"""Metrics of answers by hand, and answers against transformers' own generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from finemesh.core.spec.boxes import BoxConvention, write_box
from finemesh.core.spec.finetune import Evaluation, Lora, Optimization, Task
from finemesh.finetune.encoding import Encoder
from finemesh.finetune.generation import generate_answers
from finemesh.finetune.loop import train
from finemesh.finetune.metrics import (
    box_accuracy_50,
    box_iou,
    count_error,
    exact_match,
    rouge_l,
    token_f1,
)
from finemesh.finetune.models import load_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.conversations import colour_rows, spec, text_rows, tiny_model, write_dataset


def test_overlap_of_words_by_hand() -> None:
    said, wanted = "A red  cat sat.", "a cat sat down"
    assert token_f1(said, wanted) == pytest.approx(2 * 3 / 8)
    assert rouge_l(said, wanted) == pytest.approx(2 * 3 / 8)  # a, cat, sat
    assert rouge_l("sat cat a", wanted) == pytest.approx(2 * 1 / 7)  # the order counts
    assert token_f1("sat cat a", wanted) == pytest.approx(2 * 3 / 7)  # it does not
    assert exact_match("a  red\ncat", "a red cat") == 1.0
    assert exact_match("A red cat", "a red cat") == 0.0
    assert token_f1("", "") == rouge_l("", "") == 1.0


@pytest.mark.parametrize("convention", BoxConvention)
def test_boxes_overlap_as_they_do_by_hand(convention: BoxConvention) -> None:
    """Half of one box covers half of the other, in any notation: 50 of 150 pixels."""
    wanted = write_box([0, 0, 100, 100], 200, 100, convention)
    said = write_box([50, 0, 100, 100], 200, 100, convention)
    assert box_iou(f"there: {said}", wanted) == pytest.approx(1 / 3, abs=0.01)
    assert (box_accuracy_50(said, wanted), box_accuracy_50(wanted, wanted)) == (0.0, 1.0)
    assert box_iou("nowhere", wanted) == 0.0
    assert box_iou(said, "a cat") is None


def test_several_boxes_are_each_matched_once() -> None:
    left, right = "[0.00, 0.00, 0.50, 1.00]", "[0.50, 0.00, 1.00, 1.00]"
    assert box_iou(f"{right} and {left}", f"{left} {right}") == pytest.approx(1.0)
    assert box_iou(left, f"{left} {right}") == pytest.approx(0.5)
    assert box_iou(f"{left} {left}", f"{left} {right}") == pytest.approx(0.5)


def test_counts_are_missed_by_their_difference() -> None:
    assert count_error("There are 5 of them", "3") == 2
    assert count_error("none that I see", "3") == 3
    assert count_error("5", "three") is None


def test_answers_are_those_of_greedy_generation_alone(tmp_path: Path) -> None:
    """Each prompt by itself, through plain transformers; some of them are equally long and share a batch."""
    base = tiny_model(tmp_path / "llama", "llama")
    dataset = write_dataset(tmp_path / "texts", list(text_rows({"test": 9})))
    chosen = spec(Task.LANGUAGE)
    model = load_model(chosen, base)
    encoded = Encoder(model.family, model.processor, model.config, chosen.sequence).encode(dataset, "test")
    answers = generate_answers(model, encoded.samples, encoded.pictures, 6)
    plain: Any = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    for sample, answer in zip(encoded.samples, answers, strict=True):
        ids, loss = sample.input_ids_T.tolist(), sample.loss_T.tolist()
        start = len(ids) - loss[::-1].index(False)
        prompt = torch.tensor([ids[:start]])
        made = plain.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False
        )
        assert answer == tokenizer.decode(made[0, start:], skip_special_tokens=True).strip()


def test_open_answers_are_measured_and_kept(tmp_path: Path) -> None:
    """Conversations of two turns are open; the metrics are the means of what each item says."""
    base = tiny_model(tmp_path / "llama", "llama")
    dataset = write_dataset(tmp_path / "texts", list(text_rows({"train": 8, "test": 6})))
    chosen = spec(
        Task.LANGUAGE,
        method=Lora(rank=2),
        test_split="test",
        optimization=Optimization(max_steps=1),
        evaluation=Evaluation(max_generated_tokens=4),
    )
    metrics = train(chosen, base_model=base, dataset=dataset, work=tmp_path / "work").metrics
    items = [json.loads(line) for line in (tmp_path / "work/evaluation/test.jsonl").read_text().splitlines()]
    for name in ("exact_match", "token_f1", "rouge_l"):
        assert metrics[f"test/{name}"] == pytest.approx(sum(item[name] for item in items) / 6)
        assert metrics[f"test/{name}_low"] <= metrics[f"test/{name}"] <= metrics[f"test/{name}_high"]
    assert "test/box_iou" not in metrics
    assert {item["expected"] for item in items} <= {"red", "green", "blue", "yellow"}


def test_generation_can_be_left_out(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "llava", "llava")
    dataset = write_dataset(tmp_path / "colours", list(colour_rows({"train": 8, "test": 4})))
    short = Optimization(max_steps=1)
    chosen = spec(test_split="test", optimization=short, evaluation=Evaluation(max_generated_tokens=0))
    metrics = train(chosen, base_model=base, dataset=dataset, work=tmp_path / "work").metrics
    assert "test/accuracy" in metrics
    assert "test/rouge_l" not in metrics
