"""The linter speaks up when it should, and finds nothing in the presets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from finemesh.core.errors import NotFoundError
from finemesh.core.spec import document
from finemesh.core.spec.finetune import FineTuneSpec, Lora, Task, Tower
from finemesh.core.spec.lint import BaseModelFacts, Severity, facts_of, lint_document
from finemesh.core.spec.presets import PRESETS, Level, Preset, preset_of
from finemesh.core.spec.recipes import RECIPES
from finemesh.finetune.families import FAMILIES
from finemesh.finetune.families.family import Family

GOOD: dict[str, Any] = {
    **document.write(preset_of("language-balanced").spec),
    "base_model": "some/model",
    "dataset": "projects/p/datasets/d",
}
PICTURES = {"task": "VISION_LANGUAGE"}


def changed(**fields: Any) -> dict[str, Any]:
    """`GOOD` with fields set; `lora__rank=3` is `lora.rank`, and None takes a field out."""
    made = {name: dict(value) if isinstance(value, dict) else value for name, value in GOOD.items()}
    for name, value in fields.items():
        *parents, leaf = name.split("__")
        target: dict[str, Any] = made
        for parent in parents:
            target = target.setdefault(parent, {})
        if value is None:
            del target[leaf]
        else:
            target[leaf] = value
    return made


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.id)
def test_a_preset_is_sound_and_clean(preset: Preset) -> None:
    spec = replace(preset.spec, base_model="m", dataset="projects/p/datasets/d")
    spec.validate()
    assert document.read(document.write(spec)) == spec
    assert lint_document(document.write(spec)).findings == ()


def test_every_task_and_every_family_has_every_preset() -> None:
    owners = {(task, "") for task in Task} | {(family.task, family.name) for family in FAMILIES}
    assert {(preset.spec.task, preset.family, preset.level) for preset in PRESETS} == {
        (*owner, level) for owner in owners for level in Level
    }
    assert len({preset.id for preset in PRESETS}) == len(PRESETS)
    with pytest.raises(NotFoundError) as missing:
        preset_of("language-fast")
    assert missing.value.reason == "PRESET_NOT_FOUND"


def test_a_family_is_tuned_as_its_makers_do_and_its_quick_preset_is_short() -> None:
    quick, balanced, quality = (preset_of(f"qwen2.5-vl-{level.lower()}").spec for level in Level)
    assert {spec.optimization.learning_rate for spec in (quick, balanced, quality)} == {2e-5}
    assert isinstance(quality.method, Lora)
    assert (quality.method.rank, quality.method.alpha) == (64, 16)
    assert (quick.optimization.max_steps, balanced.optimization.max_steps) == (200, 0)
    for family, recipe in RECIPES.items():
        assert bool(recipe.taken) == bool(recipe.source) >= bool(recipe.fields or recipe.quality), family


@pytest.mark.parametrize(
    "family", [each for each in FAMILIES if each.model_types], ids=lambda each: each.name
)
def test_a_preset_suits_its_family(family: Family) -> None:
    for level in Level:
        spec = replace(
            preset_of(f"{family.name}-{level.lower()}").spec, base_model="m", dataset="projects/p/datasets/d"
        )
        facts = BaseModelFacts(family.model_types[0], max_positions=4096)
        assert lint_document(document.write(spec), facts).findings == ()
        trained = {Tower.LANGUAGE} if isinstance(spec.method, Lora) else set(spec.method.towers)
        assert trained <= set(family.towers)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"optimization__learning_rate": 1e-6}, "optimization.learning_rate"),
        ({"optimization__learning_rate": 0.1}, "optimization.learning_rate"),
        ({"lora": None, "full": {}}, "optimization.learning_rate"),
        ({"objective": "PREFERENCE"}, "optimization.learning_rate"),
        ({"lora__alpha": 5000}, "lora.alpha"),
        ({"lora__dropout": 0.5}, "lora.dropout"),
        (
            {"optimization__micro_batch_size": 1, "optimization__gradient_accumulation_steps": 1},
            "optimization.gradient_accumulation_steps",
        ),
        ({"optimization__warmup_ratio": 0.5}, "optimization.warmup_ratio"),
        ({"optimization__max_steps": 20, "evaluation__every_steps": 21}, "evaluation.every_steps"),
        ({"optimization__max_steps": 200, "checkpoint__every_steps": 500}, "checkpoint.every_steps"),
        ({"optimization__epochs": 30.0}, "optimization.epochs"),
        ({"sequence__packing": False}, "sequence.packing"),
        ({"sequence__max_tokens": 4097}, "sequence.max_tokens"),
        ({**PICTURES, "sequence__over_length": "TRUNCATE"}, "sequence.over_length"),
        ({"resources__gpus": 1}, "precision"),
        ({"validation_split": ""}, "checkpoint.keep_best"),
        ({"evaluation__every_steps": 0}, "evaluation.every_steps"),
        ({"validation_split": "", "evaluation__holdout_fraction": 0.6}, "evaluation.holdout_fraction"),
        ({"optimization__neftune_alpha": 50.0}, "optimization.neftune_alpha"),
        ({"optimization__label_smoothing": 0.5}, "optimization.label_smoothing"),
        (
            {
                "validation_split": "", "test_split": "",
                "checkpoint__keep_best": False, "evaluation__baselines": False,
            },
            "test_split",
        ),
        ({"checkpoint__every_steps": 0}, "checkpoint.every_steps"),
        ({"optimization__max_grad_norm": 0}, "optimization.max_grad_norm"),
        ({"max_quarantined_fraction": 0.5}, "max_quarantined_fraction"),
    ],
)  # fmt: skip
def test_a_likely_mistake_is_named_alone_with_its_remedy(fields: dict[str, Any], found: str) -> None:
    report = lint_document(changed(**fields), BaseModelFacts("llama", max_positions=4096))
    [finding] = report.findings
    assert (finding.severity, finding.field) == (Severity.WARNING, found)
    assert any(word in finding.message for word in ("write", "is usual", "set", "makes them")), (
        finding.message
    )


@pytest.mark.parametrize("steps", [0, 2, 20, 200])
@pytest.mark.parametrize("field", ["evaluation__every_steps", "checkpoint__every_steps"])
def test_the_remedy_that_is_named_silences_the_finding(field: str, steps: int) -> None:
    short = {"optimization__max_steps": steps, "evaluation__every_steps": 1, "checkpoint__every_steps": 1}
    [finding] = lint_document(changed(**short | {field: 0})).findings
    remedy = int(finding.message.rsplit("write ")[-1])
    assert lint_document(changed(**short | {field: remedy})).findings == ()


def test_rows_that_are_held_out_are_as_good_as_a_split() -> None:
    held_out = changed(validation_split="", evaluation__holdout_fraction=0.1)
    assert lint_document(held_out).findings == ()
    assert lint_document(changed(validation_split="")).findings != ()


def test_what_is_refused_is_not_judged_further() -> None:
    report = lint_document(changed(optimization__learning_rate=5.0, lora__rank=-1, lora__rnk=3, task="talk"))
    assert {(each.severity, each.field) for each in report.findings} == {
        (Severity.ERROR, "lora.rank"),
        (Severity.ERROR, "lora.rnk"),
        (Severity.ERROR, "task"),
    }
    assert report.spec is None


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["q_proj", "down_proj"], None),
        (
            ["q_proj", "q_prj"],
            "no layer 'q_prj' in LANGUAGE: write names out of q_proj, v_proj, down_proj",
        ),
        (["fc1"], "have no layer 'fc1' in LANGUAGE: write VISION in lora.towers too"),
    ],
)
def test_a_target_that_no_part_has_is_named_with_those_there_are(names: list[str], said: str | None) -> None:
    layers = {Tower.LANGUAGE: ("q_proj", "v_proj", "down_proj"), Tower.VISION: ("fc1",), Tower.CONNECTOR: ()}
    facts = BaseModelFacts("llava", 4096, layers)
    found = lint_document(changed(**PICTURES, lora__target_modules=names), facts).findings
    assert [(each.severity, each.field) for each in found] == (
        [(Severity.WARNING, "lora.target_modules")] if said else []
    )
    assert not said or said in found[0].message
    assert ("did you mean q_proj?" in str(found)) == ("q_prj" in names)
    everything = {"lora__towers": ["LANGUAGE", "CONNECTOR"], "lora__target_modules": names}
    assert lint_document(changed(**PICTURES, **everything), facts).findings == ()  # the connector may have it


@pytest.mark.parametrize("task", Task)
def test_a_spec_without_a_method_lacks_a_method_and_nothing_else(task: Task) -> None:
    report = lint_document({"task": task, "base_model": "m", "dataset": "projects/p/datasets/d"})
    assert [(each.severity, each.field) for each in report.findings] == [(Severity.ERROR, "method")]


def test_facts_are_those_of_the_language_model() -> None:
    assert facts_of(
        {"model_type": "llava", "text_config": {"max_position_embeddings": 4096}}
    ) == BaseModelFacts("llava", 4096)
    assert facts_of({"text_config": None, "max_position_embeddings": "many"}) == BaseModelFacts()


def test_a_spec_is_read_as_people_write_it() -> None:
    plain = {"task": "language", "base_model": "m", "dataset": "projects/p/datasets/d", "lora": None}
    prefixed = {**plain, "task": "TASK_LANGUAGE", "lora": {"rank": 16.0, "towers": []}}
    nested = {**plain, "method": {"lora": {"rank": 3}}, "lora": {"rank": 16}}
    specs = [document.read(each) for each in (plain, prefixed, nested)]
    assert len({spec.fingerprint() for spec in specs}) == 1
    assert isinstance(specs[0], FineTuneSpec)
