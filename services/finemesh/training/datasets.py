"""DataPrep as Training sees it, over gRPC."""

from __future__ import annotations

from typing import Final

import grpc.aio

from finemesh.chassis.errors import from_rpc_error
from finemesh.training.ports import DatasetFacts
from finemesh.v1 import dataprep_service_pb2, dataset_pb2
from finemesh.v1.dataprep_service_pb2_grpc import DataPrepServiceStub

TIMEOUT_SECONDS: Final = 5.0


class DataPrepDatasets:
    """Implements `ports.Datasets`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = DataPrepServiceStub(channel)

    async def describe(self, name: str) -> DatasetFacts:
        request = dataprep_service_pb2.GetDatasetRequest(name=name)
        try:
            dataset = await self._stub.GetDataset(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return facts_of(dataset)


def facts_of(dataset: dataset_pb2.Dataset) -> DatasetFacts:
    """What matters of a dataset for training."""
    summary = dataset.summary
    converted = dataset.converted_from
    return DatasetFacts(
        name=dataset.name,
        state=dataset_pb2.Dataset.State.Name(dataset.state).removeprefix("STATE_"),
        canonical=dataset.format == dataset_pb2.DATASET_FORMAT_CANONICAL,
        split_rows={each.split: each.rows for each in summary.splits},
        inputs=summary.ledger.inputs,
        quarantined=summary.ledger.quarantined,
        # A source may hold conversations already. Datasets made before they were counted have the other mark.
        makes_conversations=bool(summary.conversation_count)
        or converted.instruction != dataset_pb2.INSTRUCTION_TASK_UNSPECIFIED,
        parent=converted.dataset or dataset.split_from.dataset,
        object_classes=len(summary.classes),
        row_classes=len({each.class_name for each in summary.class_splits if each.rows and not each.objects}),
    )
