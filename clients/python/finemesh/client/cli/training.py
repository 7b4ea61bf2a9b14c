"""`finemesh train`: submit, follow and stop fine-tunes."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, Commands, err, options
from finemesh.client.cli.output import (
    duration,
    enum_name,
    moment,
    print_error_state,
    print_facts,
    print_json,
    print_list,
    short,
    size,
    styled,
    wait_with_progress,
)
from finemesh.client.cli.paging import Filter, Limit, OrderBy, collect
from finemesh.v1 import fine_tune_spec_pb2, training_job_pb2
from finemesh.v1 import training_service_pb2 as pb

commands = Commands("train", "Submit, follow and stop fine-tunes.")

Job = training_job_pb2.TrainingJob
_ENDED = {Job.STATE_SUCCEEDED, Job.STATE_FAILED, Job.STATE_CANCELLED}

JobId = Annotated[str, typer.Argument(help="Id or full name of the job.")]


@commands("submit")
def submit(
    spec_file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="Spec as JSON: the fields of FineTuneSpec.", exists=True, dir_okay=False
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-o", help="A field of the spec, e.g. -o lora.rank=16. May be repeated."),
    ] = None,
    new_id: Annotated[str, typer.Option("--id", help="Id of the new job; made up if left out.")] = "",
    display_name: Annotated[str, typer.Option("--name", help="Name for people.")] = "",
    priority: Annotated[int, typer.Option(help="Higher runs first.")] = 0,
    *,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end and show progress.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Check everything and submit nothing.")] = False,
) -> None:
    """Submit a fine-tune, from a spec file, from fields, or from a file with some fields changed.

    Example: finemesh train submit -o task=TASK_LANGUAGE -o base_model=./llama -o dataset=chat -o lora.rank=16
    """
    connection = options.connection()
    spec = read_spec(spec_file, overrides or [])
    spec.dataset = connection.name("datasets", spec.dataset) if spec.dataset else ""
    request = pb.CreateTrainingJobRequest(
        parent=connection.parent,
        training_job=Job(display_name=display_name, spec=spec, priority=priority),
        training_job_id=new_id,
        request_id=str(uuid.uuid4()),
        validate_only=check,
    )
    job = connection.training.CreateTrainingJob(request)
    if check:
        err.print("[green]the spec is sound[/]; nothing was submitted")
        return
    if wait:
        job = _follow(job.name)
    if not (wait and options.json):
        _print_job(job)
    if job.state in _ENDED - {Job.STATE_SUCCEEDED}:
        raise typer.Exit(EXIT_FAILED)


def read_spec(path: Path | None, overrides: list[str]) -> fine_tune_spec_pb2.FineTuneSpec:
    """The spec of a file with fields set by path; values are JSON, or else text."""
    document: dict[str, Any] = {}
    if path:
        try:
            document = json.loads(path.read_text())
        except ValueError as error:
            raise typer.BadParameter(f"{path}: {error}", param_hint="--file") from error
    for override in overrides:
        field, equals, text = override.partition("=")
        if not equals:
            raise typer.BadParameter(f"{override!r}: write field=value", param_hint="--set")
        *parents, leaf = field.split(".")
        target = document
        for parent in parents:
            target = target.setdefault(parent, {})
        try:
            target[leaf] = json.loads(text)
        except ValueError:
            target[leaf] = text
    try:
        return json_format.ParseDict(document, fine_tune_spec_pb2.FineTuneSpec())
    except json_format.ParseError as error:
        raise typer.BadParameter(str(error), param_hint="--file or --set") from error


@commands("list")
def list_jobs(filter_by: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List the jobs of the project, newest first."""
    connection = options.connection()
    request = pb.ListTrainingJobsRequest(parent=connection.parent, filter=filter_by, order_by=order_by)
    found = collect(
        connection.training.ListTrainingJobs, request, lambda page: iter(page.training_jobs), limit
    )
    print_list(
        found,
        ("id", "name", "state", "step", "attempt", "took", "created"),
        lambda job: (
            short(job.name),
            escape(job.display_name),
            styled(enum_name(job, "state")),
            f"{job.step}/{job.total_steps}" if job.total_steps else "",
            job.attempt or "",
            duration(job.start_time, job.end_time),
            moment(job.create_time),
        ),
        "no jobs; submit one with `finemesh train submit`",
    )


@commands("show")
def show(job: JobId) -> None:
    """Show one job: its state, worker, checkpoints and error."""
    connection = options.connection()
    _print_job(
        connection.training.GetTrainingJob(
            pb.GetTrainingJobRequest(name=connection.name("trainingJobs", job))
        )
    )


@commands("watch")
def watch(job: JobId) -> None:
    """Follow a job to its end. Exit code 1 if it does not succeed."""
    ended = _follow(options.connection().name("trainingJobs", job))
    if not options.json:
        _print_job(ended)
    if ended.state != Job.STATE_SUCCEEDED:
        raise typer.Exit(EXIT_FAILED)


@commands("checkpoints")
def checkpoints(job: JobId, limit: Limit = 50) -> None:
    """List the checkpoints of a job, latest first."""
    connection = options.connection()
    request = pb.ListCheckpointsRequest(parent=connection.name("trainingJobs", job))
    found = collect(connection.training.ListCheckpoints, request, lambda page: iter(page.checkpoints), limit)
    print_list(
        found,
        ("step", "attempt", "best", "size", "committed", "where"),
        lambda c: (
            c.step,
            c.attempt,
            "*" if c.best else "",
            size(c.size_bytes),
            moment(c.create_time),
            c.uri,
        ),
        "no checkpoints yet",
    )


@commands("cancel")
def cancel(job: JobId) -> None:
    """Stop a job. A running one saves a checkpoint first."""
    connection = options.connection()
    request = pb.CancelTrainingJobRequest(name=connection.name("trainingJobs", job))
    _print_job(connection.training.CancelTrainingJob(request))


@commands("delete")
def delete(job: JobId) -> None:
    """Delete a job that has ended, with its checkpoints. Its run stays."""
    connection = options.connection()
    connection.training.DeleteTrainingJob(
        pb.DeleteTrainingJobRequest(name=connection.name("trainingJobs", job))
    )


def _follow(name: str) -> training_job_pb2.TrainingJob:
    connection = options.connection()
    request = pb.WatchTrainingJobRequest(name=name)
    return wait_with_progress(
        f"training {short(name)}",
        lambda: connection.training.WatchTrainingJob(request),
        lambda version: version.state in _ENDED,
    )


def _print_job(job: training_job_pb2.TrainingJob) -> None:
    if options.json:
        print_json(job)
        return
    checkpoint = job.latest_checkpoint
    print_facts(
        [
            ("job", job.name),
            ("name", escape(job.display_name)),
            ("state", styled(enum_name(job, "state"))),
            ("dataset", job.spec.dataset),
            ("base model", escape(job.spec.base_model)),
            ("step", f"{job.step} of {job.total_steps}" if job.total_steps else ""),
            ("attempt", job.attempt or ""),
            ("worker", f"{job.worker.cluster} node {job.worker.node_id[:12]}" if job.worker.node_id else ""),
            ("processes", ", ".join(str(pid) for pid in job.worker.pids)),
            ("GPUs", ", ".join(job.worker.gpu_ids)),
            (
                "checkpoint",
                f"step {checkpoint.step}, {size(checkpoint.size_bytes)}" if checkpoint.uri else "",
            ),
            ("rows", ", ".join(f"{use} {count}" for use, count in sorted(job.row_usage.items()))),
            ("peak memory", size(job.peak_memory_bytes) if job.peak_memory_bytes else ""),
            ("run", job.run),
            ("took", duration(job.start_time, job.end_time)),
        ]
    )
    for certificate in job.resume_certificates:
        verdict = "[green]matches[/]" if certificate.matches else "[red]DIFFERS[/]"
        err.print(
            f"attempt {certificate.attempt} resumed from step {certificate.step}: sample order {verdict}"
        )
    print_error_state(job.error)
