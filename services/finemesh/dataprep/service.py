"""The use cases of the DataPrep service: one method per RPC, one per thing that clusters report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import structlog

from finemesh.core.attempts import Attempt, Completion, Outcome, Phase, WorkReport
from finemesh.core.clock import Clock
from finemesh.core.errors import (
    ErrorRecord,
    FieldViolation,
    InvalidError,
    PreconditionError,
    UnavailableError,
)
from finemesh.core.names import CHILD_COLLECTIONS, Name, new_id, parse_name
from finemesh.core.requests import PageRequest
from finemesh.core.spec.data import DatasetFormat, ValidateOptions
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.core.states import PREFLIGHT_REPORT, VALIDATION_REPORT, DatasetState
from finemesh.dataprep.domain import (
    RESTARTS,
    ConvertOrigin,
    Dataset,
    DatasetSummary,
    ImportOrigin,
    Preflight,
    PreflightResult,
    Report,
    Result,
    SplitOrigin,
    Step,
    Upload,
    ValidationResult,
    Work,
    after_loss,
    changed,
    is_terminal,
    move,
    new_life,
)
from finemesh.dataprep.ports import FileFacts, Files, Store, Unit
from finemesh.dataprep.sources import SourcePolicy, check_one_source

UPLOAD_SECONDS: Final = 3600
_STOPPED: Final = ErrorRecord("UNAVAILABLE", "ATTEMPT_STOPPED", "the attempt stopped without being told to")

log: Final = structlog.get_logger(__name__)


class DataPrepService:
    """Datasets and reports from the request to their end."""

    def __init__(
        self,
        store: Store,
        files: Files,
        clock: Clock,
        *,
        max_upload_bytes: int,
        sources: SourcePolicy | None = None,
    ) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._max_upload_bytes = max_upload_bytes
        self._sources = sources or SourcePolicy()

    # Uploads

    async def create_upload(self, project: str, filename: str, size_bytes: int, sha256: str) -> Upload:
        """Promise a file. Raises InvalidError naming every wrong field."""
        _check_upload(filename, size_bytes, sha256, self._max_upload_bytes)
        now = self._clock.now()
        upload = Upload(
            name=Name(project, "uploads", new_id("up")),
            filename=filename,
            size_bytes=size_bytes,
            sha256=sha256.lower(),
            create_time=now,
            expire_time=now + timedelta(seconds=UPLOAD_SECONDS),
        )
        async with self._store.begin() as unit:
            await unit.add_upload(upload)
        return upload

    async def upload(self, name: Name) -> Upload:
        """Raises NotFoundError."""
        async with self._store.read() as unit:
            return await unit.upload(name)

    # Datasets

    async def create(self, draft: Dataset, key: Any) -> Dataset:
        """Accept a dataset to be made; or return the one that the same request made before.

        Raises:
            InvalidError: the origin contradicts itself.
            NotFoundError, PreconditionError: what it is to be made of is not there, or not complete.
            AlreadyExistsError: DATASET_EXISTS or REQUEST_ID_REUSED.
        """
        async with self._store.begin() as unit:
            earlier = await unit.claim(key, draft.name)
            if earlier is not None:
                return await unit.dataset(earlier)
            await self._check_origin(unit, draft)
            await unit.add(draft)
            await unit.dispatch(draft.name)
        log.info("dataset_accepted", dataset=str(draft.name), origin=draft.origin.case)
        return draft

    async def check(self, draft: Dataset) -> None:
        """What `create` checks, and nothing else."""
        async with self._store.read() as unit:
            await self._check_origin(unit, draft)

    async def _check_origin(self, unit: Unit, draft: Dataset) -> None:
        match draft.origin:
            case ImportOrigin(upload=upload_name, source_uri=source_uri):
                check_one_source(upload_name, source_uri)
                if source_uri:
                    self._sources.check(source_uri, draft.name.project, "dataset.imported_from.source_uri")
                    return
                field = "dataset.imported_from.upload"
                name = _own(upload_name, "uploads", draft.name.project, field)
                await self._check_uploaded(await unit.upload(name))
            case SplitOrigin():
                await _check_parent(unit, draft, "dataset.split_from.dataset")
            case ConvertOrigin():
                await _check_parent(unit, draft, "dataset.converted_from.dataset")

    async def _check_uploaded(self, upload: Upload) -> None:
        try:
            size_bytes = await self._files.size(upload.key)
        except UnavailableError:
            return  # the request waits for the object store, and the cluster checks again
        if size_bytes != upload.size_bytes:
            found = 0 if size_bytes is None else size_bytes
            raise PreconditionError(
                f"{upload.name} has {found} bytes of {upload.size_bytes}: PUT the file to the upload's url",
                reason="UPLOAD_INCOMPLETE",
                metadata={"upload": str(upload.name)},
            )

    async def get(self, name: Name) -> Dataset:
        """Raises NotFoundError."""
        async with self._store.read() as unit:
            return await unit.dataset(name)

    async def list(self, project: str, query: PageRequest) -> tuple[list[Dataset], str]:
        """One page of a project's datasets, and the token of the next."""
        async with self._store.read() as unit:
            return await unit.datasets(project, query)

    async def delete(self, name: Name) -> None:
        """Delete a dataset that has ended. Raises PreconditionError, reason DATASET_LIVE."""
        async with self._store.read() as unit:
            dataset = await unit.dataset(name)
            busy = not is_terminal(dataset) or await unit.has_live_reports(name)
        if busy:
            raise PreconditionError(
                f"{name} is being worked on: cancel that and wait for its end, then delete it",
                reason="DATASET_LIVE",
                metadata={"dataset": str(name)},
            )
        # Files first: whatever fails in between, the dataset is still there to be deleted again.
        await self._files.delete(name)
        async with self._store.begin() as unit:
            await unit.remove(name)

    async def files(self, name: Name) -> Sequence[FileFacts]:
        """The files of a complete dataset, by path."""
        await self._complete(name)
        return await self._files.files(name)

    async def ledger(self, name: Name, query: PageRequest) -> tuple[Sequence[dict[str, Any]], str]:
        """A page of a complete dataset's ledger, and the token of the next."""
        await self._complete(name)
        return await self._files.ledger(name, query)

    async def _complete(self, name: Name) -> Dataset:
        dataset = await self.get(name)
        _require_complete(dataset)
        return dataset

    # Reports

    async def validate(self, dataset: Name, options: ValidateOptions, key: Any) -> Report:
        """Start a validation. Raises NotFoundError, PreconditionError, AlreadyExistsError."""
        name = Name(dataset.project, "datasets", dataset.id, "validationReports", new_id("vr"))
        report = Report(name, options, new_life(VALIDATION_REPORT, self._clock.now()))
        async with self._store.begin() as unit:
            earlier = await unit.claim(key, name)
            if earlier is not None:
                return await unit.report(earlier)
            _require_complete(await unit.dataset(dataset))
            await unit.add(report)
            await unit.dispatch(name)
        return report

    async def report(self, name: Name) -> Report:
        """Raises NotFoundError."""
        async with self._store.read() as unit:
            return await unit.report(name)

    async def reports(self, dataset: Name, query: PageRequest) -> tuple[Sequence[Report], str]:
        """One page of a dataset's reports, and the token of the next. Raises NotFoundError."""
        async with self._store.read() as unit:
            await unit.dataset(dataset)
            return await unit.reports(dataset, query)

    # Preflights

    async def start_preflight(self, dataset: Name, options: PreflightOptions, key: Any) -> Preflight:
        """Start a preflight.

        Raises:
            NotFoundError, AlreadyExistsError.
            PreconditionError: DATASET_NOT_READY, DATASET_NOT_CANONICAL.
        """
        name = Name(dataset.project, "datasets", dataset.id, "preflightReports", new_id("pf"))
        preflight = Preflight(name, options, new_life(PREFLIGHT_REPORT, self._clock.now()))
        async with self._store.begin() as unit:
            earlier = await unit.claim(key, name)
            if earlier is not None:
                return await unit.preflight(earlier)
            _require_trainable(await unit.dataset(dataset))
            await unit.add(preflight)
            await unit.dispatch(name)
        return preflight

    async def preflight(self, name: Name) -> Preflight:
        """Raises NotFoundError."""
        async with self._store.read() as unit:
            return await unit.preflight(name)

    async def preflights(self, dataset: Name, query: PageRequest) -> tuple[Sequence[Preflight], str]:
        """One page of a dataset's preflights, and the token of the next. Raises NotFoundError."""
        async with self._store.read() as unit:
            await unit.dataset(dataset)
            return await unit.preflights(dataset, query)

    # Any of them

    async def cancel(self, name: Name) -> Work:
        """Stop work on a dataset or a report. Raises PreconditionError, reason ALREADY_ENDED."""
        async with self._store.begin() as unit:
            item = await unit.locked(name)
            if item.life.state in {"CANCELLING", "CANCELLED"}:
                return item
            if is_terminal(item):
                raise PreconditionError(
                    f"{name} has {item.life.state} already: there is nothing to cancel",
                    reason="ALREADY_ENDED",
                    metadata={"resource": str(name), "state": str(item.life.state)},
                )
            at_work = await unit.request_cancel(name) is not None
            item = await unit.save(move(item, "CANCELLING", self._clock.now()))
            return item if at_work else await unit.save(move(item, "CANCELLED", self._clock.now()))

    # What clusters report, each in the transaction of the attempt's own change.

    async def take_report(self, unit: Unit, attempt: Attempt, report: WorkReport) -> None:
        """An attempt renewed its lease."""
        item, now = await unit.locked(parse_work(attempt.resource)), self._clock.now()
        news = {
            "attempt": attempt.number,
            "fraction": report.fraction,
            "message": report.message,
            "report_time": now,
        }
        if item.life.state == "QUEUED" and report.phase is not Phase.STARTING:
            await unit.save(move(item, "RUNNING", now, **news))
        else:
            await unit.save(Step(changed(item, now, **news)))

    async def take_completion(self, unit: Unit, attempt: Attempt, completion: Completion[Result]) -> None:
        """An attempt ended and says how."""
        item, now = await unit.locked(parse_work(attempt.resource)), self._clock.now()
        if completion.result is not None:
            await self._succeed(unit, item, completion.result)
        elif item.life.state == "CANCELLING":
            await unit.save(move(item, "CANCELLED", now))
        else:
            error = completion.error or _STOPPED
            final = completion.final and completion.outcome is not Outcome.CANCELLED
            await self._fail(unit, item, error, final=final)

    async def _succeed(self, unit: Unit, item: Work, result: Result) -> None:
        now = self._clock.now()
        if item.life.state == "QUEUED":  # it was over before it reported to be running
            item = await unit.save(move(item, "RUNNING", now))
        if item.life.state == "CANCELLING":  # it was quicker than the cancellation, which still holds
            await self._files.delete(item.name)
            await unit.save(move(item, "CANCELLED", now))
            return
        finished: Work
        match item, result:
            case Dataset(), DatasetSummary():
                result.ledger.check()
                finished = replace(item, summary=result)
            case Report(), ValidationResult():
                finished = replace(item, result=result)
            case Preflight(), PreflightResult():
                finished = replace(item, result=result)
            case _:
                raise InvalidError.of("outcome.result", f"is not what {item.name} is waiting for")
        await unit.save(move(finished, "SUCCEEDED", now, fraction=1.0, message="", error=None))

    async def take_loss(self, unit: Unit, attempt: Attempt) -> None:
        """An attempt's lease ran out."""
        item, now = await unit.locked(parse_work(attempt.resource)), self._clock.now()
        error = attempt.error or _STOPPED
        if item.life.state == "CANCELLING":
            await unit.save(move(item, "CANCELLED", now, error=error))
        elif attempt.never_started:
            await unit.save(after_loss(item, error, now))
            await unit.dispatch(item.name)
        else:
            await self._fail(unit, item, error, final=False)

    async def _fail(self, unit: Unit, item: Work, error: ErrorRecord, *, final: bool) -> None:
        """Start again after a back-off, or give up."""
        now = self._clock.now()
        restarts = await unit.started_count(item.name) - 1
        delay = None if final else RESTARTS.delay_seconds(max(0, restarts))
        if delay is None:
            await unit.save(move(item, "FAILED", now, error=error))
            log.info("work_failed", resource=str(item.name), reason=error.reason)
            return
        await unit.save(after_loss(item, error, now))
        await unit.dispatch(item.name, delay_seconds=delay)


def parse_work(resource: str) -> Name:
    """The name of what an attempt works on. Raises InvalidError."""
    child = next((each for each in CHILD_COLLECTIONS["datasets"] if f"/{each}/" in resource), "")
    return parse_name(resource, f"datasets/{child}" if child else "datasets", "attempt.resource")


def _own(value: str, collection: str, project: str, field: str) -> Name:
    """A name inside the project of the request. Raises InvalidError."""
    name = parse_name(value, collection, field)
    if name.project != project:
        raise InvalidError.of(field, f"{value} is in another project than projects/{project}")
    return name


def _require_complete(dataset: Dataset) -> None:
    if dataset.life.state is not DatasetState.SUCCEEDED:
        over = dataset.life.state in {DatasetState.FAILED, DatasetState.CANCELLED}
        remedy = "make it again" if over else "wait until it has SUCCEEDED"
        raise PreconditionError(
            f"{dataset.name} is {dataset.life.state}: {remedy}",
            reason="DATASET_NOT_READY",
            metadata={"dataset": str(dataset.name), "state": str(dataset.life.state)},
        )


def _require_trainable(dataset: Dataset) -> None:
    _require_complete(dataset)
    if dataset.format is not DatasetFormat.CANONICAL:
        raise PreconditionError(
            f"{dataset.name} is in {dataset.format} form, which no training reads: look at the canonical one "
            "that it was made of",
            reason="DATASET_NOT_CANONICAL",
            metadata={"dataset": str(dataset.name)},
        )


async def _check_parent(unit: Unit, draft: Dataset, field: str) -> None:
    parent = await unit.dataset(_own(draft.parent, "datasets", draft.name.project, field))
    _require_complete(parent)
    if parent.format is not DatasetFormat.CANONICAL:
        raise InvalidError.of(field, f"{parent.name} is in {parent.format} form: name the canonical dataset")
    if isinstance(draft.origin, ConvertOrigin) and draft.origin.options.instruction is not None:
        classes_needed = draft.origin.options.instruction.name == "CLASSIFY_REGION"
        if classes_needed and parent.summary and not parent.summary.has_class_names:
            raise InvalidError.of(
                "dataset.converted_from.instruction",
                f"{parent.name} has no class names to ask for: use LOCATE_OBJECT",
            )


def _check_upload(filename: str, size_bytes: int, sha256: str, max_bytes: int) -> None:
    wrong: list[FieldViolation] = []
    if (
        not filename
        or len(filename) > 255
        or not filename.isprintable()
        or "/" in filename
        or "\\" in filename
    ):
        wrong.append(FieldViolation("upload.filename", "give the name of a file, without folders"))
    if not 0 < size_bytes <= max_bytes:
        wrong.append(FieldViolation("upload.size_bytes", f"{size_bytes} is out of range: 1 to {max_bytes}"))
    if len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef"):
        wrong.append(FieldViolation("upload.sha256", "give the SHA-256 of the file as 64 hexadecimal digits"))
    if wrong:
        message = "; ".join(f"{each.field}: {each.description}" for each in wrong)
        raise InvalidError(message, violations=wrong, reason="INVALID_UPLOAD")
