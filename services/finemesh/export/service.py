"""The use cases of the Export service: one method per RPC, one per thing that clusters report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from finemesh.core.attempts import Attempt, Completion, Outcome, RestartPolicy, WorkReport
from finemesh.core.clock import Clock
from finemesh.core.errors import ErrorRecord, FinemeshError, InvalidError, PreconditionError
from finemesh.core.names import Name, new_id, parse_name
from finemesh.core.requests import PageRequest, RequestKey
from finemesh.core.spec.export import CheckpointSelection, ExportFormat, refusal_of
from finemesh.export import domain
from finemesh.export.checkpoints import choose
from finemesh.export.domain import Export, ExportResult, Retry, Source, State, Step
from finemesh.export.ports import Datasets, Jobs, Packages, Store, Unit
from finemesh.export.retention import Retention
from finemesh.export.sharing import Sharing

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
    step: int = 0
    options: str = ""  # digest of all that is asked of the package beside its format
    expire_time: datetime | None = None
    pinned: bool = False
    allow_drift: bool = False
    licence_override: str = ""
    licence_override_subject: str = ""


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
        release: str,
        grace_seconds: float,
    ) -> None:
        """`release` is that of Finemesh: another one may make another package of the same. An attempt that
        was given up writes nothing any more after `grace_seconds`.
        """
        self._store = store
        self._sharing = Sharing(store, clock)
        self._release = release
        self._grace = timedelta(seconds=grace_seconds)
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
            InvalidError: FORMAT_UNSUITABLE, the format does not go with the task or the method.
            UnavailableError: Training or DataPrep is away.
        """
        job = await self._jobs.describe(draft.training_job)
        checkpoint = choose(job, draft.choice, draft.step)
        if why := refusal_of(draft.format, job.spec):
            message = f"no {draft.format} of {job.name}: {why}"
            raise InvalidError.of("export.format", message, reason="FORMAT_UNSUITABLE")
        lineage = {
            "training_job": job.name,
            "run": job.run,
            "dataset": job.spec.dataset,
            "dataset_digest": await self._datasets.digest(job.spec.dataset),
            "spec_digest": job.spec.fingerprint(),
            "checkpoint_digest": checkpoint.manifest_sha256,
        }
        if job.state != "SUCCEEDED":
            lineage["training_job_state"] = job.state
        if draft.licence_override:
            lineage["licence_override"] = f"{draft.licence_override_subject}: {draft.licence_override}"
        now = self._clock.now()
        content = [self._release, draft.format, draft.options, *sorted(lineage.items())]
        return Export(
            name=draft.name,
            training_job=draft.training_job,
            choice=draft.choice,
            format=draft.format,
            source=Source(
                job.spec,
                checkpoint,
                self._uri(job.spec.dataset),
                lineage,
                draft.allow_drift,
                draft.licence_override,
                draft.licence_override_subject,
            ),
            output_uri=self._uri(f"projects/{draft.name.project}/packages/{new_id('pk')}"),
            create_time=now,
            update_time=now,
            display_name=draft.display_name,
            labels=draft.labels,
            content_key=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
            expire_time=draft.expire_time,
            pinned=draft.pinned,
        )

    async def create(self, drafts: Sequence[Draft], key: RequestKey | None, group: str = "") -> list[Export]:
        """Accept exports, all or none; or return those that the same request made before.

        `group` is what several have in common, empty for one alone. Raises what `check` raises, and
        AlreadyExistsError: EXPORT_EXISTS or REQUEST_ID_REUSED.
        """
        claimed = replace(drafts[0].name, id=group) if group else drafts[0].name
        if key is not None:
            async with self._store.read() as view:
                repeated = await view.is_known(key)
            if repeated:  # whatever has become of the job since
                async with self._store.begin() as unit:
                    return await _earlier(unit, await unit.claim(key, claimed) or claimed, drafts, group)
        exports = [replace(await self.check(draft), group=group) for draft in drafts]
        async with self._store.begin() as unit:
            earlier = await unit.claim(key, claimed)
            if earlier is not None:
                return await _earlier(unit, earlier, drafts, group)
            placed: dict[Name, Export] = {}
            # In one order everywhere: nobody holds a lock of content that another one of these waits for.
            for export in sorted(exports, key=lambda each: each.content_key):
                await unit.add(export)
                placed[export.name] = await self._sharing.place(unit, export)
        for export in exports:
            log.info("export_accepted", export=str(export.name), format=export.format)
        return [placed[export.name] for export in exports]

    async def get(self, name: Name) -> Export:
        """Raises NotFoundError."""
        async with self._store.read() as view:
            return await view.export(name)

    async def list(self, project: str, query: PageRequest) -> tuple[list[Export], str]:
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
            step = domain.cancel_asked(export, self._clock.now(), at_work=at_work)
            return await self._save(unit, export, step)

    async def update(self, name: Name, changes: Mapping[str, Any]) -> Export:
        """Replace what people have said of an export. Raises NotFoundError."""
        async with self._store.begin() as unit:
            export = await unit.locked(name)
            return await unit.save(Step(replace(export, update_time=self._clock.now(), **changes)))

    async def delete(self, name: Name) -> None:
        """Delete an export that has ended, and its package unless another export has it as well.

        Raises PreconditionError, reason EXPORT_LIVE.
        """
        await self._delete(name, even_pinned=True)

    async def expire(self, name: Name) -> None:
        """The same for one that has had its time, unless it has been pinned meanwhile."""
        await self._delete(name, even_pinned=False)
        log.info("export_expired", export=str(name))

    async def _delete(self, name: Name, *, even_pinned: bool) -> None:
        async with self._store.begin() as unit:
            export = await unit.locked(name)
            if not export.terminal:
                raise PreconditionError(
                    f"{name} is {export.state}: cancel it and wait for its end, then delete it",
                    reason="EXPORT_LIVE",
                    metadata={"export": str(name), "state": export.state},
                )
            if export.pinned and not even_pinned:
                return
            await unit.same_content(export)
            last = await unit.remove(export)
            if last:
                await unit.discard(export.output_uri, self._clock.now())
        if last:
            try:
                await self.clean(export.output_uri)
            except FinemeshError as error:  # the sweeper tries again
                log.warning("package_not_deleted", uri=export.output_uri, error=error.message)

    async def clean(self, uri: str) -> None:
        """Delete what belongs to nobody any more. Raises UnavailableError."""
        now = self._clock.now()
        await self._packages.delete(uri)
        async with self._store.begin() as unit:
            await unit.discarded(uri, now)

    async def released(self, name: Name) -> Export:
        """A released export, its files known. Raises PreconditionError, reason EXPORT_NOT_RELEASED."""
        export = await self.get(name)
        if export.state is not State.SUCCEEDED:
            raise PreconditionError(
                f"{name} is {export.state}: only a package that has SUCCEEDED is released",
                reason="EXPORT_NOT_RELEASED",
                metadata={"export": str(name), "state": export.state},
            )
        if export.files is not None:
            return export
        files = tuple(await self._packages.files(export.output_uri))
        async with self._store.begin() as unit:
            await unit.keep_files(export, files)
        return replace(export, files=files)

    async def count(self, name: Name, *, archive: bool) -> None:
        """Count a download: of an archive, or of the URLs of all files."""
        async with self._store.begin() as unit:
            await unit.count(name, archive=archive, now=self._clock.now())

    async def retention(self, project: str) -> Retention:
        """For how long the exports of a project are kept."""
        async with self._store.read() as view:
            return await view.retention(project)

    async def set_retention(self, project: str, retention: Retention) -> Retention:
        """The same from now on."""
        retention = replace(retention, update_time=self._clock.now())
        async with self._store.begin() as unit:
            await unit.set_retention(project, retention)
        return retention

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
            await unit.same_content(export)
            await self._save(unit, export, domain.completed(export, attempt, completion.result, now))
        elif export.state is State.CANCELLING:
            await self._save(unit, export, domain.stopped(export, now, completion.error))
        else:
            final = completion.final and completion.outcome is not Outcome.CANCELLED
            error = completion.error or _STOPPED
            retry = domain.failed(export, error, now, final=final, counts=True, policy=self._policy)
            await self._retry(unit, export, retry)

    async def take_loss(self, unit: Unit, attempt: Attempt) -> None:
        """An attempt's lease ran out."""
        export = await unit.locked(parse_name(attempt.resource, "exports"))
        now, error = self._clock.now(), attempt.error or _STOPPED
        if export.state is State.CANCELLING:
            await self._save(unit, export, domain.stopped(export, now, error))
            return
        counts = not attempt.never_started
        retry = domain.failed(export, error, now, final=False, counts=counts, policy=self._policy)
        await self._retry(unit, export, retry)

    async def _retry(self, unit: Unit, before: Export, retry: Retry) -> None:
        export = await self._save(unit, before, retry.step)
        if retry.delay_seconds is not None:
            await unit.dispatch(export.name, delay_seconds=retry.delay_seconds)

    async def _save(self, unit: Unit, before: Export, step: Step) -> Export:
        """Save, and note what attempts leave behind: at once, and again when none can be writing any more."""
        export = await unit.save(step)
        if export.terminal:
            now = self._clock.now()
            for uri in domain.leftovers(before, export):
                await unit.discard(uri, now)
                await unit.discard(uri, now + self._grace)
        return export

    def _uri(self, name: str) -> str:
        return f"s3://{self._bucket}/{name}"


async def _earlier(unit: Unit, name: Name, drafts: Sequence[Draft], group: str) -> list[Export]:
    """What the same request made before: `name` is the export, or that of the group."""
    if not group:
        return [await unit.export(name)]
    order = [draft.format for draft in drafts]
    return sorted(await unit.group(name.project, name.id), key=lambda export: order.index(export.format))
