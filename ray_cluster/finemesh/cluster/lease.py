"""The lease of one attempt: renewed while it works, and over before anybody else may begin."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.logs import get_logger
from finemesh.core.errors import FencedError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from finemesh.v1 import attempt_pb2
from finemesh.v1 import attempt_service_pb2 as pb
from finemesh.v1.attempt_service_pb2_grpc import AttemptServiceStub

if TYPE_CHECKING:
    from finemesh.v1.attempt_service_pb2_grpc import AttemptServiceAsyncStub

# How long before its end a lease counts as lost: time to kill the worker.
MARGIN_SECONDS: Final = 2.0
_RENEWALS_PER_LEASE: Final = 6
_CALL_TIMEOUT_SECONDS: Final = 5.0
# How long the first renewal is tried for. Whether it comes too late the service alone says, by its own clock:
# the one of this machine may be wrong, so that nothing here is compared with a time of day.
_START_SECONDS: Final = 300.0
# The service knows better: this attempt does not count any more.
_OVER: Final = (FencedError, NotFoundError, PermissionDeniedError, UnauthenticatedError)

_log = get_logger("finemesh.lease")

Describe = Callable[[], pb.RenewLeaseRequest]


class Lease:
    """Holds the attempt's token. `held` is set by the first renewal: nothing is done before. `hold` returns
    when the lease is lost; `told_to_stop` is set when it is told to, for the reason in `directive` and by
    `stop_by`, on the monotonic clock.
    """

    def __init__(self, command: attempt_pb2.Command, lease_seconds: float) -> None:
        self.token = command.token
        self.held = asyncio.Event()
        self.told_to_stop = asyncio.Event()
        self.directive: pb.RenewLeaseResponse.Directive = pb.RenewLeaseResponse.DIRECTIVE_CONTINUE
        self.stop_by = math.inf
        self.lost_because = ""
        self._interval_seconds = lease_seconds / _RENEWALS_PER_LEASE
        self._end = time.monotonic() + _START_SECONDS
        self._wake = asyncio.Event()

    def current_token(self) -> str:
        """For channels: the newest token."""
        return self.token

    def renew_now(self) -> None:
        """Report at once: something happened that others wait for."""
        self._wake.set()

    async def hold(self, channel: grpc.aio.Channel, describe: Describe) -> None:
        """Renew until the lease is lost. `lost_because` then says why."""
        stub = AttemptServiceStub(channel)
        while True:
            margin = min(MARGIN_SECONDS, self._interval_seconds)
            left = self._end - margin - time.monotonic()
            if left <= 0:
                self.lost_because = "the lease could not be renewed in time"
                return
            pause = self._interval_seconds
            try:
                # A call that hangs must leave time for others within the same lease.
                await self._renew(stub, describe(), min(left, _CALL_TIMEOUT_SECONDS, self._interval_seconds))
            except grpc.aio.AioRpcError as error:
                cause = from_rpc_error(error)
                if isinstance(cause, _OVER):
                    self.lost_because = str(cause)
                    return
                _log.warning("lease_not_renewed", reason=cause.reason, seconds_left=round(left, 1))
                pause = min(0.5, self._interval_seconds, max(0.0, self._end - margin - time.monotonic()))
            self._wake.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _renew(
        self, stub: AttemptServiceAsyncStub, request: pb.RenewLeaseRequest, seconds: float
    ) -> None:
        # Counted from before the request: whatever the way took, our lease ends before the service's.
        sent = time.monotonic()
        answer = await stub.RenewLease(request, timeout=seconds)
        self.token = answer.token
        self._end = sent + answer.lease_seconds
        self.held.set()
        self._interval_seconds = min(self._interval_seconds, answer.lease_seconds / _RENEWALS_PER_LEASE)
        self.directive = answer.directive
        if answer.directive != pb.RenewLeaseResponse.DIRECTIVE_CONTINUE:
            self.stop_by = sent + answer.stop_seconds
            self.told_to_stop.set()
