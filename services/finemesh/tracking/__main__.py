"""The process of the Tracking service: `python -m finemesh.tracking`, configured by the environment.

`python -m finemesh.tracking rebuild`, in the same environment, makes the points file from its segments.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from finemesh.chassis.auth import TokenVerifier
from finemesh.chassis.client_channel import DEFAULT_MAX_MESSAGE_BYTES
from finemesh.chassis.config import from_environ
from finemesh.chassis.grpc_server import GrpcServer, run_service, serve
from finemesh.chassis.logs import get_logger
from finemesh.chassis.service import Foundation, foundation
from finemesh.chassis.watch import Notifier
from finemesh.core.errors import UnavailableError
from finemesh.tracking.alert_rows import AlertRows
from finemesh.tracking.alert_servicer import AlertServicer, alert_event
from finemesh.tracking.alert_watch import AlertWatch
from finemesh.tracking.archive import Archive
from finemesh.tracking.artifact_rows import ArtifactRows
from finemesh.tracking.artifacts import Artifacts
from finemesh.tracking.charts import Charts
from finemesh.tracking.comparisons import Comparisons
from finemesh.tracking.config import TrackingConfig
from finemesh.tracking.consumer import consume
from finemesh.tracking.domain import Batch
from finemesh.tracking.downloads import Downloads
from finemesh.tracking.evaluation_rows import EvaluationRows
from finemesh.tracking.evaluation_service import Evaluations
from finemesh.tracking.evaluation_servicer import EvaluationServicer
from finemesh.tracking.keeper import Keeper, forget_old_points
from finemesh.tracking.live import Live
from finemesh.tracking.points import PointFile
from finemesh.tracking.rebuild import rebuild
from finemesh.tracking.segments import Cutter
from finemesh.tracking.service import Tracking
from finemesh.tracking.servicer import TrackingServicer
from finemesh.tracking.sql_process import SqlLimits
from finemesh.tracking.sql_query import SqlQueries
from finemesh.tracking.sql_rows import SqlRows
from finemesh.tracking.store import CHASSIS, SqlRunStore
from finemesh.tracking.summarizer import Summarizer
from finemesh.tracking.writer import Writer
from finemesh.v1.alert_service_pb2_grpc import add_AlertServiceServicer_to_server
from finemesh.v1.evaluation_service_pb2_grpc import add_EvaluationServiceServicer_to_server
from finemesh.v1.tracking_service_pb2_grpc import add_TrackingServiceServicer_to_server

NAME = "tracking"
POINTS_FILE = "points.duckdb"

_log = get_logger(__name__)


async def main(stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    config = from_environ(TrackingConfig, os.environ)
    async with foundation(NAME, config, CHASSIS) as base:
        file = PointFile(
            config.data_dir / POINTS_FILE,
            memory_bytes=config.points_memory_bytes,
            threads=config.points_threads,
        )
        try:
            await _serve(base, config, file, stop)
        finally:
            file.close()


async def restore(_: asyncio.Event) -> None:
    """Make the points file anew from the segments in the object store."""
    config = from_environ(TrackingConfig, os.environ)
    base = Foundation(NAME, config, CHASSIS)
    try:
        points = await rebuild(base.objects, config.data_dir / POINTS_FILE)
    finally:
        base.objects.close()
    _log.info("points_rebuilt", points=points, path=str(config.data_dir / POINTS_FILE))


async def _serve(base: Foundation, config: TrackingConfig, file: PointFile, stop: asyncio.Event) -> None:
    notifier, live, clock = Notifier(), Live(), base.outbox.clock
    store = SqlRunStore(base.db, base.outbox, notifier)
    summarizer = Summarizer(store, file, clock, config.summary_interval_seconds)

    alert_rows = AlertRows(base.db, base.outbox, alert_event)
    watch = AlertWatch(alert_rows, file, clock)

    def on_committed(batches: Sequence[Batch]) -> None:
        summarizer.note(batches)
        live.publish(batches)
        watch.note(batches)

    writer = Writer(file, on_committed)
    cutter = Cutter(file, config.data_dir / "segments")
    archive = Archive(base.objects, cutter)
    keeper = Keeper(file, cutter, archive, interval_seconds=config.segment_interval_seconds)
    artifacts = Artifacts(ArtifactRows(base.db), store, base.objects, clock)
    evaluations = Evaluations(store, EvaluationRows(base.db), base.objects, clock)
    tracking = Tracking(
        store=store,
        points=file,
        writer=writer,
        summarizer=summarizer,
        live=live,
        notifier=notifier,
        clock=clock,
        files=(artifacts, evaluations),
    )
    downloads = Downloads(store, file, summarizer)
    charts = Charts(store, file)
    limits = SqlLimits(config.sql_timeout_seconds, config.sql_cpu_seconds, config.sql_memory_bytes)
    queries = SqlQueries(SqlRows(base.db), file, summarizer, limits)
    comparisons = Comparisons(store, summarizer, evaluations, clock)
    servicer = TrackingServicer(tracking, artifacts, downloads, charts, queries, comparisons, clock)
    # Ready without S3: points need none, and artifacts say so themselves when it is away.
    checks = {"sql": base.db.check_ready, "nats": base.bus.check_ready, "points": writer.check_ready}
    listening = replace(config.service, max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES)  # evaluations come whole
    server = GrpcServer(listening, TokenVerifier.of(base.key), checks=checks)
    server.add(add_TrackingServiceServicer_to_server, servicer)
    server.add(add_EvaluationServiceServicer_to_server, EvaluationServicer(evaluations, config.s3.bucket))
    server.add(add_AlertServiceServicer_to_server, AlertServicer(alert_rows, store, watch, clock))
    await summarizer.catch_up()
    await watch.start()
    writer.start()
    try:
        forgetting = forget_old_points(file, store, writer, clock, config.points_retention_days)
        consuming = consume(base.bus, tracking)
        loops = (base.relay.run(), summarizer.run(), consuming, keeper.run(), forgetting, watch.run())
        await serve(server, stop, *loops)
    finally:
        queries.close()
        await writer.stop()
        await keeper.finish()
        with contextlib.suppress(UnavailableError):  # the next start catches up
            await summarizer.settle()


if __name__ == "__main__":
    task = restore if sys.argv[1:] == ["rebuild"] else main
    run_service(NAME, task, os.environ.get("FINEMESH_LOG_LEVEL") or "INFO")
