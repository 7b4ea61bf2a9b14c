"""Between the messages of the contract and the values of the domain. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from finemesh.chassis.events import Event
from finemesh.chassis.fine_tune_spec import spec_from_proto
from finemesh.chassis.logs import get_logger
from finemesh.core.errors import InvalidError
from finemesh.core.metrics import Goal
from finemesh.core.names import Name, parse_name
from finemesh.events.v1 import run_events_pb2, training_job_events_pb2
from finemesh.tracking.compare import Comparison
from finemesh.tracking.domain import Batch, Curve, JobFact, Run, RunState, Series, Summary
from finemesh.tracking.drafts import Draft
from finemesh.v1 import (
    fine_tune_spec_pb2,
    lineage_pb2,
    metric_pb2,
    run_pb2,
    training_job_pb2,
)

SOURCE: Final = "finemesh/tracking"
# The label by which Training tells the sweep of a job.
_SWEEP_LABEL: Final = "sweep"

# The events that tell of a run, each with the state that the run ends in, if it does.
_FACTS: Final[dict[str, tuple[type[Any], RunState | None]]] = {
    "queued": (training_job_events_pb2.TrainingJobQueued, None),
    "started": (training_job_events_pb2.TrainingJobStarted, None),
    "resumed": (training_job_events_pb2.TrainingJobResumed, None),
    "succeeded": (training_job_events_pb2.TrainingJobSucceeded, RunState.FINISHED),
    "failed": (training_job_events_pb2.TrainingJobFailed, RunState.FAILED),
    "cancelled": (training_job_events_pb2.TrainingJobCancelled, RunState.CANCELLED),
}
_GOALS: Final = {
    run_pb2.GOAL_UNSPECIFIED: None,
    run_pb2.GOAL_MINIMIZE: Goal.MINIMIZE,
    run_pb2.GOAL_MAXIMIZE: Goal.MAXIMIZE,
}
_END_STATES: Final = {
    run_pb2.Run.STATE_UNSPECIFIED: RunState.FINISHED,
    run_pb2.Run.STATE_FINISHED: RunState.FINISHED,
    run_pb2.Run.STATE_FAILED: RunState.FAILED,
    run_pb2.Run.STATE_CANCELLED: RunState.CANCELLED,
}

_log = get_logger(__name__)


def batch_from_proto(message: metric_pb2.MetricBatch) -> Batch:
    """The columns of a batch, not checked yet."""
    return Batch(
        run=message.run,
        attempt=message.attempt,
        sequence=message.sequence,
        keys=tuple(message.keys),
        key_indices=np.array(message.key_indices, np.int64),
        steps=np.array(message.steps, np.int64),
        values=np.array(message.values, np.float64),
        times_us=np.array(message.times_us, np.int64),
        lengths=tuple(message.lengths),
        thinned_points=message.thinned_points,
        thinned_counts=tuple(message.thinned_counts),
    )


def goal_from_proto(goal: run_pb2.Goal) -> Goal | None:
    """None means: told from the name. Raises InvalidError for a value that this release does not know."""
    if goal not in _GOALS:
        raise InvalidError.of("goal", f"{goal} is not a goal: use GOAL_MINIMIZE or GOAL_MAXIMIZE")
    return _GOALS[goal]


def end_state_from_proto(state: run_pb2.Run.State) -> RunState:
    """How a run ends. Raises InvalidError for RUNNING and for what is unknown."""
    if state not in _END_STATES:
        raise InvalidError.of("state", "use STATE_FINISHED, STATE_FAILED or STATE_CANCELLED")
    return _END_STATES[state]


def draft_from_proto(message: run_pb2.Run) -> Draft:
    """What a caller says about a run, not checked yet."""
    return Draft(
        display_name=message.display_name,
        labels=dict(message.labels),
        params=dict(message.params),
        tags=tuple(message.tags),
        notes=message.notes,
        experiment=message.experiment,
        parent_run=message.parent_run,
        lineage=lineage_from_proto(message.lineage),
        start_time=instant_from_proto(message.start_time),
    )


def lineage_from_proto(message: lineage_pb2.Lineage) -> dict[str, Any]:
    """The message as JSON, by the names of its fields; what is not set is not there."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def instant_from_proto(message: Timestamp) -> datetime | None:
    """A time, or None if it is not set. Raises InvalidError for what is no time."""
    if not message.seconds and not message.nanos:
        return None
    try:
        return message.ToDatetime(UTC)
    except ValueError as error:
        raise InvalidError.of("time", f"{message.seconds} s is not a time: {error}") from error


def run_to_proto(run: Run) -> run_pb2.Run:
    message = run_pb2.Run(
        name=str(run.name),
        display_name=run.display_name,
        labels=run.labels,
        training_job=run.training_job,
        params=run.params,
        state=f"STATE_{run.state}",
        metrics=[summary_to_proto(summary) for summary in run.summaries],
        attempt=run.attempt,
        create_time=_timestamp(run.create_time),
        update_time=_timestamp(run.update_time),
        tags=run.tags,
        notes=run.notes,
        experiment=run.experiment,
        parent_run=run.parent_run,
    )
    if run.lineage:
        json_format.ParseDict(dict(run.lineage), message.lineage, ignore_unknown_fields=True)
    if run.start_time is not None:
        message.start_time.CopyFrom(_timestamp(run.start_time))
    if run.spec:
        message.spec.CopyFrom(fine_tune_spec_pb2.FineTuneSpec.FromString(run.spec))
    if run.end_time is not None:
        message.end_time.CopyFrom(_timestamp(run.end_time))
    return message


def summary_to_proto(summary: Summary, goal: Goal | None = None) -> run_pb2.MetricSummary:
    return run_pb2.MetricSummary(
        key=summary.key,
        last_value=summary.last_value,
        last_step=summary.last_step,
        best_value=summary.best_value,
        best_step=summary.best_step,
        goal=goal_to_proto(goal or summary.goal),
        point_count=summary.point_count,
        min_value=summary.min_value,
        max_value=summary.max_value,
    )


def series_to_proto(series: Series) -> metric_pb2.MetricSeries:
    curve: Curve = series.curve
    return metric_pb2.MetricSeries(
        run=series.run,
        key=series.key,
        steps=curve.steps.tolist(),
        values=curve.values.tolist(),
        times_us=curve.times_us.tolist(),
        attempts=curve.attempts.tolist(),
        total_points=series.total_points,
        thinned_points=series.thinned_points,
    )


def best_event(run: Run, summary: Summary) -> Event:
    """The deciding metric of a run reached a new best."""
    payload = run_events_pb2.RunBestLogged(run=str(run.name), metric=summary_to_proto(summary))
    return Event.of("run", "best_logged", str(run.name), payload, source=SOURCE, time=run.update_time)


def compared_event(runs: Sequence[Name], comparison: Comparison, now: datetime) -> Event:
    """Runs were set side by side; the event is about the better one, or the first if none is."""
    payload = run_events_pb2.RunCompared(
        runs=[str(run) for run in runs],
        metric=comparison.metric,
        better_run=comparison.better_run,
        verdict=comparison.verdict,
    )
    resource = comparison.better_run or str(runs[0])
    return Event.of("run", "compared", resource, payload, source=SOURCE, time=now)


def job_fact(event: Event) -> JobFact | None:
    """What an event says about the run of its job; None for facts that do not concern runs.

    Raises DecodeError or InvalidError for a payload that is not what the event's type says.
    """
    if event.fact not in _FACTS:
        return None
    payload_class, end_state = _FACTS[event.fact]
    job: training_job_pb2.TrainingJob = payload_class.FromString(event.payload).training_job
    name = parse_name(job.name, "trainingJobs", "training_job.name")
    return JobFact(
        event_id=event.id,
        run=Name(name.project, "runs", name.id),
        training_job=job.name,
        display_name=job.display_name,
        labels=dict(job.labels),
        params=(params := params_of(job.spec)),
        spec=job.spec.SerializeToString(deterministic=True),
        attempt=job.attempt,
        end_state=end_state,
        time=job.end_time.ToDatetime(UTC) if end_state and job.HasField("end_time") else event.time,
        experiment=job.labels.get(_SWEEP_LABEL, ""),
        lineage=lineage_from_proto(_lineage_of(job.spec, params)),
    )


def _lineage_of(spec: fine_tune_spec_pb2.FineTuneSpec, params: Mapping[str, str]) -> lineage_pb2.Lineage:
    """What the spec of a job says of its run's lineage; its attempts say the rest."""
    seed = params.get("optimization.seed")
    return lineage_pb2.Lineage(dataset=spec.dataset, seed=int(seed) if seed else None)


def params_of(spec: fine_tune_spec_pb2.FineTuneSpec) -> dict[str, str]:
    """The fields of a spec by path, e.g. `{"method": "lora", "method.lora.rank": "16", ...}`."""
    try:
        flat = spec_from_proto(spec).flatten()
    except InvalidError as error:  # written by a newer release: the run is worth more than its parameters
        _log.warning("spec_not_understood", error=error.message)
        return {}
    return {path: _text(value) for path, value in flat.items()}


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def goal_to_proto(goal: Goal | None) -> run_pb2.Goal:
    if goal is None:
        return run_pb2.GOAL_UNSPECIFIED
    return run_pb2.GOAL_MINIMIZE if goal is Goal.MINIMIZE else run_pb2.GOAL_MAXIMIZE


def _timestamp(instant: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def names_from_proto(names: Iterable[str], parent: str, field: str) -> list[Name]:
    """Names of runs of one project, each once, in order. Raises InvalidError naming the wrong one."""
    parsed: dict[Name, None] = {}
    for index, text in enumerate(names):
        name = parse_name(text, "runs", f"{field}[{index}]")
        if name.parent != parent:
            raise InvalidError.of(
                f"{field}[{index}]", f"{text} is not a run of {parent}: ask in its own project"
            )
        parsed[name] = None
    return list(parsed)
