"""A DataPrep that answers GetDataset from what the test puts into it."""

from __future__ import annotations

from typing import Any

from finemesh.core.errors import NotFoundError
from finemesh.v1 import dataprep_service_pb2, dataset_pb2, ledger_pb2

from tests.support.scripted_service import ScriptedMethod, ScriptedService


class ScriptedDataPrep(ScriptedService):
    """Knows the datasets in `datasets`."""

    def __init__(self, port: int) -> None:
        self.datasets: dict[str, dataset_pb2.Dataset] = {}
        methods = {"GetDataset": ScriptedMethod(dataprep_service_pb2.GetDatasetRequest, self._get)}
        super().__init__(port, "finemesh.v1.DataPrepService", methods)

    def add(self, dataset: dataset_pb2.Dataset) -> str:
        """Returns its name."""
        self.datasets[dataset.name] = dataset
        return dataset.name

    def add_trainable(self, project: str, *, quarantined: int = 0) -> str:
        """An import of 100 rows, converted, then split; returns its name.

        `quarantined` of the imported rows were set aside.
        """
        parent = f"projects/{project}/datasets"
        origin = dataset_pb2.ImportOrigin(upload=f"projects/{project}/uploads/u")
        self.add(make_dataset(f"{parent}/raw", quarantined=quarantined, imported_from=origin))
        converted = dataset_pb2.ConvertOrigin(
            dataset=f"{parent}/raw",
            format="DATASET_FORMAT_CANONICAL",
            instruction="INSTRUCTION_TASK_CLASSIFY_REGION",
        )
        self.add(make_dataset(f"{parent}/chat", converted_from=converted))
        split = dataset_pb2.SplitOrigin(dataset=f"{parent}/chat")
        return self.add(make_dataset(f"{parent}/split", split_from=split))

    def _get(self, request: dataprep_service_pb2.GetDatasetRequest) -> dataset_pb2.Dataset:
        if request.name not in self.datasets:
            raise NotFoundError(f"there is no {request.name}", reason="DATASET_NOT_FOUND")
        return self.datasets[request.name]


def make_dataset(name: str, *, quarantined: int = 0, **fields: Any) -> dataset_pb2.Dataset:
    """A complete dataset in canonical form with three splits; `fields` override."""
    fields.setdefault("state", "STATE_SUCCEEDED")
    fields.setdefault("format", "DATASET_FORMAT_CANONICAL")
    counts = {"train": 70, "val": 10, "test": 20}
    summary = dataset_pb2.DatasetSummary(
        row_count=100 - quarantined,
        splits=[dataset_pb2.SplitCount(split=split, rows=rows) for split, rows in counts.items()],
        ledger=ledger_pb2.LedgerSummary(inputs=100, kept=100 - quarantined, quarantined=quarantined),
    )
    return dataset_pb2.Dataset(name=name, summary=summary, **fields)
