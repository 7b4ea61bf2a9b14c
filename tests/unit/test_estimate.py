"""Forecasts: what must hold of any of them, whatever the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.spec.estimate.base_model import BaseModel, FamilyParts, count
from finemesh.core.spec.estimate.duration import time_of
from finemesh.core.spec.estimate.memory import Load, memory_of
from finemesh.core.spec.estimate.nearest import nearest_that_fits
from finemesh.core.spec.finetune import (
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    Precision,
    Quantization,
    Resources,
    Sequence,
    Strategy,
    Task,
    Tower,
)
from hypothesis import given
from hypothesis import strategies as st

LLAMA = FamilyParts(
    "llama",
    Task.LANGUAGE,
    {Tower.LANGUAGE: ("model", "lm_head")},
    {Tower.LANGUAGE: ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")},
)
# https://arxiv.org/abs/2307.09288, table 1 and the published config.json of the model of 7 B parameters.
LLAMA_7B = BaseModel(
    {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    }
)
GIB = 2**30


def spec(**changes: Any) -> FineTuneSpec:
    base = FineTuneSpec(Task.LANGUAGE, "m", "projects/a/datasets/b", resources=Resources(gpus=1))
    return replace(base, precision=Precision.BF16, **changes)


def likely(chosen: FineTuneSpec, base: BaseModel = LLAMA_7B, load: Load | None = None) -> float:
    return memory_of(chosen, base, LLAMA, load or Load()).peak.likely


def test_parameters_are_those_that_the_paper_states() -> None:
    full = count(LLAMA_7B, LLAMA, Full())
    assert full.trained == pytest.approx(6.738e9, rel=1e-3)
    # Adapters of rank r on a matrix (m, n) have r (m + n) parameters (https://arxiv.org/abs/2106.09685).
    adapted = count(LLAMA_7B, LLAMA, Lora(rank=16))
    assert adapted.adapters == 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert adapted.frozen == full.trained


def test_the_known_bytes_of_a_parameter() -> None:
    """18 bytes with Adam: 16 in 32 bits, and the copy in 16 bits that autocast makes of a trained weight
    (https://arxiv.org/abs/1910.02054, section 3.1); half a byte and a 16th as NF4.
    """
    parts = memory_of(spec(method=Full()), LLAMA_7B, LLAMA, Load()).parts
    states = sum(parts[name].likely for name in ("weights", "gradients", "optimizer", "workspace"))
    assert states / 6.738e9 == pytest.approx(18, rel=0.01)
    quantized = memory_of(spec(method=Lora(quantization=Quantization.NF4)), LLAMA_7B, LLAMA, Load()).parts
    assert 3.6 * GIB < quantized["weights"].likely < 4.4 * GIB


BASES = st.builds(
    lambda heads, width, layers, inner, vocab: BaseModel(
        {
            "hidden_size": heads * width,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "intermediate_size": inner,
            "vocab_size": vocab,
        }
    ),
    st.integers(1, 64),
    st.sampled_from([16, 64, 128]),
    st.integers(2, 80),
    st.integers(64, 30_000),
    st.integers(512, 250_000),
)
SIZES = st.integers(1, 64)


@given(BASES, SIZES, st.integers(64, 32_768), st.integers(1, 256), st.booleans())
def test_more_of_anything_takes_no_less_memory(
    base: BaseModel, size: int, length: int, rank: int, twice: bool
) -> None:
    optimization = Optimization(micro_batch_size=size, activation_checkpointing=twice)
    chosen = spec(optimization=optimization, sequence=Sequence(max_tokens=length), method=Lora(rank=rank))
    now = memory_of(chosen, base, LLAMA, Load()).peak
    more = [
        replace(chosen, optimization=replace(optimization, micro_batch_size=size + 1)),
        replace(chosen, sequence=Sequence(max_tokens=length + 64)),
        replace(chosen, method=Lora(rank=rank + 1)),
    ]
    for each in more:
        peak = memory_of(each, base, LLAMA, Load()).peak
        assert now.low <= peak.low
        assert now.likely <= peak.likely
        assert now.high <= peak.high


@given(BASES, SIZES, st.integers(64, 32_768))
def test_adapters_and_computing_twice_take_no_more(base: BaseModel, size: int, length: int) -> None:
    once = Optimization(micro_batch_size=size)
    adapted = spec(optimization=once, sequence=Sequence(max_tokens=length), method=Lora(rank=1))
    assert likely(adapted, base) <= likely(replace(adapted, method=Full()), base)
    twice = replace(adapted, optimization=replace(once, activation_checkpointing=True))
    assert likely(twice, base) <= likely(adapted, base)


@given(BASES, st.sampled_from([2, 4, 8]))
def test_shards_take_no_more_than_copies(base: BaseModel, ranks: int) -> None:
    shared = spec(method=Full(), resources=Resources(gpus=ranks, cpus=ranks, strategy=Strategy.FSDP))
    parts, whole = (
        memory_of(each, base, LLAMA, Load()).parts
        for each in (shared, replace(shared, resources=replace(shared.resources, strategy=Strategy.DDP)))
    )
    for name in ("weights", "gradients", "optimizer"):
        assert parts[name].likely == pytest.approx(whole[name].likely / ranks)


@given(BASES, SIZES, st.floats(1e9, 200e9))
def test_what_is_suggested_fits_and_takes_the_same_steps(base: BaseModel, size: int, room: float) -> None:
    chosen = spec(optimization=Optimization(micro_batch_size=size, gradient_accumulation_steps=2))
    found = nearest_that_fits(chosen, base, LLAMA, Load(), room)
    if found is None:
        return
    assert memory_of(found.spec, base, LLAMA, Load()).peak.high <= room
    found.spec.validate()
    optimization = found.spec.optimization
    assert optimization.micro_batch_size * optimization.gradient_accumulation_steps == 2 * size


def test_the_mildest_change_comes_first() -> None:
    chosen = spec(optimization=Optimization(micro_batch_size=8), method=Lora(rank=16))
    need = memory_of(chosen, LLAMA_7B, LLAMA, Load()).peak.high
    found = nearest_that_fits(chosen, LLAMA_7B, LLAMA, Load(), 0.9 * need)
    assert found
    assert found.changes == {
        "optimization.micro_batch_size": "4",
        "optimization.gradient_accumulation_steps": "2",
    }
    small = nearest_that_fits(chosen, LLAMA_7B, LLAMA, Load(), 12 * GIB)
    assert small
    assert "lora" in small.changes  # nothing milder makes seven billion weights smaller than 13 GB
    assert nearest_that_fits(chosen, LLAMA_7B, LLAMA, Load(), GIB) is None


def test_seconds_follow_operations() -> None:
    base = spec(optimization=Optimization(max_steps=10))
    once = time_of(base, LLAMA_7B, LLAMA, row_tokens=512)
    # 2 P a token and pass: forwards and backwards through activations, adapters aside.
    assert once.operations == pytest.approx(2 * 2 * 6.48e9 * 8 * 512, rel=0.03)
    assert time_of(base, LLAMA_7B, LLAMA, row_tokens=1024).operations == 2 * once.operations
    assert once.gpu_hours(2).likely == pytest.approx(once.step_seconds.likely * 10 * 2 / 3600)
    assert time_of(replace(base, optimization=Optimization()), LLAMA_7B, LLAMA, rows=81).steps == 11


def test_a_folder_tells_shapes_without_its_weights(tmp_path: Path) -> None:
    import numpy as np
    from finemesh.core.spec.estimate.folder import read_folder
    from safetensors.numpy import save_file

    save_file({"model.a.weight": np.zeros((3, 5), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 5}))
    found = read_folder(tmp_path)
    assert found.weights() == {"model.a.weight": (3, 5)}
    assert found.file_bytes == (tmp_path / "model.safetensors").stat().st_size
