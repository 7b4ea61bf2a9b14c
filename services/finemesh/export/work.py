"""Exports as owners of their attempts: the queue's calls brought to the use cases, and the commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from finemesh.chassis.attempts_servicer import mint_attempt_token
from finemesh.chassis.auth import SigningKey
from finemesh.chassis.fine_tune_spec import spec_to_proto
from finemesh.chassis.sql import Tx
from finemesh.chassis.telemetry import trace_headers
from finemesh.core.attempts import Attempt, Completion, WorkReport
from finemesh.core.clock import Clock
from finemesh.core.names import parse_name
from finemesh.export.convert import checkpoint_to_proto
from finemesh.export.domain import Export, ExportResult, place_of
from finemesh.export.service import ExportService
from finemesh.export.store import SqlStore, SqlUnit
from finemesh.v1 import attempt_pb2, fine_tune_spec_pb2

# Merging and replaying the golden set are done on the CPU, one package at a time.
RESOURCES: Final = fine_tune_spec_pb2.ResourceSpec(cpus=1)


class ExportWork:
    """Implements `chassis.attempts.AttemptOwner`."""

    def __init__(self, store: SqlStore, service: ExportService, key: SigningKey, clock: Clock) -> None:
        self._store = store
        self._service = service
        self._key = key
        self._clock = clock

    async def command(self, tx: Tx, attempt: Attempt) -> bytes:
        export = await SqlUnit(self._store, tx).export(parse_name(attempt.resource, "exports"))
        seconds_to_start = (attempt.lease_expire_time - self._clock.now()).total_seconds()
        token = mint_attempt_token(self._key, attempt.ref, seconds_to_start)
        return command_of(export, attempt, token).SerializeToString()

    async def on_reports(self, tx: Tx, reports: Sequence[tuple[Attempt, WorkReport]]) -> None:
        for attempt, report in reports:
            await self._service.take_report(SqlUnit(self._store, tx), attempt, report)

    async def on_completed(self, tx: Tx, attempt: Attempt, completion: Completion[ExportResult]) -> None:
        await self._service.take_completion(SqlUnit(self._store, tx), attempt, completion)

    async def on_lost(self, tx: Tx, attempt: Attempt) -> None:
        await self._service.take_loss(SqlUnit(self._store, tx), attempt)


def command_of(export: Export, attempt: Attempt, token: str) -> attempt_pb2.Command:
    """The order to carry out `attempt` at `export`."""
    source = export.source
    command = attempt_pb2.Command(
        resource=attempt.resource,
        attempt=attempt.number,
        fence=attempt.ref.fence,
        cluster=attempt.cluster,
        token=token,
        traceparent=trace_headers().get("traceparent", ""),
        resources=RESOURCES,
        export_work=attempt_pb2.ExportWork(
            spec=spec_to_proto(source.spec),
            checkpoint=checkpoint_to_proto(source.checkpoint),
            dataset_uri=source.dataset_uri,
            format=f"EXPORT_FORMAT_{export.format}",
            output_uri=place_of(export, attempt.number),
            lineage=source.lineage,
            allow_drift=source.allow_drift,
            licence_override=source.licence_override,
        ),
    )
    command.start_deadline.FromDatetime(attempt.lease_expire_time)
    return command
