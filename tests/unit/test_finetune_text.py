"""Plain language modelling: every token once, the loss that transformers computes, exact after a stop."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import (
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Full,
    Objective,
    Optimization,
    OverLength,
    Sequence,
    Task,
)
from finemesh.data.rows import make_row
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.jsonlines import to_json
from finemesh.finetune.loop import train
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.objectives.text import PlainText
from transformers import AutoModelForCausalLM

from tests.support.conversations import spec, tiny_model, write_dataset

TEXTS = ["red green blue", "blue", "yellow " * 9 + "red", "green red green red blue", "blue yellow"]


def text_row(row_id: str, split: str, text: str) -> dict[str, Any]:
    return dict(make_row(row_id, source={"file": "made up", "key": row_id}, text=text or None, split=split))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        text_row(f"{split}-{n}", split, text)
        for split in ("train", "val", "test")
        for n, text in enumerate(TEXTS)
    ]
    return write_dataset(tmp_path_factory.mktemp("data") / "texts", rows)


def wanted(**changes: Any) -> FineTuneSpec:
    return spec(Task.LANGUAGE, objective=Objective.TEXT, **changes)


def model_of(base: Path, chosen: FineTuneSpec) -> Model:
    model = load_model(chosen, base)
    model.module.eval()
    return model


def test_the_loss_is_that_of_transformers(base: Path, dataset: Path, tmp_path: Path) -> None:
    model = model_of(base, wanted())
    objective = PlainText(wanted(), model, dataset)
    split = objective.encode("train")
    objective.begin({"train": split})
    batch = objective.collate(split, split.samples)
    expected, targets = 0.0, 0
    plain = AutoModelForCausalLM.from_pretrained(base)
    encoded = {sample.row_id: sample.input_ids_T.tolist() for sample in split.samples}
    for number, text in enumerate(TEXTS):
        ids = torch.tensor([[*model.tokenizer(text)["input_ids"], model.tokenizer.eos_token_id]])
        assert encoded[f"train-{number}"] == ids[0].tolist()
        with torch.inference_mode():
            expected += float(plain(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        targets += ids.shape[1] - 1
    assert batch.weight == targets
    assert objective.loss(batch).item() == pytest.approx(expected, rel=1e-5)
    validated = objective.validate(split, tmp_path)
    assert validated["val/loss"] == pytest.approx(expected / targets, rel=1e-5)
    assert validated["val/perplexity"] == pytest.approx(math.exp(expected / targets), rel=1e-5)


@pytest.mark.parametrize("size", [2, 3, 7, 1000])
def test_a_split_text_predicts_every_token_once(base: Path, dataset: Path, size: int) -> None:
    def encoded(sequence: Sequence) -> Any:
        chosen = wanted(sequence=sequence)
        return PlainText(chosen, model_of(base, chosen), dataset).encode("train")

    whole = encoded(Sequence())
    split = encoded(Sequence(max_tokens=size, over_length=OverLength.SPLIT))
    assert split.ledger.kept == len(TEXTS)
    pieces = {sample.row_id: sample for sample in split.samples}
    for text, entry in zip(whole.samples, split.entries, strict=True):
        assert text.row_id == entry.row_id
        targets = [token for name in entry.children for token in pieces[name].input_ids_T[1:]]
        assert targets == text.input_ids_T[1:].tolist()
        assert all(2 <= pieces[name].size <= size and not pieces[name].loss_T[0] for name in entry.children)


def test_policies_and_empty_texts_are_counted(base: Path, tmp_path: Path) -> None:
    dataset = write_dataset(
        tmp_path / "data", [text_row("long", "train", TEXTS[2]), text_row("none", "train", "")]
    )
    model = model_of(base, wanted())

    def ledger(policy: OverLength) -> tuple[dict[str, int], int]:
        chosen = wanted(sequence=Sequence(max_tokens=6, over_length=policy))
        split = PlainText(chosen, model, dataset).encode("train")
        return dict(split.ledger.by_reason), split.truncated

    assert ledger(OverLength.DROP) == ({"NO_TEXT": 1, "ROW_TOO_LONG": 1}, 0)
    assert ledger(OverLength.TRUNCATE) == ({"NO_TEXT": 1}, 1)
    with pytest.raises(InvalidError, match="row long") as caught:
        ledger(OverLength.RAISE)
    assert caught.value.reason == "ROW_TOO_LONG"


def test_it_learns_is_resumed_bit_for_bit_and_tested(base: Path, dataset: Path, tmp_path: Path) -> None:
    chosen = wanted(
        method=Full(),
        validation_split="val",
        test_split="test",
        optimization=Optimization(learning_rate=3e-3, max_steps=12, micro_batch_size=3),
        checkpoint=Checkpointing(every_steps=5, keep_last=3),
        evaluation=Evaluation(baselines=True),
    )
    straight = train(chosen, base_model=base, dataset=dataset, work=tmp_path / "straight")
    [(step, early), *_] = list_checkpoints(tmp_path / "straight" / "checkpoints")
    assert step == 5
    resumed = train(chosen, base_model=base, dataset=dataset, work=tmp_path / "resumed", resume_from=early)
    assert resumed.certificate == straight.certificate
    metrics = straight.metrics
    assert metrics["test/perplexity"] < metrics["test/untrained_perplexity"] / 2
    assert metrics["test/perplexity_low"] <= metrics["test/perplexity"] <= metrics["test/perplexity_high"]
    items = [
        json.loads(line) for line in (tmp_path / "straight/evaluation/test.jsonl").read_text().splitlines()
    ]
    tokens = sum(item["tokens"] for item in items)
    loss = sum(item["loss"] * item["tokens"] for item in items) / tokens
    assert metrics["test/loss"] == pytest.approx(loss)


def test_a_perplexity_beyond_all_numbers_is_null_in_json() -> None:
    told = to_json({"val/perplexity": math.inf, "others": (math.nan, 1.5), "step": 3})
    assert json.loads(told, parse_constant=pytest.fail) == {
        "val/perplexity": None,
        "others": [None, 1.5],
        "step": 3,
    }
