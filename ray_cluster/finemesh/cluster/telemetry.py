"""What the supervisor brings to the run of its attempt beside the points: what the run is made of, and how
its processes use their machines.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask
from ray.exceptions import RayError

from finemesh.chassis.logs import get_logger
from finemesh.v1.lineage_pb2 import Lineage
from finemesh.v1.run_pb2 import Run
from finemesh.v1.tracking_service_pb2 import UpdateRunRequest

SAMPLE_SECONDS: Final = 5.0
# How often is asked whether rank 0 has begun to log.
_READY_SECONDS: Final = 0.5

_log = get_logger("finemesh.supervisor")


def lineage_request(run: str, lineage: bytes) -> UpdateRunRequest:
    """What tells Tracking of it."""
    told = Run(name=run, lineage=Lineage.FromString(lineage))
    return UpdateRunRequest(run=told, update_mask=FieldMask(paths=["lineage"]))


async def sample(actors: list[Any]) -> None:
    """Have every rank measure what it uses and rank 0, the first, log it; every few seconds until cancelled.

    What cannot be measured is no reason to end a run.
    """
    leader, *others = actors
    while True:
        try:
            measured = list(await asyncio.gather(*(each.sample.remote() for each in others)))
            logged: bool = await leader.log_system.remote(measured)
        except RayError as error:  # an actor has died, which the supervisor hears in other ways
            _log.info("not_sampled", error=str(error)[:200])
            return
        await asyncio.sleep(SAMPLE_SECONDS if logged else _READY_SECONDS)
