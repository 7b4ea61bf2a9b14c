"""Any spec survives JSON, and equal fingerprints mean equal specs."""

from __future__ import annotations

import json

from finemesh.core.spec.finetune import (
    Evaluation,
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    OverLength,
    Precision,
    Quantization,
    Sequence,
    Task,
    Tower,
)
from finemesh.core.spec.optimization import Optimizer, Schedule
from hypothesis import given
from hypothesis import strategies as st

numbers = st.floats(allow_nan=False, allow_infinity=False)
towers = st.lists(st.sampled_from(Tower), max_size=3).map(tuple)
names = st.text(max_size=8)
loras = st.builds(
    Lora,
    rank=st.integers(),
    alpha=numbers,
    dropout=numbers,
    towers=towers,
    target_modules=st.lists(names, max_size=3).map(tuple),
    train_connector=st.booleans(),
    quantization=st.sampled_from(Quantization),
    loraplus_ratio=numbers,
)
specs = st.builds(
    FineTuneSpec,
    task=st.sampled_from(Task),
    base_model=names,
    dataset=names,
    method=loras | st.builds(Full, towers=towers),
    optimization=st.builds(
        Optimization,
        learning_rate=numbers,
        epochs=numbers | st.integers(-9, 9),
        schedule=st.sampled_from(Schedule),
        optimizer=st.sampled_from(Optimizer),
        beta1=numbers,
    ),
    sequence=st.builds(Sequence, max_tokens=st.integers(), over_length=st.sampled_from(OverLength)),
    precision=st.sampled_from(Precision),
    evaluation=st.builds(
        Evaluation,
        patience=st.integers(),
        min_improvement=numbers,
        holdout_fraction=numbers,
        metrics=st.lists(names, max_size=2).map(tuple),
    ),
)


@given(specs)
def test_json_round_trip(spec: FineTuneSpec) -> None:
    again = FineTuneSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()


@given(specs, specs)
def test_fingerprints_tell_specs_apart(one: FineTuneSpec, other: FineTuneSpec) -> None:
    assert (one.fingerprint() == other.fingerprint()) == (one.to_dict() == other.to_dict())
