"""The process of the DataPrep service: `python -m finemesh.dataprep`, configured by FINEMESH_… variables."""

from __future__ import annotations

import asyncio
import os

from finemesh.chassis.attempts import AttemptQueue, AttemptSettings
from finemesh.chassis.attempts_servicer import AttemptServicer
from finemesh.chassis.config import from_environ
from finemesh.chassis.grpc_server import run_service, serve
from finemesh.chassis.service import Foundation, foundation
from finemesh.chassis.watch import Notifier
from finemesh.dataprep.config import DataPrepConfig
from finemesh.dataprep.convert import result_from_proto
from finemesh.dataprep.domain import Result
from finemesh.dataprep.files import ObjectFiles, drop_parts
from finemesh.dataprep.service import DataPrepService
from finemesh.dataprep.servicer import DataPrepServicer
from finemesh.dataprep.sources import SourcePolicy
from finemesh.dataprep.store import CHASSIS
from finemesh.dataprep.unit import SqlStore
from finemesh.dataprep.work import DatasetWork
from finemesh.v1.attempt_service_pb2_grpc import add_AttemptServiceServicer_to_server
from finemesh.v1.dataprep_service_pb2_grpc import add_DataPrepServiceServicer_to_server


async def run(stop: asyncio.Event, config: DataPrepConfig) -> None:
    """Serve until `stop` is set."""
    async with foundation("dataprep", config, CHASSIS) as base:
        await _serve(stop, config, base)


async def _serve(stop: asyncio.Event, config: DataPrepConfig, base: Foundation) -> None:
    clock, notifier = base.outbox.clock, Notifier()
    settings = AttemptSettings(
        lease_seconds=config.lease_seconds,
        start_timeout_seconds=config.start_timeout_seconds,
        cancel_grace_seconds=config.cancel_grace_seconds,
    )
    queue: AttemptQueue[Result] = AttemptQueue(base.db, base.outbox, settings)
    store = SqlStore(base.db, base.outbox, queue, notifier, default_cluster=config.cluster_id)
    files = ObjectFiles(base.objects)
    sources = SourcePolicy(config.import_sources, config.s3.bucket)
    service = DataPrepService(store, files, clock, max_upload_bytes=config.max_upload_bytes, sources=sources)
    queue.bind(DatasetWork(store, service, base.key, clock, config.s3.bucket))

    server = base.server()
    servicer = DataPrepServicer(service, base.objects, notifier, clock)
    server.add(add_DataPrepServiceServicer_to_server, servicer)
    server.add(add_AttemptServiceServicer_to_server, AttemptServicer(queue, base.key, result_from_proto))
    await serve(server, stop, base.relay.run(), queue.run(), drop_parts(base.objects))


def main() -> None:
    run_service("dataprep", _run_from_environment, os.environ.get("FINEMESH_LOG_LEVEL", "INFO"))


async def _run_from_environment(stop: asyncio.Event) -> None:
    await run(stop, from_environ(DataPrepConfig, os.environ))


if __name__ == "__main__":
    main()
