"""The use cases of the Export service: one method per RPC, one per thing that clusters report."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from finemesh.core.attempts import Attempt, Completion, Outcome, RestartPolicy, WorkReport
from finemesh.core.clock import Clock
from finemesh.core.errors import ErrorRecord, InvalidError, PreconditionError
from finemesh.core.names import Name, parse_name
from finemesh.core.spec.export import CheckpointSelection, ExportFormat
from finemesh.core.spec.finetune import TEXT_TOWERS, Lora
from finemesh.export import domain
from finemesh.export.domain import Export, ExportResult, Retry, Source, SourceCheckpoint, State
from finemesh.export.ports import (
    Datasets,
    JobFacts,
    Jobs,
    PackageFile,
    Packages,
    PageQuery,
    RequestKey,
    Store,
    Unit,
)

log: Final = structlog.get_logger(__name__)

_STOPPED: Final = ErrorRecord("UNAVAILABLE", "ATTEMPT_STOPPED", "the attempt stopped without being told to")


@dataclass(frozen=True, slots=True)
class Draft:
    """An export as its user asks for it."""

    name: Name
    training_job: str
    choice: CheckpointSelection
    format: ExportFormat
    display_name: str
    labels: Mapping[str, str]


class ExportService:
    """Exports from the request to their release or their end."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        datasets: Datasets,
        packages: Packages,
        *,
        bucket: str,
        policy: RestartPolicy,
        clock: Clock,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._datasets = datasets
        self._packages = packages
        self._bucket = bucket
        self._policy = policy
        self._clock = clock

    async def check(self, draft: Draft) -> Export:
        """The export as it would be accepted now.

        Raises:
            NotFoundError: the job, or its dataset, which the golden set is taken from, is not there.
            PreconditionError: TRAINING_JOB_NOT_READY, NO_CHECKPOINT.
            InvalidError: the format does not go with the method, or there is none for the task.
            UnavailableError: Training or DataPrep is away.
        """
        job = await self._jobs.describe(draft.training_job)
        checkpoint = _choose(job, draft.choice)
        if job.spec.task not in TEXT_TOWERS:
            raise InvalidError.of(
                "export.training_job",
                f"{job.name} learnt {job.spec.task}, and packages hold models of language: take the weights "
                "of its checkpoints, which are safetensors",
                reason="FORMAT_UNSUITABLE",
            )
        if draft.format is ExportFormat.ADAPTER and not isinstance(job.spec.method, Lora):
            raise InvalidError.of(
                "export.format", f"{job.name} was trained in full and has no adapter: use MERGED"
            )
        lineage = {
            "training_job": job.name,
            "run": job.run,
            "dataset": job.spec.dataset,
            "dataset_digest": await self._datasets.digest(job.spec.dataset),
            "spec_digest": job.spec.fingerprint(),
            "checkpoint_digest": checkpoint.manifest_sha256,
        }
        now = self._clock.now()
        return Export(
            name=draft.name,
            training_job=draft.training_job,
            choice=draft.choice,
            format=draft.format,
            source=Source(job.spec, checkpoint, self._uri(job.spec.dataset), lineage),
            output_uri=self._uri(str(draft.name)),
            create_time=now,
            update_time=now,
            display_name=draft.display_name,
            labels=draft.labels,
        )

    async def create(self, draft: Draft, key: RequestKey | None) -> Export:
        """Accept an export; or return the one that the same request made before.

        Raises what `check` raises, and AlreadyExistsError: EXPORT_EXISTS or REQUEST_ID_REUSED.
        """
        if key is not None:
            async with self._store.read() as view:
                repeated = await view.is_known(key)
            if repeated:  # whatever has become of the job since
                async with self._store.begin() as unit:
                    earlier = await unit.claim(key, draft.name)
                    return await unit.export(earlier or draft.name)
        export = await self.check(draft)
        async with self._store.begin() as unit:
            earlier = await unit.claim(key, draft.name)
            if earlier is not None:
                return await unit.export(earlier)
            await unit.add(export)
            await unit.dispatch(export.name)
        log.info("export_accepted", export=str(export.name), format=export.format)
        return export

    async def get(self, name: Name) -> Export:
        """Raises NotFoundError."""
        async with self._store.read() as view:
            return await view.export(name)

    async def list(self, project: str, query: PageQuery) -> tuple[list[Export], str]:
        """One page of a project's exports, and the token of the next."""
        async with self._store.read() as view:
            return await view.exports(project, query)

    async def cancel(self, name: Name) -> Export:
        """Stop an export; again changes nothing. Raises PreconditionError for one that has ended."""
        async with self._store.begin() as unit:
            export = await unit.locked(name)
            if export.state in {State.CANCELLING, State.CANCELLED}:
                return export
            if export.terminal:
                raise PreconditionError(
                    f"{name} has {export.state} already: there is nothing to cancel",
                    reason="EXPORT_ENDED",
                    metadata={"export": str(name), "state": export.state},
                )
            at_work = await unit.request_cancel(name) is not None
            return await unit.save(domain.cancel_asked(export, self._clock.now(), at_work=at_work))

    async def delete(self, name: Name) -> None:
        """Delete an export that has ended, with its package. Raises PreconditionError, reason EXPORT_LIVE."""
        export = await self.get(name)
        if not export.terminal:
            raise PreconditionError(
                f"{name} is {export.state}: cancel it and wait for its end, then delete it",
                reason="EXPORT_LIVE",
                metadata={"export": str(name), "state": export.state},
            )
        # Files first: whatever fails in between, the export is still there to be deleted again.
        await self._packages.delete(name)
        async with self._store.begin() as unit:
            await unit.remove(name)

    async def files(self, name: Name) -> Sequence[PackageFile]:
        """The files of a released package, by path. Raises PreconditionError, reason EXPORT_NOT_RELEASED."""
        export = await self.get(name)
        if export.state is not State.SUCCEEDED:
            raise PreconditionError(
                f"{name} is {export.state}: only a package that has SUCCEEDED is released",
                reason="EXPORT_NOT_RELEASED",
                metadata={"export": str(name), "state": export.state},
            )
        return await self._packages.files(name)

    def read(self, name: Name, path: str) -> AsyncIterator[bytes]:
        """The content of one of these files, in chunks."""
        return self._packages.read(name, path)

    # What clusters report, each in the transaction of the attempt's own change.

    async def take_report(self, unit: Unit, attempt: Attempt, report: WorkReport) -> None:
        """An attempt renewed its lease."""
        export = await unit.locked(parse_name(attempt.resource, "exports"))
        await unit.save(domain.reported(export, attempt, report, self._clock.now()))

    async def take_completion(
        self, unit: Unit, attempt: Attempt, completion: Completion[ExportResult]
    ) -> None:
        """An attempt ended and says how."""
        export = await unit.locked(parse_name(attempt.resource, "exports"))
        now = self._clock.now()
        if completion.result is not None:
            await unit.save(domain.completed(export, attempt, completion.result, now))
        elif export.state is State.CANCELLING:
            await unit.save(domain.stopped(export, now, completion.error))
        else:
            final = completion.final and completion.outcome is not Outcome.CANCELLED
            error = completion.error or _STOPPED
            retry = domain.failed(export, error, now, final=final, counts=True, policy=self._policy)
            await self._retry(unit, retry)

    async def take_loss(self, unit: Unit, attempt: Attempt) -> None:
        """An attempt's lease ran out."""
        export = await unit.locked(parse_name(attempt.resource, "exports"))
        now, error = self._clock.now(), attempt.error or _STOPPED
        if export.state is State.CANCELLING:
            await unit.save(domain.stopped(export, now, error))
            return
        counts = not attempt.never_started
        retry = domain.failed(export, error, now, final=False, counts=counts, policy=self._policy)
        await self._retry(unit, retry)

    async def _retry(self, unit: Unit, retry: Retry) -> None:
        export = await unit.save(retry.step)
        if retry.delay_seconds is not None:
            await unit.dispatch(export.name, delay_seconds=retry.delay_seconds)

    def _uri(self, name: str) -> str:
        return f"s3://{self._bucket}/{name}"


def _choose(job: JobFacts, choice: CheckpointSelection) -> SourceCheckpoint:
    """The checkpoint to export. Raises PreconditionError."""
    if job.state != "SUCCEEDED":
        raise PreconditionError(
            f"export.training_job: {job.name} is {job.state}: export it once it has SUCCEEDED",
            reason="TRAINING_JOB_NOT_READY",
            metadata={"training_job": job.name, "state": job.state},
        )
    if not job.checkpoints:
        raise PreconditionError(
            f"export.training_job: {job.name} has no checkpoint left",
            reason="NO_CHECKPOINT",
            metadata={"training_job": job.name},
        )
    best = next((each for each in job.checkpoints if each.best), None)
    return best if best and choice is CheckpointSelection.BEST else job.checkpoints[0]
