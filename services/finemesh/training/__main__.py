"""`python -m finemesh.training`: builds the adapters from the environment and serves."""

from __future__ import annotations

import asyncio
import contextlib
import os

from finemesh.chassis.attempts import AttemptQueue, AttemptSettings
from finemesh.chassis.config import from_environ
from finemesh.chassis.grpc_server import run_service, serve
from finemesh.chassis.service import Foundation, foundation
from finemesh.chassis.watch import Notifier
from finemesh.core.attempts import RestartPolicy
from finemesh.training.attempts import JobAttempts
from finemesh.training.config import TrainingConfig
from finemesh.training.convert import result_from_proto
from finemesh.training.datasets import DataPrepDatasets
from finemesh.training.domain import TrainingResult
from finemesh.training.estimates.estimator import Estimator
from finemesh.training.estimates.servicer import Estimates
from finemesh.training.estimates.stored_models import StoredModels
from finemesh.training.files import ObjectFiles
from finemesh.training.limits import Limits, LimitSettings
from finemesh.training.logs.service import LogService
from finemesh.training.planning import Planner
from finemesh.training.planning_process import PlannerApart, Setup
from finemesh.training.quota_servicer import QuotaServicer
from finemesh.training.scheduler import Scheduler, SchedulerSettings
from finemesh.training.service import Layout, TrainingService
from finemesh.training.servicer import TrainingServicer
from finemesh.training.store import SqlStore
from finemesh.training.sweeps.controller import SweepController
from finemesh.training.sweeps.servicer import SweepServicer
from finemesh.training.sweeps.store import SweepStore
from finemesh.training.tables import CHASSIS
from finemesh.training.workers.mover import Mover
from finemesh.training.workers.servicer import ClusterServicer, WorkerServicer
from finemesh.v1.attempt_service_pb2_grpc import add_AttemptServiceServicer_to_server
from finemesh.v1.quota_service_pb2_grpc import add_QuotaServiceServicer_to_server
from finemesh.v1.sweep_service_pb2_grpc import add_SweepServiceServicer_to_server
from finemesh.v1.training_service_pb2_grpc import add_TrainingServiceServicer_to_server
from finemesh.v1.worker_service_pb2_grpc import add_WorkerServiceServicer_to_server


async def run(stop: asyncio.Event, config: TrainingConfig) -> None:
    """Serve until `stop` is set."""
    async with foundation("training", config, CHASSIS) as base:
        dataprep = base.channel(config.dataprep.address)
        try:
            await _serve(stop, config, base, DataPrepDatasets(dataprep))
        finally:
            await dataprep.close()


async def _serve(
    stop: asyncio.Event, config: TrainingConfig, base: Foundation, datasets: DataPrepDatasets
) -> None:
    clock, notifier, layout = base.outbox.clock, Notifier(), Layout(config.s3.bucket)
    settings = AttemptSettings(
        lease_seconds=config.lease_seconds,
        start_timeout_seconds=config.start_timeout_seconds,
        cancel_grace_seconds=config.cancel_grace_seconds,
        pause_grace_seconds=config.pause_grace_seconds,
    )
    queue: AttemptQueue[TrainingResult] = AttemptQueue(base.db, base.outbox, settings)
    admission, placement, sweeping = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def wake() -> None:
        for loop in (admission, placement, sweeping):
            loop.set()

    store = SqlStore(base.db, base.outbox, queue, notifier, on_change=wake)
    policy = RestartPolicy(first_delay_seconds=config.restart_delay_seconds)
    files = ObjectFiles(base.objects, config.s3.bucket)
    service = TrainingService(store, files, layout, policy, clock)
    queue.bind(JobAttempts(store, service, base.key, clock))
    times = SchedulerSettings(live_seconds=config.cluster_live_seconds)
    setup = Setup(config.database_url.reveal(), times.live_seconds, config.log_level)
    plans = PlannerApart(Planner(store, times.live_seconds), setup)
    scheduler = Scheduler(store, datasets, layout, times, clock, plans)

    limits = LimitSettings(config.validate_timeout_seconds, config.launch_timeout_seconds)

    sweeps = SweepStore(store, on_change=sweeping.set)

    estimator = Estimator(store, datasets, clock, config.cluster_live_seconds)
    models = StoredModels(base.objects, config.s3.bucket)
    estimates = Estimates(estimator, models, config.gpu_hour_price, config.price_currency)

    server = base.server()
    logs = LogService(store, notifier, clock)
    training = TrainingServicer(service, scheduler, notifier, estimates, logs)
    server.add(add_TrainingServiceServicer_to_server, training)
    server.add(add_SweepServiceServicer_to_server, SweepServicer(sweeps, service, scheduler, notifier, clock))
    server.add(add_QuotaServiceServicer_to_server, QuotaServicer(store, clock, placement.set))
    server.add(add_WorkerServiceServicer_to_server, WorkerServicer(store, clock, times.live_seconds))
    server.add(add_AttemptServiceServicer_to_server, ClusterServicer(store, base.key, result_from_proto))
    with contextlib.closing(plans):
        await serve(
            server,
            stop,
            base.relay.run(),
            queue.run(),
            scheduler.run_admission(admission),
            scheduler.run_placement(placement),
            SweepController(sweeps, service, clock).run(sweeping),
            Mover(store, clock, times.live_seconds).run(),
            Limits(store, limits, clock).run(),
        )


def main() -> None:
    run_service("training", _run_from_environment, os.environ.get("FINEMESH_LOG_LEVEL", "INFO"))


async def _run_from_environment(stop: asyncio.Event) -> None:
    await run(stop, from_environ(TrainingConfig, os.environ))


if __name__ == "__main__":
    main()
