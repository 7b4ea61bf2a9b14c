"""Generated base classes refuse what their service does not override: nothing is left to them."""

from __future__ import annotations

from typing import Any

import pytest
from finemesh.chassis.attempts_servicer import AttemptServicer
from finemesh.dataprep.servicer import DataPrepServicer
from finemesh.export.servicer import ExportServicer
from finemesh.tracking.alert_servicer import AlertServicer
from finemesh.tracking.evaluation_servicer import EvaluationServicer
from finemesh.tracking.servicer import TrackingServicer
from finemesh.training.quota_servicer import QuotaServicer
from finemesh.training.servicer import TrainingServicer
from finemesh.training.sweeps.servicer import SweepServicer
from finemesh.training.workers.servicer import ClusterServicer, WorkerServicer
from finemesh.v1 import (
    alert_service_pb2,
    attempt_service_pb2,
    dataprep_service_pb2,
    evaluation_service_pb2,
    export_service_pb2,
    quota_service_pb2,
    sweep_service_pb2,
    tracking_service_pb2,
    training_service_pb2,
    worker_service_pb2,
)

SERVICES: list[tuple[Any, Any]] = [
    (alert_service_pb2, AlertServicer),
    (attempt_service_pb2, AttemptServicer),
    (attempt_service_pb2, ClusterServicer),
    (dataprep_service_pb2, DataPrepServicer),
    (evaluation_service_pb2, EvaluationServicer),
    (export_service_pb2, ExportServicer),
    (quota_service_pb2, QuotaServicer),
    (sweep_service_pb2, SweepServicer),
    (tracking_service_pb2, TrackingServicer),
    (training_service_pb2, TrainingServicer),
    (worker_service_pb2, WorkerServicer),
]


@pytest.mark.parametrize(("contract", "servicer"), SERVICES)
def test_every_rpc_of_the_contract_is_implemented(contract: Any, servicer: Any) -> None:
    [service] = contract.DESCRIPTOR.services_by_name.values()
    homes = {method.name: getattr(servicer, method.name).__module__ for method in service.methods}
    assert homes
    assert not [name for name, home in homes.items() if home.startswith("finemesh.v1.")]
