"""Evaluations on local disk, between the loop that made them and Tracking's word that they are durable.

One file each, a serialised `finemesh.v1.LogEvaluationRequest`, beside the spools of points. It appears whole,
under its name, so whatever is killed leaves either all of it or nothing; Tracking recognises one that comes
again. What Tracking will not have is kept under another name for people to look at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc.aio

from finemesh.chassis.errors import from_rpc_error
from finemesh.chassis.logs import get_logger
from finemesh.cluster.shipper import REFUSALS
from finemesh.cluster.spool import remove_spool
from finemesh.core.errors import AlreadyExistsError, FencedError
from finemesh.v1.evaluation_service_pb2 import LogEvaluationRequest
from finemesh.v1.evaluation_service_pb2_grpc import EvaluationServiceStub

SUFFIX: Final = ".evaluation"
_POLL_SECONDS: Final = 0.1
_BACK_OFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)

_log = get_logger("finemesh.evaluations")


def write_evaluation(path: Path, content: bytes) -> None:
    """A file that is there as a whole or not at all, also after a crash of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def evaluations_of(folder: Path) -> list[Path]:
    """The evaluations of a job that are still there, in the order in which they were made."""
    return sorted(folder.glob(f"*{SUFFIX}"))


async def ship_evaluations(tracking: grpc.aio.Channel, folder: Path, complete: Callable[[], bool]) -> None:
    """Bring the evaluations in `folder` to Tracking until `complete()` says that no more will come.

    Tracking being away is waited for without end. Raises FencedError when a later attempt has taken over.
    """
    stub: Any = EvaluationServiceStub(tracking)
    failures = 0
    while True:
        last = complete()  # asked before looking: what was written before is then surely seen
        paths = evaluations_of(folder)
        for path in paths:
            try:
                await _ship(stub, path)
                failures = 0
            except grpc.aio.AioRpcError:
                failures += 1
                break
        if last and not paths:
            return
        if failures:
            await asyncio.sleep(_BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS)) - 1])
        elif not paths:
            await asyncio.sleep(_POLL_SECONDS)


async def _ship(stub: Any, path: Path) -> None:
    """Bring one; raises AioRpcError where trying again may help, and FencedError."""
    request = LogEvaluationRequest.FromString(await asyncio.to_thread(path.read_bytes))
    try:
        await stub.LogEvaluation(request)
    except grpc.aio.AioRpcError as error:
        cause = from_rpc_error(error)
        if isinstance(cause, FencedError):
            raise cause from error
        if not isinstance(cause, (*REFUSALS, AlreadyExistsError)):
            raise
        await asyncio.to_thread(path.rename, path.with_suffix(".refused"))
        _log.warning("evaluation_refused", file=str(path), reason=cause.reason, error=str(cause))
    else:
        remove_spool(path)
