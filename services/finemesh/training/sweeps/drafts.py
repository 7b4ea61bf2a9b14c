"""What a request to sweep asks for, checked: every combination of values, before any of them is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from google.protobuf import json_format

from finemesh.chassis.fine_tune_spec import document_of
from finemesh.core.errors import FieldViolation, InvalidError, PreconditionError
from finemesh.core.labels import MAX_DISPLAY_NAME_LENGTH, describe_violations
from finemesh.core.metrics import Goal, goal_of
from finemesh.core.names import Name, parse_name
from finemesh.core.spec import codec, document
from finemesh.core.spec.finetune import FineTuneSpec, Task
from finemesh.training.convert import MAX_RESTARTS_LIMIT
from finemesh.training.job import DEFAULT_MAX_RESTARTS, TrainingJob
from finemesh.training.sweeps import halving, space
from finemesh.training.sweeps.domain import LABEL, Sweep, Trial
from finemesh.training.sweeps.metrics import Target, default_metric, is_measured, measured
from finemesh.training.sweeps.space import Choices, Integers, Parameter, Uniform, Values
from finemesh.v1 import run_pb2
from finemesh.v1 import sweep_pb2 as pb

PATH: Final = "sweep"
MAX_TRIALS: Final = 500
MAX_PARALLEL: Final = 4
DEFAULT_REDUCTION: Final = 3
MAX_ID_LENGTH: Final = 58  # so that the ids of its jobs, with a hyphen and a number behind it, are ids too
_GOALS: Final = {run_pb2.GOAL_MINIMIZE: Goal.MINIMIZE, run_pb2.GOAL_MAXIMIZE: Goal.MAXIMIZE}
_HEADS: Final = ("training_job.", "spec.", "method.")


class Search(StrEnum):
    """Which combinations are tried, and how far each is taken."""

    GRID = "GRID"
    RANDOM = "RANDOM"
    SUCCESSIVE_HALVING = "SUCCESSIVE_HALVING"


@dataclass(frozen=True, slots=True)
class Strategy:
    """`trials` 0 means every combination; `reduction` and `min_steps` are of successive halving."""

    search: Search = Search.GRID
    trials: int = 0
    seed: int = 0
    reduction: int = DEFAULT_REDUCTION
    min_steps: int = 1


class Faults(list[FieldViolation]):
    """What is wrong with a request."""

    def add(self, field: str, description: str) -> None:
        self.append(FieldViolation(f"{PATH}.{field}", description))

    def check(self) -> None:
        """Raises InvalidError, reason INVALID_SWEEP, if anything is."""
        if self:
            listed = "; ".join(f"{fault.field}: {fault.description}" for fault in self)
            raise InvalidError(listed, violations=list(self), reason="INVALID_SWEEP")


def draft(name: Name, message: pb.Sweep, now: datetime) -> Sweep:
    """The checked sweep that `message` asks for, with its trials.

    Raises InvalidError, reason INVALID_SWEEP, naming every wrong field under `sweep`: first those of the
    sweep itself; if there are none, those of the specs of its trials, with the trials that they are wrong in.
    """
    faults = Faults(describe_violations(message.display_name, message.labels, PATH))
    if len(name.id) > MAX_ID_LENGTH:
        faults.append(FieldViolation("sweep_id", f"has more than {MAX_ID_LENGTH} characters: {name.id}"))
    _check_numbers(message, faults)
    parameters = tuple(_parameters(message, faults))
    strategy = _strategy(message)
    drawn = [] if faults else _drawn(parameters, strategy, faults)
    faults.check()
    base = document_of(message.spec)
    trials = tuple(Trial(number, values) for number, values in enumerate(drawn, 1))
    specs = _specs(base, trials, name.project, faults)
    faults.check()
    target = _target(message.objective, specs, faults)
    max_steps = _horizon(strategy, specs, faults)
    rungs = _rungs(strategy, len(trials), max_steps, faults)
    faults.check()
    return Sweep(
        name=name,
        asked=_asked(message),
        target=target,
        rungs=rungs,
        max_parallel=message.max_parallel or MAX_PARALLEL,
        create_time=now,
        update_time=now,
        trials=trials,
        max_steps=max_steps,
        display_name=message.display_name,
        labels=dict(message.labels),
        priority=message.priority,
        max_restarts=message.max_restarts or DEFAULT_MAX_RESTARTS,
    )


def _asked(message: pb.Sweep) -> dict[str, Any]:
    asked = pb.Sweep(spec=message.spec, parameters=message.parameters)
    if strategy := message.WhichOneof("strategy"):
        getattr(asked, strategy).CopyFrom(getattr(message, strategy))
    return json_format.MessageToDict(asked, preserving_proto_field_name=True)


def asked_of(sweep: Sweep) -> pb.Sweep:
    """What its user asked for: spec, parameters and strategy."""
    return json_format.ParseDict(dict(sweep.asked), pb.Sweep())


def spec_of(sweep: Sweep, trial: Trial) -> FineTuneSpec:
    """The spec of a trial's job."""
    return _trial_spec(document_of(asked_of(sweep).spec), trial.values)


def job_of(sweep: Sweep, trial: Trial, now: datetime) -> TrainingJob:
    """The job of a trial, as a user would ask for it."""
    values = ", ".join(f"{field.rpartition('.')[2]}={value}" for field, value in trial.values.items())
    return TrainingJob(
        name=sweep.job_name(trial.number),
        spec=spec_of(sweep, trial),
        run="",
        output_uri="",
        create_time=now,
        update_time=now,
        display_name=values[:MAX_DISPLAY_NAME_LENGTH],
        labels={**sweep.labels, LABEL: sweep.name.id},
        priority=sweep.priority,
        max_restarts=sweep.max_restarts,
    )


def _trial_spec(base: Mapping[str, Any], values: Values) -> FineTuneSpec:
    """Raises InvalidError, fields starting at `sweep.spec`."""
    return document.read(space.applied(base, values), f"{PATH}.spec")


def _check_numbers(message: pb.Sweep, faults: Faults) -> None:
    rules = (
        ("max_parallel", message.max_parallel >= 0, f"must not be negative; 0 means {MAX_PARALLEL}"),
        (
            "max_restarts",
            0 <= message.max_restarts <= MAX_RESTARTS_LIMIT,
            f"must lie in [0, {MAX_RESTARTS_LIMIT}]; 0 means {DEFAULT_MAX_RESTARTS}",
        ),
        (
            "labels",
            LABEL not in message.labels,
            f"{LABEL!r} is the label that tells the sweep of a job: leave it out",
        ),
        (
            "random.trials",
            message.WhichOneof("strategy") != "random" or message.random.trials > 0,
            "say how many",
        ),
        ("successive_halving.trials", message.successive_halving.trials >= 0, "must not be negative"),
        (
            "successive_halving.reduction",
            message.successive_halving.reduction == 0 or message.successive_halving.reduction >= 2,
            f"must be at least 2, for one in so many goes on; 0 means {DEFAULT_REDUCTION}",
        ),
        ("successive_halving.min_steps", message.successive_halving.min_steps >= 0, "must not be negative"),
    )
    for field, holds, text in rules:
        if not holds:
            faults.add(field, text)


# The search space


def _parameters(message: pb.Sweep, faults: Faults) -> Iterator[Parameter]:
    if not message.parameters:
        faults.add("parameters", "is empty: name at least one field, with the values that it may have")
    fields: list[str] = []
    for index, each in enumerate(message.parameters):
        path, field = f"parameters[{index}]", _short(each.field)
        if not field:
            faults.add(f"{path}.field", "is empty: name a field of the spec, e.g. optimization.learning_rate")
        for other in fields:
            if f"{field}.".startswith(f"{other}.") or f"{other}.".startswith(f"{field}."):
                faults.add(
                    f"{path}.field", f"{field} is, or is part of, what {other} sets: name each field once"
                )
        fields.append(field)
        domain = _domain(each, path, faults)
        if domain is not None:
            yield Parameter(field, domain)


def _short(field: str) -> str:
    """A path as spec files have it, whichever way it was written."""
    for head in _HEADS:
        field = field.removeprefix(head)
    return field.strip()


def _domain(message: pb.SweepParameter, path: str, faults: Faults) -> Choices | Uniform | Integers | None:
    kind = message.WhichOneof("values")
    if kind == "choices":
        return _choices(message, path, faults)
    if kind == "integers":
        if message.integers.low > message.integers.high:
            faults.add(f"{path}.integers", _empty_range(message.integers))
        return Integers(message.integers.low, message.integers.high)
    if kind is None:
        faults.add(path, "has no values: write choices, uniform, log_uniform or integers")
        return None
    between: pb.NumberRange = getattr(message, kind)
    if not (math.isfinite(between.low) and math.isfinite(between.high) and between.low < between.high):
        faults.add(f"{path}.{kind}", _empty_range(between))
    elif kind == "log_uniform" and between.low <= 0:
        faults.add(f"{path}.{kind}.low", f"{between.low:g} has no logarithm: begin above 0")
    return Uniform(between.low, between.high, log=kind == "log_uniform")


def _choices(message: pb.SweepParameter, path: str, faults: Faults) -> Choices | None:
    try:
        items = tuple(_plain(item) for item in json_format.MessageToDict(message.choices))
    except ValueError:  # JSON has neither
        faults.add(f"{path}.choices", "has a number that is infinite or none: write finite ones")
        return None
    if not items:
        faults.add(f"{path}.choices", "is empty: write at least one value")
    elif any(item in items[:index] for index, item in enumerate(items)):
        faults.add(f"{path}.choices", "has a value twice: its trials would be the same")
    return Choices(items)


def _empty_range(between: pb.NumberRange | pb.IntegerRange) -> str:
    return f"from {between.low} to {between.high} is no range: write low and high, low first"


def _plain(value: Any) -> Any:
    """A value as YAML would have it: JSON has no whole numbers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


# The strategy


def _strategy(message: pb.Sweep) -> Strategy:
    kind = message.WhichOneof("strategy")
    if kind == "random":
        return Strategy(Search.RANDOM, message.random.trials, message.random.seed)
    if kind == "successive_halving":
        asked = message.successive_halving
        reduction, min_steps = asked.reduction or DEFAULT_REDUCTION, asked.min_steps or 1
        return Strategy(Search.SUCCESSIVE_HALVING, asked.trials, asked.seed, reduction, min_steps)
    return Strategy()


def _drawn(parameters: Sequence[Parameter], strategy: Strategy, faults: Faults) -> list[Values]:
    """The combinations that are tried."""
    where = strategy.search.lower()
    count = strategy.trials or space.size(parameters)
    if math.isinf(count):
        ranges = ", ".join(each.field for each in parameters if not isinstance(each.domain, Choices))
        faults.add(where, f"{ranges} may be any number: say how many trials to draw, or write choices")
    elif not strategy.trials and any(isinstance(each.domain, Integers) for each in parameters):
        faults.add(
            where, "a grid takes choices alone: write the whole numbers out, or say how many trials to draw"
        )
    elif count > MAX_TRIALS:
        faults.add(
            where, f"makes {count:.0f} trials, at most {MAX_TRIALS} are taken: draw fewer, or sweep in parts"
        )
    elif not strategy.trials:
        return list(space.grid(parameters))
    else:
        try:
            return space.sample(parameters, strategy.trials, strategy.seed)
        except PreconditionError as error:
            faults.add(f"{where}.trials", error.message)
    return []


def _horizon(strategy: Strategy, specs: Sequence[FineTuneSpec], faults: Faults) -> int:
    """Optimiser steps of a whole trial; 0 if they differ, or only the dataset tells."""
    lengths = {spec.optimization.max_steps for spec in specs}
    if strategy.search is Search.SUCCESSIVE_HALVING and (len(lengths) > 1 or not min(lengths)):
        said = "differs between trials" if len(lengths) > 1 else "is not set"
        faults.add(
            "spec.optimization.max_steps", f"{said}: successive halving compares after shares of one length"
        )
    return max(lengths) if len(lengths) == 1 else 0


def _rungs(strategy: Strategy, trials: int, max_steps: int, faults: Faults) -> tuple[halving.Rung, ...]:
    if strategy.search is not Search.SUCCESSIVE_HALVING or not max_steps:
        return halving.whole(trials)
    made = halving.rungs(trials, max_steps, strategy.reduction, strategy.min_steps)
    if len(made) == 1:
        faults.add(
            "successive_halving",
            f"nobody would be eliminated: {trials} trials of {max_steps} steps cannot be reduced"
            f" {strategy.reduction} times with {strategy.min_steps} steps before that: ask for more",
        )
    return made


# The specs


def _specs(
    base: Mapping[str, Any], trials: Sequence[Trial], project: str, faults: Faults
) -> list[FineTuneSpec]:
    """The spec of each trial; what is wrong with them, once for all trials in which it is."""
    specs: list[FineTuneSpec] = []
    wrong: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        try:
            spec = _trial_spec(base, trial.values)
            if parse_name(spec.dataset, "datasets", f"{PATH}.spec.dataset").project != project:
                raise InvalidError.of(f"{PATH}.spec.dataset", f"{spec.dataset} is not in project {project!r}")
            specs.append(spec)
        except InvalidError as error:
            for violation in error.violations:
                wrong.setdefault((violation.field, violation.description), []).append(trial)
    for (field, description), affected in wrong.items():
        faults.append(FieldViolation(field, description + _where(affected, len(trials))))
    return specs


def _where(affected: Sequence[Trial], total: int) -> str:
    if len(affected) == total:
        return ""
    values = ", ".join(f"{field}={value}" for field, value in affected[0].values.items())
    return f" (in {len(affected)} of {total} trials, first in number {affected[0].number}: {values})"


def _target(asked: pb.SweepObjective, specs: Sequence[FineTuneSpec], faults: Faults) -> Target:
    tasks = {spec.task for spec in specs}
    metric = asked.metric or default_metric(min(tasks, key=list(Task).index))
    goal = _GOALS.get(asked.goal) or goal_of(metric)
    if goal is None:
        faults.add("objective.goal", f"nobody knows which way {metric} is better: say MINIMIZE or MAXIMIZE")
    if why := _never_compared(metric, specs):
        faults.add("objective.metric", why)
    return Target(metric, goal or Goal.MINIMIZE)


def _never_compared(metric: str, specs: Sequence[FineTuneSpec]) -> str:
    """Why trials cannot be compared by a metric, if they cannot."""
    if metric.startswith("test/"):
        return (
            f"{metric} is measured after the last checkpoint, and a test split that chooses tests no more:"
            " choose by a metric of the validation split"
        )
    for spec in specs:
        if not is_measured(metric, spec):
            names = measured(spec)
            meant = codec.nearest(metric, names)
            return f"checkpoints of {spec.task} carry no {metric}{meant}: write one of {', '.join(names)}"
        if metric.startswith("val/") and not (spec.validation_split or spec.evaluation.holdout_fraction):
            return f"{metric} is never measured: name a validation_split, or set evaluation.holdout_fraction"
    return ""
