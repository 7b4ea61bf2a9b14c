"""What training computes besides: the same bits with fewer activations, and the noise that was asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import (
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    Precision,
    Quantization,
    Sequence,
    Task,
    Tower,
)
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.forward import prepare_forward
from finemesh.finetune.hooks import NoHooks, TrainResult
from finemesh.finetune.loop import train
from finemesh.finetune.models import load_model
from finemesh.finetune.objectives.registry import make_objective
from transformers.integrations.neftune import neftune_post_forward_hook
from transformers.trainer_pt_utils import LabelSmoother

from tests.support.conversations import colour_rows, spec, text_rows, tiny_model, write_dataset


@dataclass
class Losses(NoHooks):
    values: dict[int, float] = field(default_factory=dict[int, float])

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        if "train/loss" in values:
            self.values[step] = values["train/loss"]


@dataclass(frozen=True)
class Place:
    bases: dict[Task, Path]
    datasets: dict[Task, Path]
    work: Path

    def train(self, chosen: FineTuneSpec, work: str, **arguments: Any) -> TrainResult:
        base, dataset = self.bases[chosen.task], self.datasets[chosen.task]
        return train(chosen, base_model=base, dataset=dataset, work=self.work / work, **arguments)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Place]:
    root = tmp_path_factory.mktemp("shared")
    bases = {
        Task.LANGUAGE: tiny_model(root / "llama", "llama"),
        Task.VISION_LANGUAGE: tiny_model(root / "llava", "llava"),
    }
    datasets = {
        Task.LANGUAGE: write_dataset(root / "texts", list(text_rows({"train": 16}))),
        Task.VISION_LANGUAGE: write_dataset(root / "colours", list(colour_rows({"train": 16, "test": 4}))),
    }
    return lambda work: Place(bases, datasets, work)


@pytest.fixture
def place(shared: Callable[[Path], Place], tmp_path: Path) -> Place:
    return shared(tmp_path)


def optimization(**changes: Any) -> Optimization:
    short = Optimization(
        learning_rate=4e-3, max_steps=4, micro_batch_size=4, gradient_accumulation_steps=2, seed=3
    )
    return replace(short, **changes)


METHODS: dict[str, dict[str, Any]] = {
    "lora with dropout, vision tower too": {
        "method": Lora(rank=2, dropout=0.1, towers=(Tower.LANGUAGE, Tower.VISION), train_connector=True)
    },
    "full, padded": {
        "task": Task.LANGUAGE,
        "method": Full(),
        "sequence": Sequence(packing=False),
    },
    "nf4 in bf16": {
        "task": Task.LANGUAGE,
        "method": Lora(rank=2, quantization=Quantization.NF4),
        "precision": Precision.BF16,
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_activations_computed_twice_give_the_same_bits(place: Place, name: str) -> None:
    kept, again = (
        place.train(
            spec(**METHODS[name], optimization=optimization(activation_checkpointing=recompute)),
            f"{recompute}",
        )
        for recompute in (False, True)
    )
    assert again.certificate.loss_digest == kept.certificate.loss_digest


def saved_bytes(place: Place, recompute: bool) -> int:
    """What the graph of one loss holds until its gradients are taken."""
    chosen = spec(Task.LANGUAGE, optimization=optimization(activation_checkpointing=recompute))
    model = load_model(chosen, place.bases[chosen.task])
    prepare_forward(model)
    model.train()
    objective = make_objective(chosen, model, place.datasets[chosen.task])
    split = objective.encode("train")
    batch = objective.collate(split, split.samples[:8])
    held: dict[int, int] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    def give(tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, give):
        objective.loss(batch)
    return sum(held.values())


def test_activations_computed_twice_are_not_kept(place: Place) -> None:
    assert saved_bytes(place, recompute=True) < 0.5 * saved_bytes(place, recompute=False)


def test_a_model_that_cannot_compute_them_twice_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = spec(Task.LANGUAGE, optimization=optimization(activation_checkpointing=True))
    model = load_model(chosen, place.bases[Task.LANGUAGE])
    monkeypatch.setattr(type(model.module.get_base_model()), "supports_gradient_checkpointing", False)
    with pytest.raises(InvalidError, match="LlamaForCausalLM cannot compute its activations twice") as caught:
        prepare_forward(model)
    assert caught.value.reason == "FAMILY_UNSUPPORTED"


@pytest.mark.timeout(300)  # a C++ compiler runs in it
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.filterwarnings("ignore")  # the compiler warns of what it does itself
def test_compiled_it_learns_the_same(place: Place) -> None:
    losses: dict[bool, dict[int, float]] = {}
    for compiled in (False, True):
        chosen = spec(
            Task.LANGUAGE,
            method=Lora(rank=2, target_modules=("q_proj",)),  # less to compile
            optimization=optimization(compile=compiled, max_steps=2, gradient_accumulation_steps=1),
        )
        place.train(chosen, f"{compiled}", hooks=(hooks := Losses()))
        losses[compiled] = hooks.values
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)


@pytest.mark.parametrize("packing", [True, False])
def test_noise_on_embeddings_goes_by_the_tokens_of_the_sample(place: Place, packing: bool) -> None:
    """One sample alone has the noise of transformers; beside others it has the same limit."""
    alpha = 5.0
    chosen = spec(
        Task.LANGUAGE, sequence=Sequence(packing=packing), optimization=optimization(neftune_alpha=alpha)
    )
    model = load_model(chosen, place.bases[Task.LANGUAGE])
    prepare_forward(model)
    objective = make_objective(chosen, model, place.datasets[Task.LANGUAGE])
    split = objective.encode("train")
    samples = sorted(split.samples, key=lambda sample: sample.size)[-1:] + split.samples[:3]
    embedding = model.module.get_input_embeddings()
    seen: list[torch.Tensor] = []
    embedding.register_forward_hook(lambda *arguments: seen.append(arguments[2].detach()))

    def noise(count: int, seed: int = 0) -> torch.Tensor:
        batch = objective.collate(split, samples[:count])
        torch.manual_seed(seed)
        objective.loss(batch)
        return seen.pop() - torch.nn.functional.embedding(batch.inputs["input_ids"], embedding.weight)

    model.module.eval()
    assert not noise(1).any()
    model.train()
    alone = noise(1)
    embedding.neftune_noise_alpha = alpha
    torch.manual_seed(0)
    theirs = neftune_post_forward_hook(embedding, None, torch.zeros_like(alone))
    torch.testing.assert_close(alone, theirs, rtol=1e-4, atol=1e-6)
    width = alone.shape[-1]
    together = noise(4).flatten(0, 1) if packing else noise(4)[0]
    limit = alpha / (samples[0].size * width) ** 0.5
    tokens = together[: samples[0].size]
    assert limit * 0.98 < tokens.abs().max() <= limit


def test_noise_is_resumed_bit_for_bit(place: Place) -> None:
    noisy = spec(test_split="test", optimization=optimization(neftune_alpha=5.0))
    straight = place.train(noisy, "straight")
    step, checkpoint = list_checkpoints(place.work / "straight" / "checkpoints")[1]
    assert step == 2
    assert place.train(noisy, "resumed", resume_from=checkpoint).certificate == straight.certificate
    plain = place.train(spec(optimization=optimization()), "plain")
    assert plain.certificate.loss_digest != straight.certificate.loss_digest


def test_label_smoothing_is_that_of_transformers(place: Place) -> None:
    chosen = spec(
        Task.LANGUAGE, method=Lora(rank=2), optimization=optimization(label_smoothing=0.2, max_steps=1)
    )
    model = load_model(chosen, place.bases[Task.LANGUAGE])
    objective = make_objective(chosen, model, place.datasets[Task.LANGUAGE])
    split = objective.encode("train")
    batch = objective.collate(split, split.samples[:4])
    logits_NV = model.logits(batch)
    expected = LabelSmoother(epsilon=0.2)({"logits": logits_NV}, batch.targets_N)
    torch.testing.assert_close(objective.loss(batch) / batch.weight, expected)


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        (spec(optimization=Optimization(label_smoothing=1.0)), "label_smoothing"),
        (spec(optimization=Optimization(neftune_alpha=-1.0)), "neftune_alpha"),
        (spec(Task.DETECTION, optimization=Optimization(neftune_alpha=1.0)), "neftune_alpha"),
        (spec(Task.DETECTION, optimization=Optimization(label_smoothing=0.1)), "label_smoothing"),
    ],
)
def test_contradictions_are_refused_by_field(chosen: FineTuneSpec, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        chosen.validate()
    assert f"spec.optimization.{field}" in {violation.field for violation in caught.value.violations}
