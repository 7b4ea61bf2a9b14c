"""`finemesh.v1.SweepService`: messages to use cases and back."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final

from google.protobuf.empty_pb2 import Empty

from finemesh.chassis.auth import Role, authorised
from finemesh.chassis.requests import request_key
from finemesh.chassis.watch import Notifier, watch
from finemesh.core.clock import Clock
from finemesh.core.errors import NotFoundError, PreconditionError
from finemesh.core.names import Name, check_id, new_id, parse_name, parse_project
from finemesh.core.requests import PageRequest
from finemesh.core.states import SweepState as State
from finemesh.training.scheduler import Scheduler
from finemesh.training.service import TrainingService
from finemesh.training.sweeps import domain
from finemesh.training.sweeps.convert import Work, sweep_to_proto
from finemesh.training.sweeps.domain import Sweep
from finemesh.training.sweeps.drafts import draft, job_of
from finemesh.training.sweeps.store import COLLECTION, SweepStore
from finemesh.v1 import sweep_pb2
from finemesh.v1 import sweep_service_pb2 as pb
from finemesh.v1.sweep_service_pb2_grpc import SweepServiceServicer

_REREAD_SECONDS: Final = 1.0  # the jobs of its trials change without it


class SweepServicer(SweepServiceServicer):
    """Viewers read; operators and above write."""

    def __init__(
        self,
        store: SweepStore,
        service: TrainingService,
        scheduler: Scheduler,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._store = store
        self._service = service
        self._scheduler = scheduler
        self._notifier = notifier
        self._clock = clock

    async def CreateSweep(self, request: pb.CreateSweepRequest, context: Any) -> sweep_pb2.Sweep:
        project = authorised(parse_project(request.parent), Role.OPERATOR)
        key = request_key(project, "CreateSweep", request)
        if request.sweep_id:
            check_id(request.sweep_id, "sweep_id")
        name = Name(project, COLLECTION, request.sweep_id or new_id("sw"))
        # A thread: the specs of hundreds of trials take most of a second.
        sweep = await asyncio.to_thread(draft, name, request.sweep, self._clock.now())
        if request.validate_only:
            await self._require_admissible(sweep)
            return sweep_to_proto(sweep, {})
        async with self._store.begin() as unit:
            earlier = await unit.claim(key, name)
            if earlier is None:
                await unit.add(domain.started(sweep))
        return sweep_to_proto(*await self._read(earlier or name))

    async def GetSweep(self, request: pb.GetSweepRequest, context: Any) -> sweep_pb2.Sweep:
        return sweep_to_proto(*await self._read(_name(request.name, Role.VIEWER)))

    async def ListSweeps(self, request: pb.ListSweepsRequest, context: Any) -> pb.ListSweepsResponse:
        project = authorised(parse_project(request.parent), Role.VIEWER)
        async with self._store.read() as view:
            sweeps, token = await view.sweeps(project, PageRequest.of(request))
        return pb.ListSweepsResponse(
            sweeps=[sweep_to_proto(sweep) for sweep in sweeps], next_page_token=token
        )

    async def WatchSweep(
        self, request: pb.WatchSweepRequest, context: Any
    ) -> AsyncGenerator[sweep_pb2.Sweep]:
        name = _name(request.name, Role.VIEWER)
        states = watch(
            self._notifier,
            str(name),
            lambda: self._read(name),
            version=lambda read: (read[0].revision, sum(work.revision for work in read[1].values())),
            terminal=lambda read: read[0].terminal,
            reread_seconds=_REREAD_SECONDS,
        )
        async for sweep, works in states:
            yield sweep_to_proto(sweep, works)

    async def CancelSweep(self, request: pb.CancelSweepRequest, context: Any) -> sweep_pb2.Sweep:
        name = _name(request.name, Role.OPERATOR)
        async with self._store.begin() as unit:
            sweep = await unit.locked(name)
            if sweep.state not in {State.CANCELLING, State.CANCELLED}:
                if sweep.terminal:
                    raise PreconditionError(
                        f"{name} has {sweep.state} already: there is nothing to cancel",
                        reason="SWEEP_ENDED",
                        metadata={"sweep": str(name), "state": sweep.state},
                    )
                await unit.save(sweep, domain.cancel_asked(sweep, self._clock.now()))
        return sweep_to_proto(*await self._read(name))

    async def DeleteSweep(self, request: pb.DeleteSweepRequest, context: Any) -> Empty:
        name = _name(request.name, Role.OPERATOR)
        sweep, _ = await self._read(name)
        if not sweep.terminal:
            raise PreconditionError(
                f"{name} is {sweep.state}: cancel it and wait for its end, then delete it",
                reason="SWEEP_LIVE",
                metadata={"sweep": str(name), "state": sweep.state},
            )
        if request.force:
            for trial in sweep.trials:
                with contextlib.suppress(NotFoundError):
                    await self._service.delete(sweep.job_name(trial.number))
        async with self._store.begin() as unit:
            await unit.remove(name)
        return Empty()

    async def _require_admissible(self, sweep: Sweep) -> None:
        """Raises what CreateTrainingJob would, of the first trial on each dataset."""
        jobs = [job_of(sweep, trial, self._clock.now()) for trial in reversed(sweep.trials)]
        for job in {(job.spec.dataset, job.spec.train_split): job for job in jobs}.values():
            await self._scheduler.require_admissible(job)

    async def _read(self, name: Name) -> tuple[Sweep, dict[int, Work]]:
        async with self._store.read() as view:
            sweep = await view.sweep(name)
            return sweep, await view.works(sweep, self._clock.now())


def _name(value: str, role: Role) -> Name:
    name = parse_name(value, COLLECTION)
    authorised(name.project, role)
    return name
