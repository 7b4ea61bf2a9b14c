"""The fine-tune spec between the message of the contract and the value of the core."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from finemesh import specfile
from finemesh.chassis.fine_tune_spec import document_of, spec_from_proto, spec_to_proto
from finemesh.client import specs as client_specs
from finemesh.core.errors import InvalidError
from finemesh.core.spec import codec, document
from finemesh.core.spec.finetune import (
    Checkpointing,
    Evaluation,
    FineTuneSpec,
    Full,
    Lora,
    Objective,
    Optimization,
    OverLength,
    Precision,
    Preference,
    Quantization,
    Resources,
    Sequence,
    Strategy,
    Task,
    Tower,
)
from finemesh.core.spec.lint import BaseModelFacts, lint_document
from finemesh.core.spec.optimization import PAGED, Optimizer, Schedule
from finemesh.v1 import fine_tune_spec_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

DATASET = "projects/p/datasets/d"
SCHEMA = Draft7Validator(json.loads(client_specs.schema()))
positive = st.floats(1e-6, 1e3)
fraction = st.floats(0, 0.99)
counts = st.integers(1, 10_000)

methods = st.one_of(
    st.builds(
        Lora,
        rank=st.integers(1, 512),
        alpha=positive,
        dropout=fraction,
        towers=st.sampled_from([(Tower.LANGUAGE,), (Tower.LANGUAGE, Tower.VISION)]),
        target_modules=st.lists(st.sampled_from(["q_proj", "v_proj"]), unique=True).map(tuple),
        train_connector=st.booleans(),
        use_rslora=st.booleans(),
        use_dora=st.booleans(),
        loraplus_ratio=positive,
        quantization=st.just(Quantization.NF4),
        double_quantization=st.booleans(),
    ),
    st.builds(Full, towers=st.sampled_from([(Tower.LANGUAGE,), (Tower.CONNECTOR, Tower.VISION)])),
)
specs = st.builds(
    FineTuneSpec,
    task=st.just(Task.VISION_LANGUAGE),
    base_model=st.just("s3://bucket/base"),
    dataset=st.just(DATASET),
    train_split=st.sampled_from(["train", "a: b"]),
    validation_split=st.sampled_from(["", "val"]),
    test_split=st.sampled_from(["", "test", "no"]),
    method=methods,
    optimization=st.builds(
        Optimization,
        learning_rate=positive,
        weight_decay=fraction,
        epochs=positive,
        max_steps=st.integers(0, 1000),
        warmup_ratio=fraction,
        schedule=st.sampled_from(Schedule),
        max_grad_norm=st.one_of(st.just(0.0), positive),
        micro_batch_size=counts,
        gradient_accumulation_steps=counts,
        seed=st.integers(0, 2**63 - 1),
        optimizer=st.sampled_from([each for each in Optimizer if each not in PAGED]),
        min_rate_ratio=fraction,
        warmup_steps=counts,
        decay_ratio=fraction,
        beta1=fraction,
        beta2=fraction,
        epsilon=positive,
        activation_checkpointing=st.booleans(),
        compile=st.booleans(),
        neftune_alpha=positive,
    ),
    sequence=st.builds(
        Sequence,
        max_tokens=st.integers(2, 100_000),
        packing=st.booleans(),
        over_length=st.sampled_from([OverLength.RAISE, OverLength.TRUNCATE, OverLength.DROP]),
    ),
    precision=st.sampled_from(Precision),
    evaluation=st.builds(
        Evaluation, every_steps=st.integers(0, 100), max_items=st.integers(0, 100), baselines=st.booleans()
    ),
    checkpoint=st.builds(
        Checkpointing, every_steps=st.integers(0, 100), keep_last=counts, keep_best=st.booleans()
    ),
    resources=st.builds(
        Resources,
        cpus=st.floats(64, 1e6),
        memory_bytes=st.integers(0, 2**40),
        workers=st.integers(2, 64),
        strategy=st.sampled_from([Strategy.AUTO, Strategy.DDP]),
    )
    | st.builds(Resources, cpus=st.floats(64, 1e6), gpus=st.integers(0, 64)),
    max_quarantined_fraction=st.floats(0.0, 1.0),
    objective=st.sampled_from([Objective.CONVERSATION, Objective.PREFERENCE]),
    preference=st.builds(
        Preference, beta=positive, label_smoothing=st.floats(0, 0.49), chosen_weight=fraction
    ),
).filter(lambda spec: bool(spec.test_split) or not spec.evaluation.baselines)


@settings(database=None)
@given(specs)
def test_a_spec_survives_the_wire(spec: FineTuneSpec) -> None:
    wire = spec_to_proto(spec).SerializeToString()
    assert spec_from_proto(pb.FineTuneSpec.FromString(wire)) == spec


@settings(database=None, max_examples=20)
@given(specs)
def test_a_spec_survives_a_file_which_its_schema_takes(spec: FineTuneSpec) -> None:
    text = client_specs.to_yaml(spec_to_proto(spec), "A spec")
    file = specfile.parse(text, "spec.yaml")
    SCHEMA.validate(file.values)
    for again in (spec_from_proto(client_specs.to_message(file)), document.read(file.values)):
        assert again == spec
        assert again.fingerprint() == spec.fingerprint()
    assert client_specs.to_yaml(client_specs.to_message(file), "A spec") == text


@settings(database=None, max_examples=20)
@given(specs)
def test_the_linter_refuses_no_sound_spec_and_names_its_fields(spec: FineTuneSpec) -> None:
    report = lint_document(document_of(spec_to_proto(spec)), BaseModelFacts("llama", 2048))
    assert report.spec == spec
    known = {path for path, _, _ in _pairs(FineTuneSpec, pb.FineTuneSpec.DESCRIPTOR)}
    assert {finding.field for finding in report.findings} <= known


def _pairs(cls: Any, message: Any) -> Iterator[tuple[str, Any, Any]]:
    """Path, value's field, message's field of all that a fine-tune is."""
    for field in dataclasses.fields(cls):
        hint = codec.type_hints(cls)[field.name]
        for name, kind in (codec.arms(hint) or {field.name: hint}).items():
            descriptor = message.fields_by_name[name]
            if dataclasses.is_dataclass(kind):
                yield from (
                    (f"{name}.{path}", *pair) for path, *pair in _pairs(kind, descriptor.message_type)
                )
            else:
                yield name, field, descriptor


def test_a_default_that_is_not_zero_is_of_a_field_that_may_say_zero() -> None:
    pairs = list(_pairs(FineTuneSpec, pb.FineTuneSpec.DESCRIPTOR))
    ambiguous = [
        path
        for path, field, descriptor in pairs
        if field.default is not dataclasses.MISSING
        and field.default not in (0, "", ())
        and not (descriptor.has_presence or descriptor.is_repeated or descriptor.enum_type)
    ]
    assert len(pairs) > 30
    assert not ambiguous, "make these `optional` in fine_tune_spec.proto"


def test_every_field_of_the_message_is_one_of_the_value() -> None:
    told = {path for path, _, _ in _pairs(FineTuneSpec, pb.FineTuneSpec.DESCRIPTOR)}

    def all_of(message: Any) -> Iterator[str]:
        for field in message.fields:
            inner = (
                [f"{field.name}.{path}" for path in all_of(field.message_type)] if field.message_type else []
            )
            yield from inner or [field.name]

    assert told == set(all_of(pb.FineTuneSpec.DESCRIPTOR))


def test_what_is_left_out_means_the_defaults_of_the_contract() -> None:
    message = pb.FineTuneSpec(
        task="TASK_VISION_LANGUAGE", base_model="m", dataset=DATASET, lora=pb.LoraMethod(rank=8)
    )
    spec = spec_from_proto(message)
    assert (spec.train_split, spec.validation_split, spec.test_split) == ("train", "val", "test")
    assert isinstance(spec.method, Lora)
    assert (spec.method.alpha, spec.method.towers) == (16.0, (Tower.LANGUAGE,))
    assert (spec.optimization.learning_rate, spec.optimization.max_grad_norm) == (2e-4, 1.0)
    assert (spec.sequence.max_tokens, spec.sequence.over_length) == (2048, OverLength.RAISE)
    assert (spec.checkpoint.every_steps, spec.checkpoint.keep_last) == (50, 2)
    assert (spec.resources.cpus, spec.max_quarantined_fraction) == (1.0, 0.05)
    message.full.SetInParent()
    assert spec_from_proto(message).method == Full((Tower.LANGUAGE, Tower.CONNECTOR))
    message.task = pb.FineTuneSpec.TASK_LANGUAGE
    assert spec_from_proto(message).method == Full((Tower.LANGUAGE,))


def test_everything_that_is_wrong_is_named_at_once_by_its_path() -> None:
    message = pb.FineTuneSpec(
        dataset="d",
        lora=pb.LoraMethod(rank=-2, towers=[pb.TOWER_LANGUAGE, 77]),  # pyright: ignore[reportArgumentType]
        optimization=pb.OptimizationSpec(learning_rate=math.nan, schedule=9),  # pyright: ignore[reportArgumentType]
        resources=pb.ResourceSpec(gpus=0.001),
        max_quarantined_fraction=2,
    )
    with pytest.raises(InvalidError) as refused:
        spec_from_proto(message, "training_job.spec")
    assert {violation.field.removeprefix("training_job.spec.") for violation in refused.value.violations} == {
        "task",
        "base_model",
        "dataset",
        "lora.rank",
        "lora.towers[1]",
        "optimization.learning_rate",
        "optimization.schedule",
        "resources.gpus",
        "max_quarantined_fraction",
    }
    message.ClearField("lora")
    with pytest.raises(InvalidError) as methodless:
        spec_from_proto(message)
    assert "spec.method" in {violation.field for violation in methodless.value.violations}
