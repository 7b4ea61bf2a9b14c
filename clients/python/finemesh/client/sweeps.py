"""Sweep files as messages, and the order of trials. Names and words of the spec are those of the contract."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from google.protobuf import json_format

from finemesh import specfile
from finemesh.client import specs
from finemesh.client.specs import Problem, SpecError
from finemesh.specfile import SpecFile
from finemesh.v1 import run_pb2, sweep_pb2

TEMPLATE: Final = """\
# finemesh sweep create -f FILE
# What all trials have in common: a fine-tune as `finemesh train submit -f` takes it, or the path of one.
spec:
  task: LANGUAGE
  base_model: ./model
  dataset: items
  optimization: {max_steps: 270}
  lora: {}
# What differs, by the path of the field in the spec.
parameters:
  lora.rank: [8, 16, 32]                             # each of these
  optimization.learning_rate: {log_uniform: [1.0e-5, 1.0e-3]}  # any number, each magnitude as likely
  optimization.weight_decay: {uniform: [0, 0.1]}     # any number
  optimization.warmup_steps: {integers: [0, 20]}     # any whole number
# Which combinations, and how far each is taken. One of:
#   grid: {}                                         # all, to the end: takes lists alone
#   random: {trials: 20, seed: 0}                    # some, to the end
successive_halving: {trials: 27, seed: 0, reduction: 3, min_steps: 1}  # many at first, the best third goes on
# What trials are compared by; left out, what the task's best checkpoint is chosen by.
objective: {metric: val/loss, goal: MINIMIZE}
max_parallel: 4                                      # trials at once
"""
_KINDS: Final = ("choices", "uniform", "log_uniform", "integers")
_PLAIN: Final = (
    *("grid", "random", "successive_halving", "objective"),
    *("max_parallel", "max_restarts", "priority", "display_name"),
)
_KEYS: Final = ("spec", "parameters", *_PLAIN, "labels")
State = sweep_pb2.SweepTrial.State


def read(path: Path, overrides: list[str]) -> tuple[sweep_pb2.Sweep, SpecFile]:
    """What a sweep file says, fields of its spec replaced by `overrides`, and where it says it.

    Raises:
        SpecFileError: it cannot be read.
        SpecError: it says what no sweep can, with every field that is wrong in itself.
    """
    file = specfile.read(path)
    base = file.values.get("spec")
    if isinstance(base, str):
        spec = specfile.read(path.parent / base)
    else:
        places = {
            at.removeprefix("spec."): where for at, where in file.places.items() if at.startswith("spec.")
        }
        spec = SpecFile(cast("dict[str, Any]", base) if isinstance(base, dict) else {}, places)
    spec = specfile.overridden(spec, overrides)
    sweep, problems = _sweep(file)
    try:
        sweep.spec.CopyFrom(specs.to_message(spec))
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(problems)
    return sweep, SpecFile(
        file.values, file.places | {f"spec.{at}": where for at, where in spec.places.items()}
    )


def _sweep(file: SpecFile) -> tuple[sweep_pb2.Sweep, list[Problem]]:
    """All but the spec."""
    values, problems = file.values, list[Problem]()

    def wrong(path: str, text: str) -> None:
        problems.append(Problem(file.place(path), path, text))

    for key in sorted(values.keys() - set(_KEYS)):
        wrong(key, f"unknown; there are {', '.join(_KEYS)}")
    if "spec" not in values:
        wrong("spec", "is not there: write the fine-tune that all trials have in common, or the path of one")
    parameters = values.get("parameters")
    if not isinstance(parameters, dict):
        wrong("parameters", "write a field of the spec a line, with its values: `lora.rank: [4, 8]`")
        parameters = {}
    message = sweep_pb2.Sweep()
    for field, given in cast("dict[str, Any]", parameters).items():
        try:
            json_format.ParseDict(_parameter(field, given, wrong), message.parameters.add())
        except json_format.ParseError as error:
            wrong(f"parameters.{field}", str(error))
    plain = {key: value for key, value in values.items() if key in _PLAIN}
    for path, text in specs.fill(message, plain):
        wrong(path, text)
    labels = values.get("labels") or {}
    if isinstance(labels, dict):
        message.labels.update({str(key): str(value) for key, value in cast("dict[str, Any]", labels).items()})
    else:
        wrong("labels", "write a label a line: `team: vision`")
    return message, problems


def _parameter(field: str, given: Any, wrong: Any) -> dict[str, Any]:
    """A parameter as JSON of the contract. A list is short for its choices."""
    path = f"parameters.{field}"
    if isinstance(given, list):
        return {"field": field, "choices": given}
    if (
        not isinstance(given, dict)
        or len(cast("dict[str, Any]", given)) != 1
        or not given.keys() <= set(_KINDS)
    ):
        wrong(path, f"write a list of values, or one of {', '.join(_KINDS[1:])} with [low, high]")
        return {}
    [(kind, between)] = cast("dict[str, Any]", given).items()
    if kind == "choices":
        return {"field": field, "choices": between}
    ends = (between.get("low"), between.get("high")) if isinstance(between, dict) else between
    if (
        not isinstance(ends, list | tuple)
        or len(cast("list[Any]", ends)) != 2
        or any(_no_number(e) for e in ends)
    ):
        wrong(path, f"{kind}: write [low, high], two numbers")
        return {}
    return {"field": field, kind: {"low": ends[0], "high": ends[1]}}


def _no_number(value: Any) -> bool:
    return isinstance(value, bool) or not isinstance(value, int | float)


def place_in(file: SpecFile, sweep: sweep_pb2.Sweep, field: str) -> str:
    """Where a file says the field that the service calls, say, `sweep.parameters[0].choices`."""
    path = field.removeprefix("sweep.")
    if found := re.match(r"parameters\[(\d+)\]", path):
        path = f"parameters.{sweep.parameters[int(found[1])].field}"
    of_trials = f"parameters.{path.removeprefix('spec.')}"
    return file.places.get(of_trials) or file.place(path)


def ranked(sweep: sweep_pb2.Sweep) -> list[sweep_pb2.SweepTrial]:
    """The trials, best first: those that came further before those that did not, then by the objective."""
    sign = -1 if sweep.objective.goal == run_pb2.GOAL_MAXIMIZE else 1

    def key(trial: sweep_pb2.SweepTrial) -> tuple[bool, int, float, int]:
        value = sign * trial.objective if trial.HasField("objective") else math.inf
        return trial.state == State.STATE_FAILED, -len(trial.measured), value, trial.number

    return sorted(sweep.trials, key=key)


def varying(sweep: sweep_pb2.Sweep) -> Iterator[str]:
    """The fields that are not the same in all trials."""
    for parameter in sweep.parameters:
        if len({str(trial.values.fields[parameter.field]) for trial in sweep.trials}) > 1:
            yield parameter.field
