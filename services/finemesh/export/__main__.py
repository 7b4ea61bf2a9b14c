"""`python -m finemesh.export`: builds the adapters from the environment and serves."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os

from finemesh.chassis.attempts import AttemptQueue, AttemptSettings
from finemesh.chassis.attempts_servicer import AttemptServicer
from finemesh.chassis.config import from_environ
from finemesh.chassis.grpc_server import run_service, serve
from finemesh.chassis.service import Foundation, foundation
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import RestartPolicy
from finemesh.export.config import ExportConfig
from finemesh.export.convert import result_from_proto
from finemesh.export.domain import ExportResult
from finemesh.export.packages import ObjectPackages
from finemesh.export.peers import DataPrepDatasets, TrainingJobs
from finemesh.export.service import ExportService
from finemesh.export.servicer import ExportServicer
from finemesh.export.sharing import Sharing
from finemesh.export.store import SqlStore
from finemesh.export.sweeper import Sweeper
from finemesh.export.tables import CHASSIS
from finemesh.export.work import ExportWork
from finemesh.v1.attempt_service_pb2_grpc import add_AttemptServiceServicer_to_server
from finemesh.v1.export_service_pb2_grpc import add_ExportServiceServicer_to_server


async def run(stop: asyncio.Event, config: ExportConfig) -> None:
    """Serve until `stop` is set."""
    async with foundation("export", config, CHASSIS) as base:
        training, dataprep = base.channel(config.training.address), base.channel(config.dataprep.address)
        try:
            await _serve(stop, config, base, TrainingJobs(training), DataPrepDatasets(dataprep))
        finally:
            await training.close()
            await dataprep.close()


async def _serve(
    stop: asyncio.Event,
    config: ExportConfig,
    base: Foundation,
    jobs: TrainingJobs,
    datasets: DataPrepDatasets,
) -> None:
    clock, notifier = base.outbox.clock, Notifier()
    settings = AttemptSettings(
        lease_seconds=config.lease_seconds,
        start_timeout_seconds=config.start_timeout_seconds,
        cancel_grace_seconds=config.cancel_grace_seconds,
    )
    queue: AttemptQueue[ExportResult] = AttemptQueue(base.db, base.outbox, settings)
    store = SqlStore(
        base.db,
        base.outbox,
        queue,
        notifier,
        default_cluster=config.cluster_id,
        live_seconds=config.cluster_live_seconds,
    )
    packages = ObjectPackages(base.objects, config.s3.bucket)
    service = ExportService(
        store,
        jobs,
        datasets,
        packages,
        bucket=config.s3.bucket,
        policy=RestartPolicy(first_delay_seconds=config.restart_delay_seconds),
        clock=clock,
        release=importlib.metadata.version("finemesh"),
        grace_seconds=max(config.lease_seconds, config.cancel_grace_seconds) + 60.0,
    )
    queue.bind(ExportWork(store, service, base.key, clock))

    server = base.server()
    servicer = ExportServicer(service, packages, notifier, clock)
    server.add(add_ExportServiceServicer_to_server, servicer)
    server.add(add_AttemptServiceServicer_to_server, AttemptServicer(queue, base.key, result_from_proto))
    sharing, sweeper = Sharing(store, clock), Sweeper(store, service, clock, seconds=config.sweep_seconds)
    await serve(server, stop, base.relay.run(), queue.run(), sharing.run(), sweeper.run())


def main() -> None:
    run_service("export", _run_from_environment, os.environ.get("FINEMESH_LOG_LEVEL", "INFO"))


async def _run_from_environment(stop: asyncio.Event) -> None:
    await run(stop, from_environ(ExportConfig, os.environ))


if __name__ == "__main__":
    main()
