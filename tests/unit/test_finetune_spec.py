"""The specs: what they refuse, and that they survive JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec import document
from finemesh.core.spec.finetune import (
    FineTuneSpec,
    Full,
    Lora,
    Objective,
    Optimization,
    OverLength,
    Pictures,
    Precision,
    Preference,
    Quantization,
    Resources,
    Sequence,
    Strategy,
    Task,
    Tower,
)
from finemesh.core.spec.optimization import Optimizer

GOOD = FineTuneSpec(Task.VISION_LANGUAGE, "some/model", "projects/p/datasets/d")


def fields(error: InvalidError) -> set[str]:
    return {violation.field for violation in error.violations}


def test_good_specs_pass() -> None:
    GOOD.validate()
    replace(GOOD, method=Full((Tower.LANGUAGE, Tower.CONNECTOR))).validate()


def test_every_violation_is_named_at_once() -> None:
    wrong = FineTuneSpec(
        task=Task.LANGUAGE,
        base_model="s3://bucket",
        dataset="datasets/d",
        validation_split="train",
        method=Lora(rank=0, dropout=1.0, towers=(Tower.VISION,), train_connector=True),
        optimization=Optimization(learning_rate=float("nan"), epochs=0.0, micro_batch_size=0),
        max_quarantined_fraction=1.5,
    )
    with pytest.raises(InvalidError) as caught:
        wrong.validate()
    assert fields(caught.value) == {
        "spec.base_model",
        "spec.dataset",
        "spec.validation_split",
        "spec.method.lora.rank",
        "spec.method.lora.dropout",
        "spec.method.lora.towers",
        "spec.method.lora.train_connector",
        "spec.optimization.learning_rate",
        "spec.optimization.epochs",
        "spec.optimization.micro_batch_size",
        "spec.max_quarantined_fraction",
    }


def test_connector_is_not_trained_twice() -> None:
    both = replace(GOOD, method=Lora(towers=(Tower.LANGUAGE, Tower.CONNECTOR), train_connector=True))
    with pytest.raises(InvalidError) as caught:
        both.validate()
    assert fields(caught.value) == {"spec.method.lora.train_connector"}


def test_towers_are_those_of_the_task() -> None:
    """What learns classes from pictures is a backbone and a head, and a head is never adapted by LoRA."""
    sees = replace(GOOD, task=Task.IMAGE_CLASSIFICATION)
    for good in (Lora(towers=(Tower.VISION,)), Full((Tower.HEAD,)), Full((Tower.VISION, Tower.HEAD))):
        replace(sees, method=good).validate()
    wrong = [Lora(), Full((Tower.LANGUAGE,)), Lora(towers=(Tower.VISION, Tower.HEAD))]
    for spec in [*(replace(sees, method=each) for each in wrong), replace(GOOD, method=Full((Tower.HEAD,)))]:
        with pytest.raises(InvalidError) as caught:
            spec.validate()
        assert {field.rpartition(".")[2] for field in fields(caught.value)} == {"towers"}


@pytest.mark.parametrize("task", [Task.IMAGE_CLASSIFICATION, Task.SEMANTIC_SEGMENTATION])
def test_towers_that_are_left_out_are_those_of_the_task(task: Task) -> None:
    given = {"task": task, "base_model": "some/model", "dataset": GOOD.dataset}
    assert document.read({**given, "full": {}}).method == Full((Tower.VISION, Tower.HEAD))
    assert document.read({**given, "lora": {}}).method == Lora(towers=(Tower.VISION,))


def test_a_detector_has_a_decoder_between_backbone_and_head() -> None:
    given = {"task": "DETECTION", "base_model": "some/model", "dataset": GOOD.dataset}
    assert document.read({**given, "full": {}}).method == Full((Tower.VISION, Tower.DECODER, Tower.HEAD))
    assert document.read({**given, "lora": {}}).method == Lora(towers=(Tower.VISION, Tower.DECODER))


def test_pictures_are_mirrored_where_that_is_done() -> None:
    mirrored = replace(GOOD, task=Task.DETECTION, method=Full((Tower.HEAD,)), pictures=Pictures(0.5))
    mirrored.validate()
    for wrong in (replace(mirrored, pictures=Pictures(1.5)), replace(GOOD, pictures=Pictures(0.5))):
        with pytest.raises(InvalidError) as caught:
            wrong.validate()
        assert fields(caught.value) == {"spec.pictures.horizontal_flip"}


def test_unknown_missing_and_mistyped_fields_are_named() -> None:
    value = {
        "task": "SPEECH",
        "dataset": "projects/p/datasets/d",
        "method": {"lora": {"rank": True, "ranks": 3}},
        "optimization": {"epochs": "3"},
        "checkpoint": [],
    }
    with pytest.raises(InvalidError) as caught:
        FineTuneSpec.from_dict(value)
    assert fields(caught.value) == {
        "spec.task",
        "spec.base_model",
        "spec.method.lora.rank",
        "spec.method.lora.ranks",
        "spec.optimization.epochs",
        "spec.checkpoint",
    }


def test_method_is_one_of_its_arms() -> None:
    for method in ({}, {"lora": {}, "full": {}}, {"qlora": {}}, []):
        with pytest.raises(InvalidError) as caught:
            FineTuneSpec.from_dict({**GOOD.to_dict(), "method": method})
        assert fields(caught.value) == {"spec.method"}


def test_flatten_names_the_method_and_its_fields() -> None:
    flat = replace(GOOD, method=Lora(rank=8, target_modules=("q_proj", "v_proj"))).flatten()
    assert flat["method"] == "lora"
    assert flat["method.lora.rank"] == 8
    assert flat["method.lora.target_modules"] == "q_proj,v_proj"
    assert flat["task"] == "VISION_LANGUAGE"
    assert "method.lora.rank" not in replace(GOOD, method=Full()).flatten()


def test_flatten_leaves_out_what_the_task_does_not_read() -> None:
    optional = {"objective", "preference.beta", "pictures.horizontal_flip", "segmentation.background"}
    kinds = {
        replace(GOOD, objective=Objective.PREFERENCE): {"objective", "preference.beta"},
        replace(GOOD, task=Task.DETECTION): {"pictures.horizontal_flip"},
        replace(GOOD, task=Task.SEMANTIC_SEGMENTATION): {"segmentation.background"},
        GOOD: {"objective"},
    }
    for spec, read in kinds.items():
        assert optional & spec.flatten().keys() == read


def test_fingerprint_depends_on_values_not_on_how_they_are_written() -> None:
    as_int = replace(GOOD, optimization=replace(GOOD.optimization, epochs=3))
    as_float = FineTuneSpec.from_dict(json.loads(json.dumps(as_int.to_dict())))
    assert as_int.fingerprint() == as_float.fingerprint()
    assert as_int.fingerprint() != GOOD.fingerprint()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (Resources(workers=2), "cpus"),
        (Resources(gpus=2), "cpus"),
        (Resources(cpus=4, gpus=2, workers=4), "workers"),
        (Resources(workers=-1), "workers"),
        (Resources(cpus=2, gpus=0.5, workers=2), "workers"),
        (Resources(cpus=2, gpus=1.5), "gpus"),
        (Resources(gpus=0.001), "gpus"),
        (Resources(gpus=float("nan")), "gpus"),
        (Resources(gpus=float("inf")), "gpus"),
        (Resources(gpus=-1), "gpus"),
        (Resources(strategy=Strategy.FSDP), "strategy"),
    ],
)
def test_workers_share_what_the_job_leases(wrong: Resources, field: str) -> None:
    for good in (
        Resources(cpus=2, workers=2, strategy=Strategy.FSDP),
        Resources(cpus=2, gpus=2),
        Resources(gpus=0.5),
    ):
        replace(GOOD, resources=good).validate()
    with pytest.raises(InvalidError) as caught:
        replace(GOOD, resources=wrong).validate()
    assert fields(caught.value) == {f"spec.resources.{field}"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"objective": Objective.TEXT, "task": Task.VISION_LANGUAGE}, "objective"),
        (
            {
                "objective": Objective.PREFERENCE,
                "task": Task.IMAGE_CLASSIFICATION,
                "method": Full((Tower.HEAD,)),
            },
            "objective",
        ),
        ({"sequence": Sequence(over_length=OverLength.SPLIT)}, "sequence.over_length"),
        ({"preference": Preference(beta=0.0)}, "preference.beta"),
        ({"preference": Preference(label_smoothing=0.5)}, "preference.label_smoothing"),
        ({"preference": Preference(chosen_weight=-1.0)}, "preference.chosen_weight"),
    ],
)
def test_an_objective_has_its_own_limits(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        replace(GOOD, **changes).validate()
    assert fields(caught.value) == {f"spec.{field}"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": Lora(quantization=Quantization.NF4)},
        {"precision": Precision.FP16},
        {"optimization": Optimization(optimizer=Optimizer.ADAFACTOR)},
    ],
)
def test_what_cannot_be_sharded_is_refused(wrong: dict[str, Any]) -> None:
    whole = replace(GOOD, resources=Resources(cpus=2, workers=2), **wrong)
    whole.validate()
    with pytest.raises(InvalidError) as caught:
        replace(whole, resources=replace(whole.resources, strategy=Strategy.FSDP)).validate()
    assert fields(caught.value) == {"spec.resources.strategy"}
