"""`finemesh train certify`: prove on the mesh that a job which is killed and resumed is the same job."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from finemesh.client.cli.context import EXIT_FAILED, options, out
from finemesh.client.cli.output import print_error_state, print_json, progress_bar, short
from finemesh.client.cli.training import ENDED, Job, commands
from finemesh.client.watching import wait_for
from finemesh.v1 import tracking_service_pb2 as tracking_pb
from finemesh.v1 import training_service_pb2 as pb
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec

# Of losses, relative, where arithmetic is not exact: GPUs add up in another order each time.
TOLERANCE: Final = 0.02
_CHECKPOINTS: Final = 5
# A checkpoint is told of before the next but one is begun: the first, of step 1, by the end of step 3.
_FEWEST_STEPS: Final = 4
_MAX_POINTS: Final = 20_000
_INEXACT: Final = {FineTuneSpec.PRECISION_BF16, FineTuneSpec.PRECISION_FP16}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was compared, and whether it is as it has to be."""

    what: str
    holds: bool
    said: str


@commands("certify")
def certify(
    job: Annotated[str, typer.Option("--job", help="Id or full name of the job whose spec is certified.")],
    steps: Annotated[int, typer.Option(min=_FEWEST_STEPS, help="Train at most so many steps.")] = 20,
    seed: Annotated[int, typer.Option(help="Chooses the step to kill the probe after.")] = 0,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the two jobs and their runs.")] = False,
) -> None:
    """Prove that a job which is killed and resumed is the same job.

    Two short jobs with the spec of a job are submitted. The process of one, the probe, gets SIGKILL after a
    step that the seed chooses, or later, once a checkpoint is committed; the mesh resumes it from its last
    one. Then samples, losses and weights are compared: on CPUs in FP32 they have to be equal bit for bit.
    Exit code 1 if they are not, or if the probe was not resumed from a checkpoint.
    """
    connection = options.connection()
    given = connection.training.GetTrainingJob(
        pb.GetTrainingJobRequest(name=connection.name("trainingJobs", job))
    )
    spec = shortened(given.spec, steps)
    behind_first = min(spec.checkpoint.every_steps + 1, spec.optimization.max_steps - 1)
    kill_after = random.Random(seed).randrange(behind_first, spec.optimization.max_steps)  # noqa: S311  no secret
    pair = f"certify-{uuid.uuid4().hex[:8]}"
    names = [_submit(spec, f"{pair}-{kind}", step) for kind, step in (("straight", 0), ("probe", kill_after))]
    straight, probe = (_ended(name) for name in names)
    failed = [each for each in (straight, probe) if each.state != Job.STATE_SUCCEEDED]
    for each in failed:
        print_error_state(each.error)
    if failed:
        raise typer.Exit(EXIT_FAILED)
    verdicts = [*compare(straight, probe, *(_losses(each.run) for each in (straight, probe)))]
    _print(straight, probe, kill_after, verdicts)
    if not keep:
        for each in (straight, probe):
            connection.training.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name=each.name))
            connection.tracking.DeleteRun(tracking_pb.DeleteRunRequest(name=each.run))
    if not all(verdict.holds for verdict in verdicts):
        raise typer.Exit(EXIT_FAILED)


def shortened(spec: FineTuneSpec, steps: int) -> FineTuneSpec:
    """`spec` for at most so many steps, and at least four, with a few checkpoints on the way and no test."""
    cut = FineTuneSpec()
    cut.CopyFrom(spec)
    cut.test_split = ""
    cut.evaluation.baselines = False
    cut.optimization.max_steps = max(_FEWEST_STEPS, min(steps, spec.optimization.max_steps or steps))
    cut.checkpoint.every_steps = max(1, cut.optimization.max_steps // _CHECKPOINTS)
    cut.checkpoint.keep_best = False
    return cut


def compare(
    straight: Job, probe: Job, straight_losses: dict[int, float], probe_losses: dict[int, float]
) -> Iterator[Verdict]:
    """What the probe has in common with the job that was never stopped."""
    exact = straight.spec.resources.gpus == 0 and straight.spec.precision not in _INEXACT
    ours, theirs = straight.latest_checkpoint, probe.latest_checkpoint
    resumed = [each.step for each in probe.resume_certificates]
    said = f"resumed from step {resumed[-1]}" if resumed else "started ANEW, not from a checkpoint"
    yield Verdict("killed", bool(resumed), said if probe.attempt > 1 else "the probe was NOT killed")
    same = ours.sample_hash == theirs.sample_hash and all(each.matches for each in probe.resume_certificates)
    yield Verdict("samples", same, "the same, in the same order" if same else "OTHERS")
    differing = [
        step
        for step in sorted(straight_losses.keys() | probe_losses.keys())
        if not _near(straight_losses.get(step), probe_losses.get(step), 0.0 if exact else TOLERANCE)
    ]
    same = not differing and (not exact or ours.loss_digest == theirs.loss_digest)
    allowed = "equal bit for bit" if exact else f"equal within {TOLERANCE:.0%}"
    yield Verdict("losses", same, allowed if same else f"DIFFER, first at step {(differing or ['?'])[0]}")
    if exact:
        same = ours.weights_sha256 == theirs.weights_sha256
        yield Verdict("weights", same, "equal bit for bit" if same else "DIFFER")


def _near(one: float | None, other: float | None, allowed: float) -> bool:
    return one is not None and other is not None and abs(one - other) <= allowed * abs(one)


def _submit(spec: FineTuneSpec, job_id: str, kill_after_step: int) -> str:
    connection = options.connection()
    request = pb.CreateTrainingJobRequest(
        parent=connection.parent,
        training_job=Job(display_name=job_id, spec=spec, kill_after_step=kill_after_step),
        training_job_id=job_id,
        request_id=str(uuid.uuid4()),
    )
    return connection.training.CreateTrainingJob(request).name


def _ended(name: str) -> Job:
    request = pb.WatchTrainingJobRequest(name=name)
    with progress_bar(short(name)) as update:
        return wait_for(
            lambda: options.connection().training.WatchTrainingJob(request),
            lambda version: version.state in ENDED,
            lambda version: update(version.progress.fraction, version.progress.message),
        )


def _losses(run: str) -> dict[int, float]:
    connection = options.connection()
    request = tracking_pb.QueryMetricsRequest(
        parent=connection.parent, runs=[run], keys=["train/loss"], max_points=_MAX_POINTS
    )
    return {
        step: value
        for series in connection.tracking.QueryMetrics(request).series
        for step, value in zip(series.steps, series.values, strict=True)
    }


def _print(straight: Job, probe: Job, kill_after: int, verdicts: list[Verdict]) -> None:
    green = all(verdict.holds for verdict in verdicts)
    if options.json:
        facts = {verdict.what: {"holds": verdict.holds, "said": verdict.said} for verdict in verdicts}
        jobs = {"straight": straight.name, "probe": probe.name}
        print_json({"green": green, "steps": straight.step, "killed_after_step": kill_after, **jobs, **facts})
        return
    out.print(f"resume certificate: {'[green]green[/]' if green else '[red]RED[/]'}")
    out.print(f"  SIGKILL from step {kill_after} of {straight.step} on", highlight=False)
    for verdict in verdicts:
        colour = "green" if verdict.holds else "red"
        out.print(f"  {verdict.what}: [{colour}]{verdict.said}[/]", highlight=False)
