"""Optimisers and rates: against those of torch, peft, bitsandbytes and transformers themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import bitsandbytes
import pytest
import torch
from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import Full, Lora, Optimization, Resources, Task, Tower
from finemesh.core.spec.optimization import Optimizer, Schedule
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.optimizer import (
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load, save
from transformers import get_scheduler

from tests.support.conversations import spec, tiny_model

RATE, STEPS = 0.01, 40
BETAS: dict[str, Any] = {"betas": (0.8, 0.95), "eps": 1e-6}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    root = tmp_path_factory.mktemp("models")
    bases = {
        Task.LANGUAGE: tiny_model(root / "llama", "llama"),
        Task.VISION_LANGUAGE: tiny_model(root / "llava", "llava"),
    }

    def make(task: Task = Task.LANGUAGE, **changes: Any) -> Model:
        chosen: dict[str, Any] = {
            "learning_rate": RATE,
            "weight_decay": 0.1,
            "beta1": 0.8,
            "beta2": 0.95,
            "epsilon": 1e-6,
        }
        optimization = Optimization(**chosen, **changes.pop("optimization", {}))
        return load_model(spec(task, optimization=optimization, **changes), bases[task])

    return make


def moved(model: Model, optimizer: torch.optim.Optimizer, steps: int = 3) -> dict[str, torch.Tensor]:
    """The weights after so many steps with gradients that are the same for any optimiser."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        for parameter in model.trainable.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return {name: parameter.detach().clone() for name, parameter in model.trainable.items()}


def assert_same(moved: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert moved.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(moved[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


THEIRS: dict[Optimizer, Callable[..., torch.optim.Optimizer]] = {
    Optimizer.ADAMW: partial(torch.optim.AdamW, **BETAS),
    Optimizer.ADAMW_8BIT: partial(bitsandbytes.optim.AdamW8bit, **BETAS),
    Optimizer.ADAFACTOR: torch.optim.Adafactor,
    Optimizer.SGD: partial(torch.optim.SGD, momentum=0.8),
}


@pytest.mark.parametrize("kind", THEIRS)
def test_steps_are_those_of_the_library_and_vectors_do_not_decay(
    models: Callable[..., Model], kind: Optimizer
) -> None:
    ours, theirs = (models(method=Full(), optimization={"optimizer": kind}) for _ in range(2))
    optimizer = make_optimizer(ours)
    set_learning_rate(optimizer, RATE)
    vectors = [each for each in theirs.trainable.values() if each.ndim == 1]
    matrices = [each for each in theirs.trainable.values() if each.ndim > 1]
    assert vectors
    expected = THEIRS[kind](
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], lr=RATE
    )
    assert_same(moved(ours, optimizer), moved(theirs, expected))


@pytest.mark.parametrize("kind", THEIRS)
def test_a_saved_optimiser_goes_on_bit_for_bit(models: Callable[..., Model], kind: Optimizer) -> None:
    """Matrices of 4,096 numbers and more have moments of 8 bits; smaller ones keep them in 32."""
    straight, stopped = (models(method=Full(), optimization={"optimizer": kind}) for _ in range(2))
    expected, optimizer = make_optimizer(straight), make_optimizer(stopped)
    moved(straight, expected)
    moved(stopped, optimizer)
    saved = load(save({k: v.clone() for k, v in optimizer_tensors(optimizer, stopped.trainable).items()}))
    resumed = make_optimizer(stopped)
    restore_optimizer(resumed, stopped.trainable, saved)
    again, uninterrupted = moved(stopped, resumed, 2), moved(straight, expected, 2)
    assert all(torch.equal(again[name], tensor) for name, tensor in uninterrupted.items())


def test_8_bit_moments_take_a_quarter(models: Callable[..., Model]) -> None:
    sizes: dict[Optimizer, int] = {}
    for kind in (Optimizer.ADAMW, Optimizer.ADAMW_8BIT):
        model = models(method=Full(), optimization={"optimizer": kind})
        moved(model, optimizer := make_optimizer(model), 1)
        tensors = optimizer_tensors(optimizer, model.trainable)
        sizes[kind] = sum(each.numel() * each.element_size() for each in tensors.values())
    assert sizes[Optimizer.ADAMW_8BIT] < 0.3 * sizes[Optimizer.ADAMW]


def test_lora_plus_is_that_of_peft(models: Callable[..., Model]) -> None:
    ours, theirs = (models(method=Lora(rank=4, loraplus_ratio=16)) for _ in range(2))
    optimizer = make_optimizer(ours)
    set_learning_rate(optimizer, RATE)
    expected = create_loraplus_optimizer(
        theirs.module,
        torch.optim.AdamW,
        lr=RATE,
        loraplus_lr_ratio=16,
        loraplus_weight_decay=0.1,
        **BETAS,
    )
    assert_same(moved(ours, optimizer), moved(theirs, expected))


def test_towers_have_their_rates(models: Callable[..., Model]) -> None:
    model = models(
        Task.VISION_LANGUAGE,
        method=Lora(rank=2, towers=(Tower.LANGUAGE, Tower.VISION), train_connector=True),
        optimization={"vision_rate_ratio": 0.1, "connector_rate_ratio": 0.5},
    )
    set_learning_rate(optimizer := make_optimizer(model), RATE)
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    of_names = {name: rates[id(each)] for name, each in model.trainable.items()}
    found = {
        tower: {rate for name, rate in of_names.items() if tower in name}
        for tower in ("language_model", "vision_tower", "multi_modal_projector")
    }
    assert found == {
        "language_model": {RATE},
        "vision_tower": {0.1 * RATE},
        "multi_modal_projector": {0.5 * RATE},
    }


@pytest.mark.parametrize(
    ("schedule", "name", "arguments"),
    [
        (Schedule.CONSTANT, "constant_with_warmup", {}),
        (Schedule.LINEAR, "linear", {}),
        (Schedule.COSINE, "cosine", {}),
        (Schedule.COSINE, "cosine_with_min_lr", {"min_lr_rate": 0.25}),
        (Schedule.INVERSE_SQRT, "inverse_sqrt", {}),
        (
            Schedule.WARMUP_STABLE_DECAY,
            "warmup_stable_decay",
            {"min_lr_ratio": 0.25, "num_decay_steps": 8, "decay_type": "linear"},
        ),
    ],
)
def test_schedules_are_those_of_transformers_after_the_warm_up(
    schedule: Schedule, name: str, arguments: dict[str, Any]
) -> None:
    chosen = Optimization(
        learning_rate=RATE,
        warmup_steps=5,
        schedule=schedule,
        min_rate_ratio=0.25 if arguments else 0.0,
        decay_ratio=0.2,
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler: Any = get_scheduler(name, optimizer, 5, STEPS, scheduler_specific_kwargs=arguments)
    expected: list[float] = []
    for _ in range(STEPS):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert [learning_rate(chosen, step, STEPS) for step in range(5, STEPS)] == pytest.approx(expected[5:])
    rising = [learning_rate(chosen, step, STEPS) for step in range(5)]
    assert rising == pytest.approx([RATE * share / 5 for share in range(1, 6)])
    by_ratio = replace(chosen, warmup_steps=0, warmup_ratio=5 / STEPS)
    assert [learning_rate(by_ratio, step, STEPS) for step in range(5)] == rising


def test_paged_moments_ask_for_a_gpu() -> None:
    paged = spec(optimization=Optimization(optimizer=Optimizer.PAGED_ADAMW_8BIT))
    with pytest.raises(InvalidError, match=r"optimization\.optimizer: .* claim one in spec\.resources\.gpus"):
        paged.validate()
    replace(paged, resources=Resources(gpus=1)).validate()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"beta1": 1.0}, "beta1"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"min_rate_ratio": 1.5}, "min_rate_ratio"),
        ({"decay_ratio": -0.1}, "decay_ratio"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"vision_rate_ratio": 0.1}, "vision_rate_ratio"),
        ({"schedule": Schedule.INVERSE_SQRT, "warmup_ratio": 0.0}, "schedule"),
    ],
)
def test_contradictions_are_refused_by_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        spec(optimization=Optimization(**changes)).validate()
    assert [violation.field for violation in caught.value.violations] == [f"spec.optimization.{field}"]
