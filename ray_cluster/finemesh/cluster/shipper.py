"""Carries a spool to Tracking until every batch is durable there.

Batches that wait travel together. Where Tracking knows less than it has acknowledged, since its points had to
be rebuilt without the last of them, the spool is sent again from there; what has been removed from it by then
is marked as left out, so that the curve goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.logs import get_logger
from finemesh.client.spool import PartsReader, merged
from finemesh.cluster.spool import remove_spool
from finemesh.core.errors import (
    FencedError,
    FinemeshError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
)
from finemesh.v1.metric_pb2 import MetricBatch
from finemesh.v1.tracking_service_pb2 import LogMetricsRequest
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub

POLL_SECONDS: Final = 0.05
MAX_POINTS_TOGETHER: Final = 10_000
_BACK_OFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)
# Trying again cannot help: what is sent is not wanted.
REFUSALS: Final = (FencedError, PermissionDeniedError, InvalidError, NotFoundError)

_log = get_logger("finemesh.shipper")


class Shipper:
    """One spool on its way. `ship` returns when the spool is complete and durable, and removes it."""

    def __init__(self, tracking: grpc.aio.Channel, path: Path) -> None:
        self._stub = TrackingServiceStub(tracking)
        self._path = path
        self._durable = 0
        self._sent = 0
        self._finished = False

    async def ship(self, complete: Callable[[], bool]) -> None:
        """Ship until `complete()` says that nothing more will be written and all of it is durable.

        Tracking being away is waited for without end. Raises FencedError, PermissionDeniedError, InvalidError
        or NotFoundError when Tracking does not want the points.
        """
        failures = 0
        while True:
            before = self._durable
            try:
                await self._stream(complete)
                if self._finished:
                    remove_spool(self._path)
                    return
            except grpc.aio.AioRpcError as error:
                cause = from_rpc_error(error)
                if isinstance(cause, REFUSALS):
                    _log.warning(
                        "points_refused", spool=str(self._path), reason=cause.reason, error=str(cause)
                    )
                    raise cause from error
                self._go_back(cause)
            failures = 0 if self._durable > before else failures + 1
            await asyncio.sleep(_BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)])

    def _go_back(self, cause: FinemeshError) -> None:
        """To what Tracking says is durable, if that is less than it said before."""
        if cause.reason == "SEQUENCE_GAP":
            self._durable = min(self._durable, int(cause.metadata["durable_sequence"]))
            _log.warning("spool_sent_again", spool=str(self._path), after=self._durable)

    async def _stream(self, complete: Callable[[], bool]) -> None:
        """One stream, from the first batch that is not durable to the end. Raises AioRpcError."""
        self._sent = 0
        # A reader of this stream's own: the last stream's may still be in use while it is being cancelled.
        reader = PartsReader(self._path)
        call = self._stub.LogMetrics(self._batches(reader, complete))
        with contextlib.closing(_Cancelling(call)):
            async for answer in call:
                self._durable = max(self._durable, answer.durable_sequence)
                _remove_durable(reader, self._durable)

    async def _batches(
        self, reader: PartsReader, complete: Callable[[], bool]
    ) -> AsyncIterator[LogMetricsRequest]:
        while True:
            # Asked before reading: what was written before the writer ended is then surely read.
            last = complete()
            batches = reader.read()
            for batch in _together([each for each in batches if each.sequence > self._durable]):
                first = batch.sequence - max(len(batch.lengths) - 1, 0)
                expected = max(self._sent, self._durable) + 1
                if first > expected:
                    yield LogMetricsRequest(batch=_left_out(batch, expected, first - 1))
                self._sent = batch.sequence
                yield LogMetricsRequest(batch=batch)
            if not batches:
                if last and self._durable >= self._sent:
                    self._finished = True
                    return
                await asyncio.sleep(POLL_SECONDS)


def _together(batches: Sequence[MetricBatch]) -> Iterator[MetricBatch]:
    """Batches as few that carry as many. One that tells of points left out is the first of its own."""
    group: list[MetricBatch] = []
    points = 0
    for batch in batches:
        if group and (batch.thinned_points or points + len(batch.steps) > MAX_POINTS_TOGETHER):
            yield merged(group) if len(group) > 1 else group[0]
            group, points = [], 0
        group.append(batch)
        points += len(batch.steps)
    if group:
        yield merged(group) if len(group) > 1 else group[0]


def _left_out(following: MetricBatch, first: int, last: int) -> MetricBatch:
    """In place of batches that are nowhere any more: at least one point each."""
    count = last - first + 1
    return MetricBatch(
        run=following.run,
        attempt=following.attempt,
        sequence=last,
        lengths=[0] * count,
        thinned_points=count,
    )


def _remove_durable(reader: PartsReader, durable: int) -> None:
    while reader.finished and reader.finished[0][1] <= durable:
        path, _ = reader.finished.pop(0)
        path.unlink(missing_ok=True)


class _Cancelling:
    def __init__(self, call: grpc.aio.Call) -> None:
        self._call = call

    def close(self) -> None:
        self._call.cancel()
