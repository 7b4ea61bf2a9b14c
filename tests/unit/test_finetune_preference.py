"""Preference tuning against plain transformers, one sequence at a time, and against the formula by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from finemesh.core.spec.finetune import (
    Checkpointing,
    FineTuneSpec,
    Full,
    Lora,
    Objective,
    Optimization,
    Preference,
    Sequence,
    Task,
    Tower,
)
from finemesh.data.rows import make_row
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.loop import train
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.objectives.preference import PreferencePairs, preference_loss
from transformers import AutoModelForCausalLM

from tests.support.conversations import message, row, spec, tiny_model, write_dataset

ANSWERS = [("red", "blue yellow"), ("green", "red"), ("blue green", "yellow"), ("yellow", "green green")]


def pair_row(row_id: str, split: str, chosen: str, rejected: str) -> dict[str, Any]:
    made = make_row(
        row_id,
        source={"file": "made up", "key": row_id},
        messages=row("", "", prompt() + [message("assistant", chosen)])["messages"],
        rejected=[message("assistant", rejected)] if rejected else None,  # pyright: ignore[reportArgumentType]
        split=split,
    )
    return dict(made)


def prompt() -> list[dict[str, Any]]:
    """An earlier answer of the assistant is context: it carries no loss."""
    return [message("user", "say red"), message("assistant", "red"), message("user", "and the first?")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        pair_row(f"{split}-{number}", split, *answers)
        for split in ("train", "val", "test")
        for number, answers in enumerate(ANSWERS)
    ]
    return write_dataset(tmp_path_factory.mktemp("data") / "pairs", rows)


def wanted(**changes: Any) -> FineTuneSpec:
    return spec(Task.LANGUAGE, **{"objective": Objective.PREFERENCE, **changes})


def logprob(plain: Any, model: Model, answer: str) -> tuple[float, int]:
    """log p(answer | prompt) of a plain model, end token included, and the number of its tokens."""
    tokenizer = model.tokenizer
    chat = [{"role": turn["role"], "content": turn["content"][0]["text"]} for turn in prompt()]
    head = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    context = tokenizer(head, add_special_tokens=False)["input_ids"]
    said = tokenizer(answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = plain(input_ids=torch.tensor([context + said])).logits[0].double().log_softmax(-1)
    places = range(len(context) - 1, len(context) + len(said) - 1)
    return sum(float(logits[at, token]) for at, token in zip(places, said, strict=True)), len(said)


@pytest.mark.parametrize("packing", [True, False])
def test_the_loss_is_the_formula_over_plain_models(base: Path, dataset: Path, *, packing: bool) -> None:
    preference = Preference(beta=0.5, label_smoothing=0.1, chosen_weight=0.25)
    chosen_spec = wanted(
        method=Full((Tower.LANGUAGE,)), preference=preference, sequence=Sequence(packing=packing)
    )
    model = load_model(chosen_spec, base)
    objective = PreferencePairs(chosen_spec, model, dataset)
    split = objective.encode("train")
    objective.begin({"train": split})
    plain, reference = (AutoModelForCausalLM.from_pretrained(base) for _ in range(2))
    torch.manual_seed(1)
    with torch.no_grad():  # the policy moves, the reference stays
        for moving, same in zip(model.module.parameters(), plain.parameters(), strict=True):
            noise = 0.02 * torch.randn_like(moving)
            moving.add_(noise)
            same.add_(noise)
    model.module.eval()
    with torch.inference_mode():
        batch = objective.collate(split, split.samples)
        loss = objective.loss(batch).item()
    expected = 0.0
    for pair in split.samples:
        better, worse = ANSWERS[int(pair.row_id.removeprefix("train-"))]
        (up, tokens), (down, _) = logprob(plain, model, better), logprob(plain, model, worse)
        moved = up - down - logprob(reference, model, better)[0] + logprob(reference, model, worse)[0]
        right = 1 / (1 + math.exp(-0.5 * moved))
        expected += -0.9 * math.log(right) - 0.1 * math.log(1 - right) - 0.25 * up / tokens
    assert batch.weight == len(ANSWERS)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_untrained_it_is_undecided() -> None:
    """log 2 without any move; a sure pair costs nothing; smoothing makes certainty cost something."""
    moved_P = torch.tensor([0.0, 1e3])
    assert preference_loss(moved_P, Preference()).tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)
    assert preference_loss(moved_P, Preference(label_smoothing=0.1))[1].item() == pytest.approx(10.0)


def test_rows_without_a_rejected_answer_are_counted(base: Path, tmp_path: Path) -> None:
    rows = [pair_row("pair", "train", "red", "blue"), pair_row("single", "train", "red", "")]
    long = pair_row("long", "train", "red", "blue " * 300)
    dataset = write_dataset(tmp_path / "data", [*rows, long])
    chosen = wanted(sequence=Sequence(max_tokens=64, over_length=Sequence().over_length.DROP))
    split = PreferencePairs(chosen, load_model(chosen, base), dataset).encode("train")
    assert [pair.row_id for pair in split.samples] == ["pair"]
    assert dict(split.ledger.by_reason) == {"NO_PREFERENCE": 1, "ROW_TOO_LONG": 1}
    assert "its rejected answer" in next(e.message for e in split.entries if e.row_id == "long")


def test_pairs_that_are_cut_are_counted_as_rows(base: Path, tmp_path: Path) -> None:
    """Of two rejected turns the first fits; a pair whose chosen answer does not fit is no pair any more."""
    turns = [message("assistant", "blue"), message("user", "and?"), message("assistant", "blue " * 300)]
    cut = pair_row("cut", "train", "red", "blue") | {"rejected": turns}
    lost = pair_row("lost", "train", "red " * 300, "blue") | {"rejected": turns}
    whole = pair_row("whole", "train", "red", "blue")
    dataset = write_dataset(tmp_path / "data", [cut, lost, whole])
    chosen = wanted(sequence=Sequence(max_tokens=64, over_length=Sequence().over_length.TRUNCATE))
    split = PreferencePairs(chosen, load_model(chosen, base), dataset).encode("train")
    assert [pair.row_id for pair in split.samples] == ["cut", "whole"]
    assert split.truncated == 1


@pytest.mark.parametrize("method", [Lora(rank=4, dropout=0.1), Full((Tower.LANGUAGE,))], ids=["lora", "full"])
def test_it_learns_to_prefer_and_is_resumed_bit_for_bit(
    base: Path, dataset: Path, tmp_path: Path, method: Lora | Full
) -> None:
    chosen = wanted(
        method=method,
        validation_split="val",
        test_split="test",
        optimization=Optimization(
            learning_rate=3e-3, max_steps=10, micro_batch_size=2, gradient_accumulation_steps=2
        ),
        checkpoint=Checkpointing(every_steps=4, keep_last=3),
    )
    straight = train(chosen, base_model=base, dataset=dataset, work=tmp_path / "straight")
    assert straight.metrics["test/accuracy"] == 1.0
    assert straight.metrics["test/loss"] < math.log(2)
    items = (tmp_path / "straight/evaluation/test.jsonl").read_text().splitlines()
    assert all(json.loads(line)["correct"] for line in items)
    [(step, early), *_] = list_checkpoints(tmp_path / "straight" / "checkpoints")
    assert step == 4
    resumed = train(chosen, base_model=base, dataset=dataset, work=tmp_path / "resumed", resume_from=early)
    assert resumed.certificate == straight.certificate
