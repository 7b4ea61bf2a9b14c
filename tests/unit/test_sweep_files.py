"""Sweep files: what they may say, what is refused and where, and the order in which trials are shown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from finemesh.client import sweeps
from finemesh.client.specs import SpecError
from finemesh.core.errors import InvalidError
from finemesh.core.names import Name
from finemesh.training.sweeps.convert import sweep_to_proto
from finemesh.training.sweeps.domain import Sweep
from finemesh.training.sweeps.drafts import draft, spec_of
from finemesh.v1 import run_pb2, sweep_pb2

NAME = Name("p", "sweeps", "s")
SPEC = """\
spec:
  task: LANGUAGE
  base_model: x
  dataset: projects/p/datasets/d
  lora: {}
"""


def drafted(tmp_path: Path, text: str, *overrides: str) -> Sweep:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return draft(NAME, sweeps.read(file, list(overrides))[0], datetime(2026, 1, 1, tzinfo=UTC))


def faults(tmp_path: Path, text: str) -> list[str]:
    """What is wrong with a file, with the places, as the command line says it."""
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    try:
        asked, read = sweeps.read(file, [])
    except SpecError as error:
        return [f"{Path(each.place).name}: {each.field}: {each.message}" for each in error.problems]
    with pytest.raises(InvalidError) as refused:
        draft(NAME, asked, datetime(2026, 1, 1, tzinfo=UTC))
    assert refused.value.reason == "INVALID_SWEEP"
    return [
        f"{Path(sweeps.place_in(read, asked, each.field)).name}: {each.field}: {each.description}"
        for each in refused.value.violations
    ]


def test_the_template_is_a_sweep(tmp_path: Path) -> None:
    sweep = drafted(tmp_path, sweeps.TEMPLATE, "dataset=projects/p/datasets/d")
    assert [(rung.steps or 270, rung.trials) for rung in sweep.rungs] == [
        (10, 27),
        (30, 9),
        (90, 3),
        (270, 1),
    ]
    assert {type(value) for trial in sweep.trials for value in trial.values.values()} == {int, float}
    again = sweep_to_proto(sweep, {})
    assert again.successive_halving == sweep_pb2.SuccessiveHalving(trials=27, reduction=3, min_steps=1)
    assert len(again.trials) == 27


def test_values_take_the_place_of_what_the_spec_says(tmp_path: Path) -> None:
    """Whole messages too; and what the spec leaves out follows from them: alpha from the rank."""
    sweep = drafted(
        tmp_path,
        SPEC.replace("lora: {}", "optimization: {seed: 3}")
        + "parameters:\n  method: [{lora: {rank: 8}}, {full: {}}]\n  spec.optimization.seed: [1, 2.0]\n",
    )
    specs = [spec_of(sweep, trial) for trial in sweep.trials]
    assert [spec.optimization.seed for spec in specs] == [1, 2, 1, 2]
    assert [spec.flatten()["method"] for spec in specs] == ["lora", "lora", "full", "full"]
    assert specs[0].flatten()["method.lora.alpha"] == 16


def test_a_spec_file_is_taken_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "task: LANGUAGE\nbase_model: x\ndataset: projects/p/datasets/d\nlora: {rank: 0}\n"
    )
    text = "spec: spec.yaml\nparameters: {optimization.seed: [1, 2]}\n"
    assert faults(tmp_path, text) == ["spec.yaml:4: sweep.spec.lora.rank: must be at least 1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "parameters: {lora.rank: [4, -1]}",
            "sweep.yaml:6: sweep.spec.lora.rank: must be at least 1 (in 1 of 2 trials",
        ),
        ("parameters: {lora.rnk: [4]}", "sweep.yaml:6: sweep.spec.lora.rnk: unknown (did you mean rank?)"),
        ("parameters: {lora.rank: 4}", "sweep.yaml:6: parameters.lora.rank: write a list of values"),
        (
            "parameters: {lora.rank: {uniform: [4]}}",
            "sweep.yaml:6: parameters.lora.rank: uniform: write [low, high]",
        ),
        ("parameters: {lora.rank: {integers: [1.5, 4]}}", "sweep.yaml:6: parameters.lora.rank: "),
        ("parameters: {lora.dropout: [.nan]}", "sweep.yaml:6: sweep.parameters[0].choices: has a number"),
        ("parameters: {lora.rank: []}", "sweep.yaml:6: sweep.parameters[0].choices: is empty"),
        ("parameters: {lora.rank: [4, 4]}", "sweep.yaml:6: sweep.parameters[0].choices: has a value twice"),
        (
            "parameters: {lora: [{rank: 4}], lora.rank: [4]}",
            "sweep.yaml:6: sweep.parameters[1].field: lora.rank is",
        ),
        (
            "parameters: {lora.dropout: {log_uniform: [0, 1]}}\nrandom: {trials: 3}",
            "sweep.yaml:6: sweep.parameters[0].log_uniform.low: 0 has no logarithm",
        ),
        ("parameters: {lora.dropout: {uniform: [0, 1]}}", ": sweep.grid: lora.dropout may be any number"),
        (
            "parameters: {lora.rank: [1, 2]}\nrandom: {trials: 3}",
            "sweep.yaml:7: sweep.random.trials: there are only 2",
        ),
        ("parameters: {lora.rank: [1, 2]}\nrandom: {}", "sweep.yaml:7: sweep.random.trials: say how many"),
        ("parameters: {optimization.seed: {integers: [1, 600]}}\nrandom: {trials: 501}", "at most 500"),
        (
            "parameters: {lora.rank: [1, 2]}\ngrid: {}\nrandom: {trials: 1}",
            "sweep.yaml:8: random: excludes grid",
        ),
        (
            "parameters: {lora.rank: [1, 2]}\nsuccesive_halving: {}",
            "sweep.yaml:7: succesive_halving: unknown",
        ),
        ("parameters: {lora.rank: [1, 2]}\nrandom: {trails: 3}", "sweep.yaml:7: random"),
        (
            "parameters: {lora.rank: [1, 2]}\nsuccessive_halving: {reduction: 2}",
            "sweep.spec.optimization.max_steps: is not set",
        ),
        (
            "parameters: {optimization.max_steps: [8, 9]}\nsuccessive_halving: {reduction: 2}",
            "sweep.yaml:6: sweep.spec.optimization.max_steps: differs between trials",
        ),
        (
            "parameters: {lora.rank: [1]}\nobjective: {metric: test/loss}",
            "sweep.yaml:7: sweep.objective.metric: test/",
        ),
        (
            "parameters: {lora.rank: [1]}\nobjective: {metric: val/los}",
            "sweep.yaml:7: sweep.objective.metric: checkpoints of LANGUAGE carry no val/los (did you mean",
        ),
        (
            "parameters: {lora.rank: [1]}\nobjective: {metric: val/map/cup}",
            "sweep.yaml:7: sweep.objective.metric: checkpoints of LANGUAGE carry no val/map/cup",
        ),
        (
            "parameters: {validation_split: ['', val]}\n",
            ": sweep.objective.metric: val/loss is never measured",
        ),
        (
            "parameters: {lora.rank: [1]}\nobjective: {metric: train/grad_norm}",
            "sweep.yaml:7: sweep.objective.goal: nobody knows which way train/grad_norm is better",
        ),
        (
            "parameters: {lora.rank: [1]}\nlabels: {sweep: x}",
            "sweep.yaml:7: sweep.labels: 'sweep' is the label",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_path(tmp_path: Path, text: str, said: str) -> None:
    found = faults(tmp_path, SPEC + text)
    assert len(found) == 1, found
    assert said in found[0]


def test_trials_are_shown_best_first() -> None:
    sweep = sweep_pb2.Sweep(objective=sweep_pb2.SweepObjective(goal=run_pb2.GOAL_MAXIMIZE))
    sweep.trials.add(number=1)
    sweep.trials.add(number=2, measured=[0.9], objective=0.9)
    sweep.trials.add(number=3, measured=[0.5, 0.6], objective=0.6)
    sweep.trials.add(number=4, measured=[0.5, 0.7], objective=0.7)
    sweep.trials.add(number=5, measured=[0.1], state=sweep_pb2.SweepTrial.STATE_FAILED)
    assert [trial.number for trial in sweeps.ranked(sweep)] == [4, 3, 2, 1, 5]
