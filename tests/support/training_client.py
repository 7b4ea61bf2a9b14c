"""A caller of the Training service, and the facts that the service publishes, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from finemesh.chassis.auth import Role, SigningKey
from finemesh.chassis.bus import BusConfig, NatsEventBus
from finemesh.chassis.client_channel import channel
from finemesh.chassis.events import Delivery, Event, event_subject, parse_event
from finemesh.v1 import fine_tune_spec_pb2, training_job_history_pb2, training_job_pb2
from finemesh.v1 import training_service_pb2 as pb
from finemesh.v1.training_service_pb2_grpc import TrainingServiceStub

from tests.support.scripted_cluster import translated
from tests.support.servers import PATIENCE_SECONDS

State = training_job_pb2.TrainingJob.State


class TrainingClient:
    """A caller of one project."""

    def __init__(self, address: str, key: SigningKey, project: str, role: Role = Role.OPERATOR) -> None:
        self.project = project
        self.parent = f"projects/{project}"
        token = key.mint("tester", role, [project], 600)
        self.channel = channel(address, lambda: token)
        self.stub = TrainingServiceStub(self.channel)

    async def call(self, method: str, request: Any) -> Any:
        with translated():
            return await getattr(self.stub, method)(request, timeout=PATIENCE_SECONDS)

    async def create(
        self, dataset_name: str, job_id: str = "", **fields: Any
    ) -> training_job_pb2.TrainingJob:
        request_fields = {key: fields.pop(key) for key in ("request_id", "validate_only") if key in fields}
        spec_fields = fields.pop("spec", {})
        job = training_job_pb2.TrainingJob(spec=make_spec(dataset_name, **spec_fields), **fields)
        request = pb.CreateTrainingJobRequest(
            parent=self.parent, training_job=job, training_job_id=job_id, **request_fields
        )
        return await self.call("CreateTrainingJob", request)

    async def get(self, name: str) -> training_job_pb2.TrainingJob:
        return await self.call("GetTrainingJob", pb.GetTrainingJobRequest(name=name))

    async def cancel(self, name: str) -> training_job_pb2.TrainingJob:
        return await self.call("CancelTrainingJob", pb.CancelTrainingJobRequest(name=name))

    async def pause(self, name: str) -> training_job_pb2.TrainingJob:
        return await self.call("PauseTrainingJob", pb.PauseTrainingJobRequest(name=name))

    async def resume(self, name: str) -> training_job_pb2.TrainingJob:
        return await self.call("ResumeTrainingJob", pb.ResumeTrainingJobRequest(name=name))

    async def set_priority(self, name: str, priority: int) -> training_job_pb2.TrainingJob:
        request = pb.SetTrainingJobPriorityRequest(name=name, priority=priority)
        return await self.call("SetTrainingJobPriority", request)

    async def history(self, name: str) -> list[training_job_history_pb2.TrainingJobHistoryEntry]:
        """All of it, page by page."""
        request = pb.ListTrainingJobHistoryRequest(parent=name, page_size=7)
        entries: list[training_job_history_pb2.TrainingJobHistoryEntry] = []
        while True:
            page = await self.call("ListTrainingJobHistory", request)
            entries += page.entries
            request.page_token = page.next_page_token
            if not request.page_token:
                return entries

    async def delete(self, name: str) -> None:
        await self.call("DeleteTrainingJob", pb.DeleteTrainingJobRequest(name=name))

    async def cancel_all(self) -> None:
        """Cancel what has not ended."""
        listed = await self.call("ListTrainingJobs", pb.ListTrainingJobsRequest(parent=self.parent))
        for job in listed.training_jobs:
            if not job.HasField("end_time"):
                await self.cancel(job.name)

    async def checkpoints(self, name: str) -> list[training_job_pb2.Checkpoint]:
        response = await self.call("ListCheckpoints", pb.ListCheckpointsRequest(parent=name))
        return list(response.checkpoints)

    async def until(
        self,
        name: str,
        wanted: str | Callable[[training_job_pb2.TrainingJob], bool],
        timeout_seconds: float = PATIENCE_SECONDS,
    ) -> training_job_pb2.TrainingJob:
        """Watch until the job is in state `wanted`, or until `wanted` holds of it."""
        last = None
        try:
            async with asyncio.timeout(timeout_seconds):
                with translated():
                    async for job in self.stub.WatchTrainingJob(pb.WatchTrainingJobRequest(name=name)):
                        last = job
                        name_of_state = State.Name(job.state).removeprefix("STATE_")
                        if wanted(job) if callable(wanted) else name_of_state == wanted:
                            return job
        except TimeoutError:
            raise AssertionError(f"not {wanted}; last seen: {last}") from None
        raise AssertionError(f"the watch ended before {wanted}; last seen: {last}")


def make_spec(dataset_name: str, **fields: Any) -> fine_tune_spec_pb2.FineTuneSpec:
    fields.setdefault("task", "TASK_VISION_LANGUAGE")
    fields.setdefault("base_model", "tiny-llava")
    fields.setdefault("lora", fine_tune_spec_pb2.LoraMethod(rank=4))
    return fine_tune_spec_pb2.FineTuneSpec(dataset=dataset_name, **fields)


class FactLog:
    """The events about one project's resources of a kind, in the order of their delivery."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    async def until(self, last: str) -> list[Event]:
        """Every event up to the first `last`, waiting for it."""
        events: list[Event] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not events or events[-1].fact != last:
                events.append(await self._events.get())
        return events

    async def names_until(self, last: str) -> list[str]:
        return [event.fact for event in await self.until(last)]

    async def note(self, delivery: Delivery) -> None:
        self._events.put_nowait(parse_event(delivery))


@contextlib.asynccontextmanager
async def following(nats_url: str, noun: str, project: str) -> AsyncGenerator[FactLog]:
    """The facts about `noun` in `project`, from the first on."""
    bus, facts = NatsEventBus(BusConfig((nats_url,), "test")), FactLog()
    await bus.start()
    subject = event_subject(noun, "*", project, "*")
    task = asyncio.create_task(bus.consume(f"test-{noun}-{project}", subject, facts.note))
    try:
        yield facts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bus.close()
