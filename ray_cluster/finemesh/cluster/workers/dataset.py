"""Datasets: import, split, convert, validate. A dataset is visible once its manifest is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from finemesh.chassis import dataset_options
from finemesh.cluster import convert
from finemesh.cluster.worker import Job
from finemesh.cluster.workers.conversion import convert_in_parts
from finemesh.cluster.workers.sources import fetch_source
from finemesh.cluster.workers.store import Store
from finemesh.core.attempts import Phase
from finemesh.core.spec.data import DatasetManifest
from finemesh.v1.attempt_pb2 import AttemptResult


def import_archive(job: Job) -> AttemptResult:
    """Compile a source: an upload, or what lies on the object store."""
    from finemesh.data import import_source

    work = job.command.import_work
    options = dataset_options.import_options(work.origin)
    source = fetch_source(job, options)

    def make(out: Path) -> DatasetManifest:
        return import_source(source, out, options, job.progress, scratch=job.scratch)

    with Store(job.site) as store:
        return _make(job, store, work.output_uri, make)


def split(job: Job) -> AttemptResult:
    """Divide a dataset."""
    from finemesh.data import split_dataset

    work = job.command.split_work
    options = dataset_options.split_options(work.origin)
    with Store(job.site) as store:
        parent = _fetch(job, store, work.source_uri)
        return _make(
            job, store, work.output_uri, lambda out: split_dataset(parent, out, options, job.progress)
        )


def convert_form(job: Job) -> AttemptResult:
    """Bring a dataset into another form."""
    work = job.command.convert_work
    options = dataset_options.convert_options(work.origin)
    with Store(job.site) as store:
        parent = _fetch(job, store, work.source_uri)
        job.phase = Phase.RUNNING
        manifest, size = convert_in_parts(job, store, parent, work.output_uri, options)
    return convert.dataset_result(manifest, size)


def validate(job: Job) -> AttemptResult:
    """Look at a dataset; the report's files go beside each other under the output prefix."""
    from finemesh.data import validate_dataset

    work = job.command.validate_work
    options = dataset_options.validate_options(work.level, work.thresholds)
    with Store(job.site) as store:
        dataset = _fetch(job, store, work.source_uri)
        job.phase = Phase.RUNNING
        report = validate_dataset(dataset, options, job.progress)
        page, text = job.scratch / "report.html", job.scratch / "report.md"
        page.write_text(report.to_html(), encoding="utf-8")
        text.write_text(report.to_markdown(), encoding="utf-8")
        store.put(page, f"{work.output_uri}/{page.name}", "text/html; charset=utf-8")
        store.put(text, f"{work.output_uri}/{text.name}", "text/markdown; charset=utf-8")
    return convert.validation_result(report)


def _fetch(job: Job, store: Store, uri: str) -> Path:
    folder = job.scratch / "parent"
    store.fetch(uri, folder, job.progress)
    return folder


def _make(job: Job, store: Store, output_uri: str, make: Callable[[Path], DatasetManifest]) -> AttemptResult:
    """Make a dataset on disk and upload it. What an earlier attempt has left is removed first."""
    out = job.scratch / "dataset"
    job.phase = Phase.RUNNING
    manifest = make(out)
    job.progress(1.0, "uploading")
    store.discard(output_uri)
    uploaded = store.publish(out, output_uri)
    return convert.dataset_result(manifest, uploaded.total_bytes)


WORK: Final[dict[str, Callable[[Job], AttemptResult]]] = {
    "import_work": import_archive,
    "split_work": split,
    "convert_work": convert_form,
    "validate_work": validate,
}
