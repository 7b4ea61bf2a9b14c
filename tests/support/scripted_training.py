"""A Training that answers GetTrainingJob and ListCheckpoints from what the test puts into it."""

from __future__ import annotations

import hashlib
from typing import Any

from finemesh.core.errors import NotFoundError
from finemesh.v1 import fine_tune_spec_pb2, training_job_pb2, training_service_pb2

from tests.support.scripted_service import ScriptedMethod, ScriptedService


class ScriptedTraining(ScriptedService):
    """Knows the jobs in `jobs`, and their checkpoints, latest first."""

    def __init__(self, port: int) -> None:
        self.jobs: dict[str, training_job_pb2.TrainingJob] = {}
        self.checkpoints: dict[str, list[training_job_pb2.Checkpoint]] = {}
        methods = {
            "GetTrainingJob": ScriptedMethod(training_service_pb2.GetTrainingJobRequest, self._get),
            "ListCheckpoints": ScriptedMethod(training_service_pb2.ListCheckpointsRequest, self._list),
        }
        super().__init__(port, "finemesh.v1.TrainingService", methods)

    def add(self, project: str, job_id: str, dataset: str, **fields: Any) -> str:
        """A job that has succeeded, with checkpoints of steps 40, 30 and 20, of which 20 is the best."""
        name = f"projects/{project}/trainingJobs/{job_id}"
        spec = fine_tune_spec_pb2.FineTuneSpec(
            task="TASK_VISION_LANGUAGE",
            base_model="tiny-llava",
            dataset=dataset,
            lora=fine_tune_spec_pb2.LoraMethod(rank=4),
        )
        fields = {"state": "STATE_SUCCEEDED", "spec": spec, **fields}
        self.jobs[name] = training_job_pb2.TrainingJob(
            name=name, run=f"projects/{project}/runs/{job_id}", **fields
        )
        self.checkpoints[name] = [
            training_job_pb2.Checkpoint(
                step=step,
                uri=f"s3://finemesh-test/{name}/checkpoints/step-{step:08}-a1",
                manifest_sha256=hashlib.sha256(str(step).encode()).hexdigest(),
                best=step == 20,
            )
            for step in (40, 30, 20)
        ]
        return name

    def _get(self, request: training_service_pb2.GetTrainingJobRequest) -> training_job_pb2.TrainingJob:
        if request.name not in self.jobs:
            raise NotFoundError(f"there is no {request.name}", reason="TRAINING_JOB_NOT_FOUND")
        return self.jobs[request.name]

    def _list(
        self, request: training_service_pb2.ListCheckpointsRequest
    ) -> training_service_pb2.ListCheckpointsResponse:
        """One checkpoint a page, so that callers have to ask on."""
        at = int(request.page_token or 0)
        found = self.checkpoints[request.parent]
        token = str(at + 1) if at + 1 < len(found) else ""
        return training_service_pb2.ListCheckpointsResponse(
            checkpoints=found[at : at + 1], next_page_token=token
        )
