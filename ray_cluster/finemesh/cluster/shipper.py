"""Carries a spool to Tracking until every batch is durable there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.logs import get_logger
from finemesh.client.carrier import Carrier
from finemesh.cluster.spool import remove_spool
from finemesh.core.errors import (
    FencedError,
    FinemeshError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
)
from finemesh.v1.tracking_service_pb2 import LogMetricsRequest
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub

# Each look takes a fifth of a millisecond from the steps of the worker beside it.
_POLL_SECONDS: Final = 0.05
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
        # A reading of this stream's own: the last stream's may still be in use while it is being cancelled.
        carrier = Carrier(self._path, self._durable)
        call = self._stub.LogMetrics(self._batches(carrier, complete))
        with contextlib.closing(_Cancelling(call)):
            async for answer in call:
                carrier.acknowledge(answer.durable_sequence)
                self._durable = carrier.durable

    async def _batches(
        self, carrier: Carrier, complete: Callable[[], bool]
    ) -> AsyncIterator[LogMetricsRequest]:
        while True:
            # Asked before reading: what was written before the writer ended is then surely read.
            last = complete()
            batches = carrier.waiting()
            for batch in batches:
                yield LogMetricsRequest(batch=batch)
            if not batches:
                if last and carrier.is_done:
                    self._finished = True
                    return
                await asyncio.sleep(_POLL_SECONDS)


class _Cancelling:
    def __init__(self, call: grpc.aio.Call) -> None:
        self._call = call

    def close(self) -> None:
        self._call.cancel()
