"""`finemesh train`: submit, follow and stop fine-tunes."""

from __future__ import annotations

import uuid
from textwrap import shorten
from typing import Annotated

import typer
from rich.markup import escape

from finemesh.client.cli.context import EXIT_FAILED, EXIT_USAGE, Commands, err, options
from finemesh.client.cli.output import (
    duration,
    enum_name,
    moment,
    print_error_state,
    print_facts,
    print_json,
    print_list,
    short,
    styled,
    wait_with_progress,
)
from finemesh.client.cli.paging import Filter, Limit, OrderBy, collect
from finemesh.client.cli.specs import (
    LEVELS,
    Dataset,
    Given,
    Gpus,
    Model,
    Overrides,
    SpecPath,
    TaskWord,
    as_seen_from_here,
    described,
    is_error,
    lint,
    to_message,
)
from finemesh.client.figures import size
from finemesh.client.hub_models import cached_files
from finemesh.client.model_files import model_files
from finemesh.specfile import SpecFile
from finemesh.v1 import training_job_pb2
from finemesh.v1 import training_service_pb2 as pb
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec

commands = Commands("train", "Submit, follow and stop fine-tunes.")

Job = training_job_pb2.TrainingJob
ENDED = {Job.STATE_SUCCEEDED, Job.STATE_FAILED, Job.STATE_CANCELLED}

JobId = Annotated[str, typer.Argument(help="Id or full name of the job.")]


@commands("submit")
def submit(
    spec_file: SpecPath = None,
    overrides: Overrides = None,
    preset: Annotated[str, typer.Option(help=f"Start from a preset: {LEVELS}.")] = "",
    model: Model = "",
    dataset: Dataset = "",
    task: TaskWord = "",
    gpus: Gpus = 0,
    new_id: Annotated[str, typer.Option("--id", help="Id of the new job; made up if left out.")] = "",
    display_name: Annotated[str, typer.Option("--name", help="Name for people.")] = "",
    priority: Annotated[int, typer.Option(help="Higher runs first.")] = 0,
    max_hours: Annotated[float, typer.Option(min=0, help="Train no longer than this; 0: for ever.")] = 0,
    *,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end and show progress.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check everything and submit nothing; the exit code is not 0 if it would be refused.",
        ),
    ] = False,
    oversized: Annotated[
        bool, typer.Option("--oversized", help="Submit it even if it is estimated to fit nowhere.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Submit nothing if the linter warns.")] = False,
) -> None:
    """Submit a fine-tune, from a spec file or a preset, with some fields changed, or from fields alone."""
    connection = options.connection()
    given = Given(file=spec_file, preset=preset, model=model, dataset=dataset, task=task, gpus=gpus)
    spec = _linted(given.read(overrides or []), strict=strict)
    request = pb.CreateTrainingJobRequest(
        parent=connection.parent,
        training_job=Job(
            display_name=display_name,
            spec=spec,
            priority=priority,
            max_run_seconds=max_hours * 3600,
            admit_oversized=oversized,
        ),
        training_job_id=new_id,
        request_id=str(uuid.uuid4()),
        validate_only=check,
        base_model=model_files(spec.base_model) or cached_files(spec.base_model, spec.base_model_revision),
    )
    job = connection.training.CreateTrainingJob(request)
    if check:
        _print_checked(job)
        return
    if wait:
        job = _follow(job.name)
    if not (wait and options.json):
        show_job(job)
    if job.state in ENDED - {Job.STATE_SUCCEEDED}:
        raise typer.Exit(EXIT_FAILED)


def _linted(file: SpecFile, *, strict: bool) -> FineTuneSpec:
    """The spec with every default written out; what the linter says goes to people first."""
    response = lint(as_seen_from_here(to_message(file)))
    for finding in response.findings:
        err.print(described(finding, file), highlight=False, soft_wrap=True)
    if any(is_error(finding) for finding in response.findings):
        raise typer.Exit(EXIT_USAGE)
    if strict and response.findings:
        err.print("[red]error:[/] nothing was submitted, for --strict takes no warnings", highlight=False)
        raise typer.Exit(EXIT_FAILED)
    return response.spec


def _print_checked(job: training_job_pb2.TrainingJob) -> None:
    """What would have been submitted, and whether it would fit."""
    if options.json:
        print_json(job)
        return
    estimate = job.estimate
    if job.HasField("estimate"):
        memory = estimate.peak_memory_bytes
        err.print(f"a worker needs {size(int(memory.likely))}, at most {size(int(memory.high))}")
    if estimate.fit in (estimate.FIT_UNSURE, estimate.FIT_TOO_LARGE):
        changes = ", ".join(f"{path} = {value}" for path, value in sorted(estimate.nearest.changes.items()))
        remedy = f"; it fits with {escape(changes)}" if changes else ""
        there = f"the largest place has {size(estimate.room_bytes)}"
        err.print(f"[yellow]it may not fit[/]: {there}{remedy}", highlight=False, soft_wrap=True)
    err.print("[green]the spec is sound[/]; nothing was submitted")


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
        ("id", "name", "state", "step", "attempt", "took", "outlook", "created"),
        lambda job: (
            short(job.name),
            escape(job.display_name),
            styled(enum_name(job, "state")),
            f"{job.step}/{job.total_steps}" if job.total_steps else "",
            job.attempt or "",
            duration(job.start_time, job.end_time),
            _outlook(job),
            moment(job.create_time),
        ),
        "no jobs; submit one with `finemesh train submit`",
    )


def _outlook(job: training_job_pb2.TrainingJob) -> str:
    """When it ends; before it runs, what it waits for; afterwards, what it failed for."""
    if job.state == Job.STATE_FAILED:
        return escape(shorten(job.error.message, 60, placeholder=" …"))
    if job.HasField("estimated_end_time"):
        return f"ends about {moment(job.estimated_end_time)}"
    return "" if job.state in ENDED else escape(job.progress.message)


@commands("show")
def show(job: JobId) -> None:
    """Show one job: its state, worker, checkpoints and error."""
    connection = options.connection()
    show_job(
        connection.training.GetTrainingJob(
            pb.GetTrainingJobRequest(name=connection.name("trainingJobs", job))
        )
    )


@commands("watch")
def watch(job: JobId) -> None:
    """Follow a job to its end. Exit code 1 if it does not succeed."""
    ended = _follow(options.connection().name("trainingJobs", job))
    if not options.json:
        show_job(ended)
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
    show_job(connection.training.CancelTrainingJob(request))


@commands("pause")
def pause(job: JobId) -> None:
    """Let a job wait, holding nothing. A running one saves a checkpoint first."""
    connection = options.connection()
    request = pb.PauseTrainingJobRequest(name=connection.name("trainingJobs", job))
    show_job(connection.training.PauseTrainingJob(request))


@commands("resume")
def resume(job: JobId) -> None:
    """Let a paused job go on from its last checkpoint."""
    connection = options.connection()
    request = pb.ResumeTrainingJobRequest(name=connection.name("trainingJobs", job))
    show_job(connection.training.ResumeTrainingJob(request))


@commands("priority")
def set_priority(
    job: JobId, priority: Annotated[int, typer.Argument(help="Higher runs first; may be negative.")]
) -> None:
    """Give a job that has not ended another priority."""
    connection = options.connection()
    request = pb.SetTrainingJobPriorityRequest(name=connection.name("trainingJobs", job), priority=priority)
    show_job(connection.training.SetTrainingJobPriority(request))


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
        lambda version: version.state in ENDED,
    )


def show_job(job: training_job_pb2.TrainingJob) -> None:
    """A job for people, or as JSON. What it went on after is no error of it."""
    if options.json:
        print_json(job)
        return
    checkpoint = job.latest_checkpoint
    print_facts(
        [
            ("job", job.name),
            ("name", escape(job.display_name)),
            ("state", styled(enum_name(job, "state"))),
            ("priority", job.priority or ""),
            ("now", "" if job.state in ENDED else escape(job.progress.message)),
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
            (
                "micro batch",
                f"{job.micro_batch_size} rows, for memory ran out with more" if job.micro_batch_size else "",
            ),
            ("peak memory", size(job.peak_memory_bytes) if job.peak_memory_bytes else ""),
            ("run", job.run),
            ("took", duration(job.start_time, job.end_time)),
            ("ends about", moment(job.estimated_end_time)),
            ("went on after", "" if job.state == Job.STATE_FAILED else escape(job.error.message)),
        ]
    )
    for certificate in job.resume_certificates:
        verdict = "[green]matches[/]" if certificate.matches else "[red]DIFFERS[/]"
        err.print(
            f"attempt {certificate.attempt} resumed from step {certificate.step}: sample order {verdict}"
        )
    if job.state == Job.STATE_FAILED:
        print_error_state(job.error)
