"""What an export is and how it moves: values and pure functions, over the state table of the core.

A function that moves an export returns a `Step`: the export as it is afterwards, and the names of the facts
to publish with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from finemesh.core.attempts import Attempt, Phase, RestartPolicy, WorkReport
from finemesh.core.errors import ErrorRecord
from finemesh.core.names import Name
from finemesh.core.spec.export import CheckpointSelection, ExportFormat
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.states import EXPORT, FIRST_ATTEMPT, LATER_ATTEMPT, ExportState, facts_of

State = ExportState


@dataclass(frozen=True, slots=True)
class SourceCheckpoint:
    """The checkpoint that is exported, as Training committed it."""

    step: int
    uri: str
    manifest_sha256: str
    size_bytes: int
    attempt: int
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    sample_hash: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Everything a package is made of, settled when the export is asked for.

    Attributes:
        spec: what was trained.
        dataset_uri: where the dataset is, for the golden set.
        lineage: facts for the model card: job, run, dataset and their digests.
        allow_drift: whether a package beyond the limits of its format is released.
        licence_override: why the licence of the base does not stand in the way, and which admin said so.
    """

    spec: FineTuneSpec
    checkpoint: SourceCheckpoint
    dataset_uri: str
    lineage: Mapping[str, str]
    allow_drift: bool = False
    licence_override: str = ""
    licence_override_subject: str = ""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How far the loaded package is from the trained model, on the golden set, in a fresh process.

    Attributes:
        evidence: all that was compared, and what differed: the message's fields after `runtime`, as JSON.
    """

    items: int
    max_logit_difference: float
    logit_tolerance: float
    token_agreement: float
    passed: bool
    runtime: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, order=True)
class PackageFile:
    """One file of a package; `path` is relative to it, `sha256` hexadecimal, `crc32` as ZIP files have it."""

    path: str
    size_bytes: int
    sha256: str
    crc32: int = 0


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What a finished attempt brings back. `manifest_sha256` is of the manifest that names every file."""

    parity: ParityReport
    size_bytes: int
    manifest_sha256: str
    files: tuple[PackageFile, ...] | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """A package made of a checkpoint. Times are UTC.

    Attributes:
        training_job: name of the job whose model it is.
        output_uri: below it each attempt writes to a place of its own, see `place_of`; once released, where
            the package is.
        fraction: share of the work that is done, 0 to 1; `message` says what is being done.
        attempt: number of the last attempt, 0 before the first.
        restarts: attempts that were lost or failed after they had been taken up.
        error: why it failed; in other states the cause of the last loss.
        revision: counts every change.
        group: what the exports of one request have in common; empty for one that was asked for alone.
        content_key: digest of all that decides what is in the package; equal for equal packages.
        waits_for: id of the export that is making the same package; empty unless there is one.
        made_by: name of the export that made the package, if another one did.
        files: of the package, by path; None while their checksums are not known.
        expire_time: when it is deleted, unless it is `pinned`.
        download_count: archives that were delivered to their end.
        link_count: how often URLs of all files were given out.
    """

    name: Name
    training_job: str
    choice: CheckpointSelection
    format: ExportFormat
    source: Source
    output_uri: str
    create_time: datetime
    update_time: datetime
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    state: State = State.QUEUED
    parity: ParityReport | None = None
    size_bytes: int = 0
    manifest_sha256: str = ""
    fraction: float = 0.0
    message: str = "waiting for a cluster"
    report_time: datetime | None = None
    attempt: int = 0
    restarts: int = 0
    error: ErrorRecord | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    revision: int = 0
    group: str = ""
    content_key: str = ""
    waits_for: str = ""
    made_by: str = ""
    files: tuple[PackageFile, ...] | None = None
    expire_time: datetime | None = None
    pinned: bool = False
    download_count: int = 0
    link_count: int = 0
    last_download_time: datetime | None = None

    @property
    def terminal(self) -> bool:
        return self.state in EXPORT.terminal


def place_of(export: Export, attempt: int) -> str:
    """Where an attempt writes: no two to the same place, so that one that was given up spoils nothing."""
    return f"{export.output_uri}/{attempt}"


@dataclass(frozen=True, slots=True)
class Step:
    """An export after a change, and the facts to publish about it."""

    export: Export
    facts: tuple[str, ...] = ()

    def then(self, target: State, now: datetime, **changes: Any) -> Step:
        """This step and, right after it, the one to `target`."""
        following = move(self.export, target, now, **changes)
        return Step(following.export, self.facts + following.facts)


def move(export: Export, target: State, now: datetime, **changes: Any) -> Step:
    """Bring `export` to `target`. Raises PreconditionError, reason ILLEGAL_TRANSITION."""
    case = FIRST_ATTEMPT if export.start_time is None else LATER_ATTEMPT
    facts = facts_of(EXPORT, export.state, target, case)
    if target in EXPORT.terminal:
        changes["end_time"] = now
    if target is State.RUNNING and export.start_time is None:
        changes["start_time"] = now
    return Step(replace(export, state=target, update_time=now, **changes), facts)


def reported(export: Export, attempt: Attempt, report: WorkReport, now: datetime) -> Step:
    """The attempt renewed its lease and said how far it is."""
    same_attempt = attempt.number == export.attempt
    seen = replace(
        export,
        attempt=attempt.number,
        fraction=max(export.fraction if same_attempt else 0.0, report.fraction),
        message=report.message or export.message,
        report_time=now,
        update_time=now,
    )
    return _at_phase(Step(seen), report.phase, now)


def _at_phase(step: Step, phase: Phase, now: datetime) -> Step:
    """Follow the attempt's phase forward, over the states in between."""
    if step.export.state is State.QUEUED and phase is not Phase.STARTING:
        step = step.then(State.RUNNING, now)
    if step.export.state is State.RUNNING and phase is Phase.VERIFYING:
        step = step.then(State.VERIFYING, now)
    return step


def completed(export: Export, attempt: Attempt, result: ExportResult, now: datetime) -> Step:
    """The attempt finished: what it made is released if it is proven, rejected if not."""
    seen = replace(export, attempt=attempt.number, message="", parity=result.parity)
    if export.state is State.CANCELLING:  # too late: its user has turned away from it
        return move(seen, State.CANCELLED, now)
    step = _at_phase(Step(seen), Phase.VERIFYING, now)
    drifts = export.source.allow_drift and bool(result.manifest_sha256)  # what does not run is not stored
    if not result.parity.passed and not drifts:
        return step.then(State.REJECTED, now, error=None)
    return step.then(
        State.SUCCEEDED,
        now,
        fraction=1.0,
        error=None,
        size_bytes=result.size_bytes,
        manifest_sha256=result.manifest_sha256,
        files=result.files,
        output_uri=place_of(export, attempt.number),
    )


def leftovers(before: Export, after: Export) -> list[str]:
    """URIs of what attempts may have written, or may still be writing, that is nobody's package.

    `before` is the export as its attempts knew it, `after` in a terminal state.
    """
    if after.state is State.SUCCEEDED:
        return [place_of(before, number) for number in range(1, after.attempt)]
    return [before.output_uri]


def shared(export: Export, maker: Export, now: datetime) -> Step:
    """`export`, nobody's work so far, is given the end of `maker`, which made the same package.

    Args:
        export: in state QUEUED.
        maker: SUCCEEDED, REJECTED or FAILED.
        now: the time of the change.
    """
    seen = replace(export, waits_for="", message="", parity=maker.parity)
    if maker.state is State.FAILED:
        return move(seen, State.FAILED, now, error=maker.error)
    step = _at_phase(Step(seen), Phase.VERIFYING, now)
    if maker.state is State.REJECTED:
        return step.then(State.REJECTED, now, made_by=str(maker.name))
    return step.then(
        State.SUCCEEDED,
        now,
        fraction=1.0,
        made_by=maker.made_by or str(maker.name),
        size_bytes=maker.size_bytes,
        manifest_sha256=maker.manifest_sha256,
        files=maker.files,
        output_uri=maker.output_uri,
    )


def awaiting(export: Export, maker: Export, now: datetime) -> Step:
    """`export` waits, without work of its own, for `maker`, which is making the same package."""
    message = f"waiting for {maker.name}, which is making the same package"
    return Step(replace(export, waits_for=maker.name.id, message=message, update_time=now))


def cancel_asked(export: Export, now: datetime, *, at_work: bool) -> Step:
    """The user wants the export to stop: at once when nobody works on it."""
    step = move(export, State.CANCELLING, now, message="stopping")
    return step if at_work else step.then(State.CANCELLED, now, message="")


def stopped(export: Export, now: datetime, error: ErrorRecord | None = None) -> Step:
    """An attempt at an export that is being cancelled has ended, in whatever way."""
    return move(export, State.CANCELLED, now, error=error or export.error, message="")


@dataclass(frozen=True, slots=True)
class Retry:
    """A step after which the next attempt starts, when `delay_seconds` have passed; never if that is None."""

    step: Step
    delay_seconds: float | None


def failed(
    export: Export, error: ErrorRecord, now: datetime, *, final: bool, counts: bool, policy: RestartPolicy
) -> Retry:
    """An attempt failed or was lost: the export starts again, or is given up.

    Args:
        export: in state QUEUED, RUNNING or VERIFYING.
        error: what happened to the attempt.
        now: the time of the change.
        final: whether another attempt would fail the same way.
        counts: whether it uses up a restart; not when the cluster never took the attempt up.
        policy: budget and back-off.
    """
    delay_seconds = policy.delay_seconds(export.restarts) if counts else policy.first_delay_seconds
    if final or delay_seconds is None:
        if not final:
            spent = f"{error.message}; given up after {export.restarts} restarts"
            error = replace(error, message=spent)
        return Retry(move(export, State.FAILED, now, error=error, message=""), None)
    changes: dict[str, Any] = {
        "restarts": export.restarts + counts,
        "error": error,
        "message": f"restarting: {error.message}",
        "fraction": 0.0,
    }
    if export.state is State.QUEUED:
        return Retry(Step(replace(export, update_time=now, **changes)), delay_seconds)
    return Retry(move(export, State.QUEUED, now, **changes), delay_seconds)
