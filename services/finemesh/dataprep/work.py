"""Datasets and reports as owners of their attempts: the queue's calls brought to the use cases, and the
commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finemesh.chassis.attempts_servicer import mint_attempt_token
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.dataset_options import fill, level_of
from finemesh.chassis.preflight_options import options_to_proto
from finemesh.chassis.sql import Tx
from finemesh.chassis.telemetry import trace_headers
from finemesh.core.attempts import Attempt, Completion, WorkReport
from finemesh.core.clock import Clock
from finemesh.core.names import Name, parse_name
from finemesh.dataprep.convert import origin_to_proto, upload_to_proto
from finemesh.dataprep.domain import Dataset, ImportOrigin, Preflight, Report, Result, SplitOrigin
from finemesh.dataprep.service import DataPrepService, parse_work
from finemesh.dataprep.unit import SqlStore, SqlUnit
from finemesh.v1 import attempt_pb2, fine_tune_spec_pb2, validation_report_pb2

# One core each: the compiler works shard by shard, and several datasets may be made at a time.
RESOURCES = fine_tune_spec_pb2.ResourceSpec(cpus=1)


class DatasetWork:
    """Implements `chassis.attempts.AttemptOwner`."""

    def __init__(
        self, store: SqlStore, service: DataPrepService, key: SigningKey, clock: Clock, bucket: str
    ) -> None:
        self._store = store
        self._service = service
        self._key = key
        self._clock = clock
        self._bucket = bucket

    async def command(self, tx: Tx, attempt: Attempt) -> bytes:
        seconds_to_start = (attempt.lease_expire_time - self._clock.now()).total_seconds()
        command = attempt_pb2.Command(
            resource=attempt.resource,
            attempt=attempt.number,
            fence=attempt.ref.fence,
            cluster=attempt.cluster,
            token=mint_attempt_token(self._key, attempt.ref, seconds_to_start),
            traceparent=trace_headers().get("traceparent", ""),
            resources=RESOURCES,
            **await self._work(SqlUnit(self._store, tx), parse_work(attempt.resource)),
        )
        command.start_deadline.FromDatetime(attempt.lease_expire_time)
        return command.SerializeToString()

    async def _work(self, unit: SqlUnit, name: Name) -> dict[str, Any]:
        """What is to be done, as keyword argument of a Command."""
        match await unit.item(name):
            case Dataset() as dataset:
                return await self._dataset_work(unit, dataset)
            case Report(options=options):
                work = attempt_pb2.ValidateWork(
                    level=level_of(options),
                    thresholds=fill(validation_report_pb2.ValidationThresholds(), options),
                    **self._report_uris(name),
                )
                return {"validate_work": work}
            case Preflight(options=options):
                spec, shown = options_to_proto(options)
                return {
                    "preflight_work": attempt_pb2.PreflightWork(
                        spec=spec, options=shown, **self._report_uris(name)
                    )
                }

    def _report_uris(self, name: Name) -> dict[str, str]:
        source = Name(name.project, name.collection, name.id)
        return {"source_uri": self._uri(source), "output_uri": self._uri(name)}

    async def _dataset_work(self, unit: SqlUnit, dataset: Dataset) -> dict[str, Any]:
        (origin,) = origin_to_proto(dataset.origin).values()
        output = self._uri(dataset.name)
        if isinstance(dataset.origin, ImportOrigin) and dataset.origin.source_uri:
            work = attempt_pb2.ImportWork(
                source_uri=dataset.origin.source_uri, origin=origin, output_uri=output
            )
            return {"import_work": work}
        if isinstance(dataset.origin, ImportOrigin):
            upload = await unit.upload(parse_name(dataset.origin.upload, "uploads"))
            work = attempt_pb2.ImportWork(
                upload=upload_to_proto(upload, url=""),
                source_uri=f"s3://{self._bucket}/{upload.key}",
                origin=origin,
                output_uri=output,
            )
            return {"import_work": work}
        source = self._uri(parse_name(dataset.parent, "datasets"))
        if isinstance(dataset.origin, SplitOrigin):
            return {"split_work": attempt_pb2.SplitWork(source_uri=source, origin=origin, output_uri=output)}
        return {"convert_work": attempt_pb2.ConvertWork(source_uri=source, origin=origin, output_uri=output)}

    def _uri(self, name: Name) -> str:
        return f"s3://{self._bucket}/{name}"

    async def on_reports(self, tx: Tx, reports: Sequence[tuple[Attempt, WorkReport]]) -> None:
        for attempt, report in reports:
            await self._service.take_report(SqlUnit(self._store, tx), attempt, report)

    async def on_completed(self, tx: Tx, attempt: Attempt, completion: Completion[Result]) -> None:
        await self._service.take_completion(SqlUnit(self._store, tx), attempt, completion)

    async def on_lost(self, tx: Tx, attempt: Attempt) -> None:
        await self._service.take_loss(SqlUnit(self._store, tx), attempt)
