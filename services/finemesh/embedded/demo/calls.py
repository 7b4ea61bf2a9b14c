"""The demo's calls to the mesh: each starts something and follows it to its end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from finemesh.client import Connection, download_files, upload_source, wait_for
from finemesh.core.errors import FinemeshError
from finemesh.embedded.demo.progress import Display
from finemesh.v1 import (
    dataprep_service_pb2,
    dataset_pb2,
    export_pb2,
    export_service_pb2,
    tracking_service_pb2,
    training_job_pb2,
    training_service_pb2,
    validation_report_pb2,
)
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec

T = TypeVar("T")
_GOOD: Final = "SUCCEEDED"


class Calls:
    """RPCs over one connection, with their progress on a display."""

    def __init__(self, connection: Connection, display: Display) -> None:
        self.connection = connection
        self._display = display

    def import_source(self, source: Path, dataset_id: str) -> dataset_pb2.Dataset:
        """Upload a source and have it compiled."""
        size = source.stat().st_size if source.is_file() else 0
        with self._display.bar(f"uploading {source.name}") as update:
            sent = 0

            def on_bytes(count: int) -> None:
                nonlocal sent
                sent += count
                update(sent / size if size else 0.5, f"{sent / 1e6:.1f} MB")

            upload = upload_source(self.connection, source, on_bytes)
        origin = dataset_pb2.ImportOrigin(upload=upload)
        return self.make(dataset_id, dataset_pb2.Dataset(display_name=source.name, imported_from=origin))

    def make(self, dataset_id: str, dataset: dataset_pb2.Dataset) -> dataset_pb2.Dataset:
        """Have a dataset made, and wait for it."""
        stub = self.connection.dataprep
        made = stub.CreateDataset(
            dataprep_service_pb2.CreateDatasetRequest(
                parent=self.connection.parent,
                dataset=dataset,
                dataset_id=dataset_id,
                request_id=_request_id(),
            )
        )
        request = dataprep_service_pb2.WatchDatasetRequest(name=made.name)
        return self._follow(f"dataset {dataset_id}", lambda: stub.WatchDataset(request), dataset_pb2.Dataset)

    def validate(self, dataset: str) -> validation_report_pb2.ValidationReport:
        """Have a dataset validated, and wait for the report."""
        stub = self.connection.dataprep
        report = stub.ValidateDataset(
            dataprep_service_pb2.ValidateDatasetRequest(name=dataset, request_id=_request_id())
        )
        request = dataprep_service_pb2.WatchValidationReportRequest(name=report.name)
        kind = validation_report_pb2.ValidationReport
        return self._follow("validating", lambda: stub.WatchValidationReport(request), kind)

    def download_dataset(self, dataset: str, folder: Path) -> None:
        """Fetch the files of a dataset through the gateway."""
        request = dataprep_service_pb2.ListDatasetFilesRequest(parent=dataset, page_size=500)
        download_files(self.connection.dataprep.ListDatasetFiles(request).files, folder)

    def submit(self, job_id: str, spec: FineTuneSpec) -> training_job_pb2.TrainingJob:
        """Submit a job; see `follow_job`."""
        return self.connection.training.CreateTrainingJob(
            training_service_pb2.CreateTrainingJobRequest(
                parent=self.connection.parent,
                training_job=training_job_pb2.TrainingJob(display_name=job_id, spec=spec),
                training_job_id=job_id,
                request_id=_request_id(),
            )
        )

    def follow_job(
        self, name: str, on_change: Callable[[training_job_pb2.TrainingJob], None]
    ) -> training_job_pb2.TrainingJob:
        """Wait for a job; `on_change` sees every version."""
        request = training_service_pb2.WatchTrainingJobRequest(name=name)
        kind = training_job_pb2.TrainingJob
        stub = self.connection.training
        title = f"training {name.rsplit('/', 1)[-1]}"
        return self._follow(title, lambda: stub.WatchTrainingJob(request), kind, on_change)

    def losses(self, run: str) -> tuple[float, float]:
        """First and last training loss of a run."""
        request = tracking_service_pb2.QueryMetricsRequest(
            parent=self.connection.parent, runs=[run], keys=["train/loss"], max_points=10_000
        )
        (series,) = self.connection.tracking.QueryMetrics(request).series
        return series.values[0], series.values[-1]

    def metrics(self, run: str) -> dict[str, float]:
        """Last value of each metric of a run."""
        found = self.connection.tracking.GetRun(tracking_service_pb2.GetRunRequest(name=run))
        return {metric.key: metric.last_value for metric in found.metrics}

    def compare(self, runs: list[str]) -> tracking_service_pb2.CompareRunsResponse:
        """Set runs side by side."""
        request = tracking_service_pb2.CompareRunsRequest(parent=self.connection.parent, runs=runs)
        return self.connection.tracking.CompareRuns(request)

    def export(self, job: str, export_format: export_pb2.ExportFormat, export_id: str) -> export_pb2.Export:
        """Have a package made and proven."""
        stub = self.connection.export
        made = stub.CreateExport(
            export_service_pb2.CreateExportRequest(
                parent=self.connection.parent,
                export=export_pb2.Export(training_job=job, format=export_format),
                export_id=export_id,
                request_id=_request_id(),
            )
        )
        request = export_service_pb2.WatchExportRequest(name=made.name)
        return self._follow(f"export {export_id}", lambda: stub.WatchExport(request), export_pb2.Export)

    def download_export(self, name: str, target: Path) -> int:
        """Fetch a package as one ZIP through the gateway. Returns its size in bytes."""
        target.parent.mkdir(parents=True, exist_ok=True)
        request = export_service_pb2.DownloadExportRequest(name=name)
        with target.open("wb") as stream:
            for body in self.connection.export.DownloadExport(request):
                stream.write(body.data)
        return target.stat().st_size

    def _follow(
        self,
        title: str,
        watch: Callable[[], Iterator[T]],
        kind: Any,
        on_change: Callable[[T], None] | None = None,
    ) -> T:
        """Wait for a resource with a bar. Raises FinemeshError, reason WORK_FAILED, unless it succeeds."""
        live = {kind.STATE_QUEUED, kind.STATE_RUNNING, kind.STATE_CANCELLING}
        live |= {getattr(kind, name, kind.STATE_QUEUED) for name in ("STATE_VALIDATING", "STATE_STARTING")}
        live.add(getattr(kind, "STATE_VERIFYING", kind.STATE_QUEUED))
        with self._display.bar(title) as update:

            def changed(version: Any) -> None:
                state = kind.State.Name(version.state).removeprefix("STATE_").lower()
                update(version.progress.fraction, version.progress.message or state)
                if on_change:
                    on_change(version)

            ended: Any = wait_for(watch, lambda version: version.state not in live, changed)  # pyright: ignore[reportAttributeAccessIssue]
        if kind.State.Name(ended.state) != f"STATE_{_GOOD}":
            state = kind.State.Name(ended.state).removeprefix("STATE_")
            raise FinemeshError(f"{ended.name} has {state}: {ended.error.message}", reason="WORK_FAILED")
        return ended


def _request_id() -> str:
    return str(uuid.uuid4())
