"""Number formats: what is quantised and to what, and that float16 skips what overflows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.finetune import (
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Lora,
    Optimization,
    Precision,
    Quantization,
    Task,
    Tower,
)
from finemesh.core.spec.optimization import Optimizer
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.hooks import NoHooks, TrainResult
from finemesh.finetune.loop import train
from finemesh.finetune.models import load_model
from safetensors.torch import load_file, save_file

from tests.support.conversations import colour_rows, spec, text_rows, tiny_model, write_dataset

NF4 = Lora(rank=2, dropout=0.1, quantization=Quantization.NF4, double_quantization=True)
INT8 = Lora(rank=2, dropout=0.1, quantization=Quantization.INT8)


@dataclass
class Recorder(NoHooks):
    """Keeps the metrics of each step."""

    steps: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        self.steps.setdefault(step, {}).update(values)


@dataclass(frozen=True)
class Place:
    bases: dict[Task, Path]
    datasets: dict[Task, Path]
    work: Path

    def train(self, chosen: FineTuneSpec, work: str = "work", **arguments: Any) -> TrainResult:
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
        Task.VISION_LANGUAGE: write_dataset(root / "colours", list(colour_rows({"train": 16}))),
    }
    return lambda work: Place(bases, datasets, work)


@pytest.fixture
def place(shared: Callable[[Path], Place], tmp_path: Path) -> Place:
    return shared(tmp_path)


def test_the_base_is_quantised_to_what_bitsandbytes_makes_of_its_weights(place: Place) -> None:
    """Every linear layer of the base but the head, whatever LoRA adapts."""
    base = place.bases[Task.LANGUAGE]
    module = load_model(spec(Task.LANGUAGE, method=NF4), base).module
    written = load_file(base / "model.safetensors")
    layers: dict[str, Any] = {n: each for n, each in module.named_modules() if isinstance(each, Linear4bit)}
    layers = {name: each for name, each in layers.items() if name.endswith("base_layer")}
    assert len(layers) == 2 * 7
    for name, layer in layers.items():
        weight = written[name.removeprefix("base_model.model.").removesuffix("base_layer") + "weight"]
        packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        assert torch.equal(layer.weight.data, packed), name
        assert torch.equal(
            functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state),
            functional.dequantize_4bit(packed, state),
        )
    assert type(module.get_output_embeddings()) is torch.nn.Linear


def test_a_trained_connector_is_not_quantised(place: Place) -> None:
    base = place.bases[Task.VISION_LANGUAGE]
    quantized = {
        train_connector: {
            name
            for name, each in load_model(
                spec(method=Lora(rank=2, quantization=Quantization.INT8, train_connector=train_connector)),
                base,
            ).module.named_modules()
            if isinstance(each, Linear8bitLt) and "multi_modal_projector" in name
        }
        for train_connector in (False, True)
    }
    assert len(quantized[False]) == 2
    assert not quantized[True]


METHODS: dict[str, dict[str, Any]] = {
    "nf4": {"method": NF4},
    "int8": {"method": INT8},
    "nf4 with dora": {
        "task": Task.LANGUAGE,
        "method": Lora(rank=2, quantization=Quantization.NF4, use_dora=True),
    },
    "nf4 in bf16 with 8-bit moments": {
        "task": Task.LANGUAGE,
        "method": Lora(rank=64, quantization=Quantization.NF4, loraplus_ratio=4.0),
        "precision": Precision.BF16,
        "optimizer": Optimizer.ADAMW_8BIT,
    },
    "fp16": {"precision": Precision.FP16},
}


@pytest.mark.parametrize("name", METHODS)
def test_resumed_it_computes_the_same_bits_and_saves_the_adapter_alone(place: Place, name: str) -> None:
    changes = dict(METHODS[name])
    optimization = Optimization(
        learning_rate=4e-3,
        max_steps=4,
        micro_batch_size=4,
        gradient_accumulation_steps=2,
        seed=3,
        optimizer=changes.pop("optimizer", Optimizer.ADAMW),
    )
    chosen = spec(optimization=optimization, **changes)
    straight = place.train(chosen, hooks=(recorder := Recorder()))
    assert recorder.steps[4]["train/loss"] < recorder.steps[1]["train/loss"]
    [_, (step, checkpoint), *_] = list_checkpoints(place.work / "work" / "checkpoints")
    resumed = place.train(chosen, "resumed", resume_from=checkpoint)
    assert (step, resumed.certificate) == (2, straight.certificate)
    tensors, expected = (
        load_file(each.checkpoint.path / "adapter" / "adapter_model.safetensors")
        for each in (resumed, straight)
    )
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    assert all("lora_" in key or "multi_modal_projector" in key for key in expected)
    assert {each.dtype for each in expected.values()} == {torch.float32}


def test_validations_in_between_change_nothing_of_a_quantised_run(place: Place, tmp_path: Path) -> None:
    """bitsandbytes packs NF4 anew for inference on some processors, and no gradient goes through that."""
    dataset = write_dataset(tmp_path / "dataset", list(text_rows({"train": 16, "val": 2})))
    seen: dict[int, dict[str, torch.Tensor]] = {}
    for every in (0, 1):
        chosen = spec(
            Task.LANGUAGE,
            method=NF4,
            validation_split="val",
            evaluation=Evaluation(every_steps=every),
            checkpoint=Checkpointing(every_steps=0),
        )
        base, work = place.bases[Task.LANGUAGE], tmp_path / f"every {every}"
        result = train(chosen, base_model=base, dataset=dataset, work=work, hooks=(recorder := Recorder()))
        assert sum("val/loss" in values for values in recorder.steps.values()) == (6 if every else 1)
        seen[every] = load_file(result.checkpoint.path / "adapter" / "adapter_model.safetensors")
    assert seen[0].keys() == seen[1].keys()
    assert all(torch.equal(seen[0][key], seen[1][key]) for key in seen[0])


def test_a_base_that_is_quantised_already_is_refused(place: Place, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", "llama")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(InvalidError, match=r"\(awq\): give the folder of the unquantised model") as caught:
        load_model(spec(Task.LANGUAGE), base)
    assert caught.value.reason == "BASE_MODEL_QUANTIZED"


def fp16(steps: int) -> FineTuneSpec:
    return spec(
        Task.LANGUAGE,
        method=Lora(rank=2),
        precision=Precision.FP16,
        optimization=Optimization(learning_rate=1e-3, max_steps=steps, micro_batch_size=4, warmup_ratio=0.0),
        checkpoint=Checkpointing(every_steps=1, keep_last=100),
    )


def changed_head(place: Place, folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Place:
    base = tiny_model(folder, "llama")
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = change(tensors["lm_head.weight"])
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    return Place({Task.LANGUAGE: base}, place.datasets, place.work)


def test_float16_skips_what_overflows_and_finds_its_scale(place: Place, tmp_path: Path) -> None:
    """A head of large weights makes gradients that a scale of 2^16 lifts beyond 65,504."""
    place = changed_head(place, tmp_path / "base", lambda weight: weight * 10)
    result = place.train(fp16(8), hooks=(recorder := Recorder()))
    skipped = [step for step, values in recorder.steps.items() if "train/loss" not in values]
    assert skipped == list(range(1, len(skipped) + 1))
    assert 1 <= len(skipped) <= 6
    assert result.metrics["train/skipped_steps"] == len(skipped)
    assert result.metrics["train/loss_scale"] == 2.0 ** (16 - len(skipped))
    adapters = {
        step: load_file(folder / "adapter" / "adapter_model.safetensors")
        for step, folder in list_checkpoints(place.work / "work" / "checkpoints")
    }
    for step in range(2, 9):
        same = all(torch.equal(adapters[step][key], adapters[step - 1][key]) for key in adapters[step])
        assert same == (step in skipped)
    first = list_checkpoints(place.work / "work" / "checkpoints")[0][1]
    assert place.train(fp16(8), "resumed", resume_from=first).certificate == result.certificate


def test_float16_that_never_comes_right_is_an_error(place: Place, tmp_path: Path) -> None:
    place = changed_head(place, tmp_path / "base", lambda weight: weight * float("nan"))
    with pytest.raises(PreconditionError, match="step 21 is nan") as caught:
        place.train(fp16(40))
    assert caught.value.reason == "NON_FINITE_LOSS"


def test_a_gradient_beyond_32_bits_stops_before_the_weights_move(place: Place, tmp_path: Path) -> None:
    """A loss of about 1e20 is a number; the squares of its gradients are none."""
    place = changed_head(place, tmp_path / "base", lambda weight: weight * 1e20)
    with pytest.raises(PreconditionError, match="the gradient of step 1 is inf") as caught:
        place.train(spec(Task.LANGUAGE, method=Lora(rank=2)))
    assert caught.value.reason == "NON_FINITE_GRADIENT"
    assert not list_checkpoints(place.work / "work" / "checkpoints")


def test_sixteen_bits_learn_what_thirty_two_do(place: Place) -> None:
    losses: dict[Precision, list[float]] = {}
    for precision in Precision:
        place.train(spec(Task.LANGUAGE, precision=precision), precision, hooks=(recorder := Recorder()))
        losses[precision] = [values["train/loss"] for values in recorder.steps.values()]
    assert losses[Precision.FP16] == pytest.approx(losses[Precision.FP32], rel=2e-3)
    assert losses[Precision.BF16] == pytest.approx(losses[Precision.FP32], rel=2e-2)


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        (spec(method=Lora(double_quantization=True)), "double_quantization"),
        (spec(method=Lora(loraplus_ratio=0.0)), "loraplus_ratio"),
        (
            spec(
                Task.IMAGE_CLASSIFICATION,
                method=Lora(towers=(Tower.VISION,), quantization=Quantization.NF4),
            ),
            "quantization",
        ),
    ],
)
def test_contradictions_are_refused_by_field(chosen: FineTuneSpec, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        chosen.validate()
    assert f"spec.method.lora.{field}" in {violation.field for violation in caught.value.violations}
