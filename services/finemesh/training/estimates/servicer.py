"""What the Training service says of estimates: asked for alone, and with a job that is submitted."""

from __future__ import annotations

from dataclasses import replace

import structlog

from finemesh.chassis.fine_tune_spec import spec_from_proto
from finemesh.core.errors import InvalidError
from finemesh.core.names import parse_name
from finemesh.core.spec.estimate.base_model import BaseModel
from finemesh.training.estimates.convert import base_model_from_proto, estimate_to_proto, known_from_proto
from finemesh.training.estimates.domain import Known
from finemesh.training.estimates.estimator import Estimator, require_fit
from finemesh.training.estimates.stored_models import StoredModels
from finemesh.training.job import TrainingJob
from finemesh.v1 import estimate_pb2
from finemesh.v1 import training_service_pb2 as pb

log = structlog.get_logger(__name__)


class Estimates:
    """`price` is that of a GPU for an hour, in `currency`; 0 if there is none."""

    def __init__(self, estimator: Estimator, models: StoredModels, price: float, currency: str) -> None:
        self._estimator = estimator
        self._models = models
        self._price = price
        self._currency = currency

    async def of_request(
        self, request: pb.EstimateTrainingJobRequest, project: str
    ) -> estimate_pb2.TrainingEstimate:
        """Raises InvalidError: the spec is wrong, or nothing is known of its base model."""
        spec = spec_from_proto(request.spec)
        if parse_name(spec.dataset, "datasets").project != project:
            raise InvalidError.of("spec.dataset", f"{spec.dataset} is not in project {project!r}")
        base = await self._stored(spec.base_model, project) if not request.HasField("base_model") else None
        estimate = await self._estimator.estimate(spec, known_from_proto(request, base))
        return estimate_to_proto(estimate, self._price, self._currency)

    async def _stored(self, model: str, project: str) -> BaseModel | None:
        return await self._models.read(model, project) if self._models.holds(model) else None

    async def of_draft(self, request: pb.CreateTrainingJobRequest, job: TrainingJob) -> TrainingJob:
        """`job` with its estimate, if the caller says what is known of the base model or it is in our bucket.

        Raises PreconditionError, reason DOES_NOT_FIT: no cluster has the memory, and nobody waives that.
        """
        try:
            if request.HasField("base_model"):
                base = base_model_from_proto(request.base_model, "base_model")
            else:
                base = await self._stored(job.spec.base_model, job.name.project)
            if base is None:
                return job
            estimate = await self._estimator.estimate(job.spec, Known(base))
        except InvalidError as error:  # what cannot be estimated is not refused for that
            log.info("job_not_estimated", job=str(job.name), reason=error.reason, error=error.message)
            return job
        if not request.training_job.admit_oversized:
            require_fit(estimate)
        return replace(job, estimate=estimate)
