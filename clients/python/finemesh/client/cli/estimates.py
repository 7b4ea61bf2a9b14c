"""`finemesh train estimate`: what a fine-tune would take, without submitting it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, err, options, out
from finemesh.client.cli.output import print_facts, print_json
from finemesh.client.cli.specs import (
    Dataset,
    Given,
    Gpus,
    Model,
    Overrides,
    SpecPath,
    TaskWord,
    as_seen_from_here,
    fail,
    lint,
    to_message,
)
from finemesh.client.cli.training import commands
from finemesh.client.figures import size
from finemesh.client.hub_models import cached_files, hub_files
from finemesh.client.model_files import model_files
from finemesh.v1 import estimate_pb2
from finemesh.v1 import training_service_pb2 as pb
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec

Estimate = estimate_pb2.TrainingEstimate
_FITS = {
    Estimate.FIT_UNKNOWN: "not known: no cluster tells how much memory it has",
    Estimate.FIT_FITS: "[green]yes[/]",
    Estimate.FIT_UNSURE: "[yellow]maybe[/]: the interval holds what there is",
    Estimate.FIT_TOO_LARGE: "[red]no[/]",
}


@commands("estimate")
def estimate(
    spec_file: SpecPath = None,
    overrides: Overrides = None,
    model: Model = "",
    dataset: Dataset = "",
    task: TaskWord = "",
    gpus: Gpus = 0,
    probe: Annotated[
        Path | None,
        typer.Option(help="What `python -m finemesh.finetune probe` printed.", dir_okay=False, exists=True),
    ] = None,
    longest_batch_tokens: Annotated[
        int, typer.Option(help="Tokens of the largest batch, as a preflight says.", min=0)
    ] = 0,
) -> None:
    """Say what a fine-tune would take in memory, time and money. Exit code 1 if it fits nowhere."""
    connection = options.connection()
    given = Given(file=spec_file, model=model, dataset=dataset, task=task, gpus=gpus)
    response = lint(as_seen_from_here(to_message(given.read(overrides or []))))
    if not response.HasField("spec"):
        fail([f"{finding.field}: {finding.message}" for finding in response.findings])
    request = pb.EstimateTrainingJobRequest(
        parent=connection.parent,
        spec=response.spec,
        base_model=_files(response.spec),
        longest_batch_tokens=longest_batch_tokens,
        probe=_probe(probe) if probe else None,
    )
    found = connection.training.EstimateTrainingJob(request)
    if options.json:
        print_json(found)
    else:
        print_estimate(found)
    if found.fit == Estimate.FIT_TOO_LARGE:
        raise typer.Exit(EXIT_FAILED)


def _files(spec: FineTuneSpec) -> estimate_pb2.BaseModelFiles | None:
    """What is known here of the base model; nothing of one on S3, which the mesh reads by itself."""
    model, revision = spec.base_model, spec.base_model_revision
    if model.startswith("s3://"):
        return None
    found = model_files(model) or cached_files(model, revision)
    if found is None and not model.startswith(("/", ".", "~")):
        try:
            return hub_files(model, revision)
        except LookupError as error:
            fail([f"{model} is no folder here, and {error}: give the folder of the model by --model"])
    if found is None:
        fail([f"{model} is no folder here: give the folder of the model by --model"])
    return found


def print_estimate(found: estimate_pb2.TrainingEstimate) -> None:
    """An estimate for people."""
    gpu_hours = _between(found.gpu_hours, _amount) if found.HasField("gpu_hours") else ""
    cost = f"{_between(found.cost, _amount)} {escape(found.currency)}" if found.HasField("cost") else ""
    print_facts(
        [
            ("memory of a worker", _bytes(found.peak_memory_bytes)),
            ("room", size(found.room_bytes) if found.room_bytes else ""),
            ("fits", _FITS.get(found.fit, "")),
            ("a step", f"{_between(found.step_seconds, '{:.3g}'.format)} s"),
            (
                "all steps",
                f"{found.steps}: {_between(found.seconds, '{:.3g}'.format)} s" if found.steps else "",
            ),
            ("GPU-hours", gpu_hours),
            ("cost", cost),
            ("by", _basis(found)),
            ("past error", _past(found.past_memory_error, found.family)),
        ]
    )
    for path, value in sorted(found.nearest.changes.items()):
        out.print(f"fits with [bold]{escape(path)}[/] = {escape(value)}", highlight=False)


def _basis(found: estimate_pb2.TrainingEstimate) -> str:
    jobs = found.corrected_by_jobs
    closed = f"the closed form of {escape(found.family)}"
    return f"{closed}, corrected by the last {jobs} jobs" if jobs else closed


def _past(past: estimate_pb2.PastError, family: str) -> str:
    if not past.jobs:
        return "none known: no job of this family and method has finished here"
    inside = f"within the interval {past.inside} of {past.jobs}"
    return f"last {past.jobs} jobs of {escape(family)}: median {past.median_error:.0%}, {inside}"


def _bytes(interval: estimate_pb2.EstimateInterval) -> str:
    low, likely, high = (size(int(each)) for each in (interval.low, interval.likely, interval.high))
    return f"{likely} ({low} to {high})"


def _amount(value: float) -> str:
    """Of hours or money: what a tiny run takes is not 0.00."""
    return f"{value:,.2f}" if value >= 1 else f"{value:.2g}"


def _between(interval: estimate_pb2.EstimateInterval, tell: Callable[[float], str]) -> str:
    low, likely, high = (tell(each) for each in (interval.low, interval.likely, interval.high))
    return f"{likely} ({low} to {high})"


def _probe(path: Path) -> estimate_pb2.MeasuredProbe:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return estimate_pb2.MeasuredProbe(
            peak_memory_bytes=told["peak_memory_bytes"], step_seconds=told["step_seconds"]
        )
    except (ValueError, KeyError, TypeError) as error:
        err.print(f"[red]error:[/] {path} is not what a probe prints: {error}", highlight=False)
        raise typer.Exit(2) from error
