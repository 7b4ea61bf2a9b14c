"""Export: a package of a checkpoint, proven in a fresh process before a file of it is visible."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

from finemesh.chassis.fine_tune_spec import spec_from_proto
from finemesh.cluster.worker import Job
from finemesh.cluster.workers.curves import record_of_run
from finemesh.cluster.workers.models import local_base_model
from finemesh.cluster.workers.packages import publish_package
from finemesh.cluster.workers.store import Store
from finemesh.core.attempts import Phase
from finemesh.core.spec.export import ExportFormat
from finemesh.package.manifest import ParityReport
from finemesh.package.shared import SharedFolders, forget_unused
from finemesh.package.signing import sign
from finemesh.v1 import attempt_pb2, export_pb2


def export(job: Job) -> attempt_pb2.AttemptResult:
    """Carry out an ExportWork. A package that fails the comparison is not uploaded, unless it runs and the
    request allows that it drifts.
    """
    from finemesh.package.exporting import export_checkpoint
    from finemesh.package.formats import FORMATS
    from finemesh.package.parity import record_parity, verify_package

    work = job.command.export_work
    spec = spec_from_proto(work.spec)
    form = FORMATS[ExportFormat(export_pb2.ExportFormat.Name(work.format).removeprefix("EXPORT_FORMAT_"))]
    package = job.scratch / "package"
    forget_unused(job.site.shared_dir)
    record = record_of_run(job, work.lineage["run"], work.checkpoint.step)
    with Store(job.site) as store:
        job.progress(0.0, "fetching checkpoint and dataset")
        checkpoint = job.scratch / "checkpoint" / f"step-{work.checkpoint.step:08d}"
        store.fetch(work.checkpoint.uri, checkpoint)
        dataset = job.scratch / "dataset"
        store.fetch(work.dataset_uri, dataset)
        base_model = local_base_model(spec, store, job.scratch)
        job.phase = Phase.RUNNING
        export_checkpoint(
            spec=spec,
            checkpoint=checkpoint,
            base_model=base_model,
            dataset=dataset,
            out=package,
            format=form.format,
            lineage=dict(work.lineage),
            metrics={**work.checkpoint.metrics, **(record.tested if record else {})},
            shared=_shared_with_others(job),
            curves=record.curves if record else None,
            licence_override=work.licence_override,
            progress=lambda fraction, message: job.progress(0.7 * fraction, message),
        )
        job.phase = Phase.VERIFYING
        job.progress(0.7, "loading the package in a fresh process")
        report = verify_package(package, base_model if form.needs_base else None)
        if work.allow_drift:
            report = report.allowing_drift()
        result = attempt_pb2.ExportResult(parity=_parity_of(report))
        if report.released:
            job.progress(0.9, "uploading")
            record_parity(package, report)
            if job.site.signing_key_file:
                sign(package, job.site.signing_key_file)
            publish_package(package, store, work.output_uri, result)
    return attempt_pb2.AttemptResult(export=result)


def _parity_of(report: ParityReport) -> export_pb2.ParityReport:
    differences = [
        export_pb2.ParityDifference(
            row_id=each["row_id"],
            tokens_equal=each["tokens_equal"],
            input_difference=each["input_difference"],
            difference=each["difference"],
            relative_difference=each["relative_difference"],
            agreement=each["agreeing"] / max(each["decisions"], 1),
        )
        for each in report.differences
    ]
    return export_pb2.ParityReport(
        items=report.items,
        max_logit_difference=report.value("raw outputs", at_most=True) or 0.0,
        logit_tolerance=report.limits.get("max_difference") or 0.0,
        token_agreement=report.value("decisions", at_most=False) or 0.0,
        passed=report.passed,
        runtime=", ".join(f"{name} {version}" for name, version in report.runtime.items()),
        checks=[export_pb2.ParityCheck(**asdict(each)) for each in report.checks],
        differences=differences,
        reasons=report.reasons,
        metric=asdict(report.metric) if report.metric else None,
    )


def _shared_with_others(job: Job) -> SharedFolders:
    """Where the exports of this checkpoint on this node find what one of them has made."""
    work = job.command.export_work
    checkpoint, dataset = work.checkpoint.manifest_sha256, work.lineage["dataset_digest"]
    content = f"{work.lineage['spec_digest']} {checkpoint} {dataset}"
    return SharedFolders(
        job.site.shared_dir,
        hashlib.sha256(content.encode()).hexdigest(),
        lambda: job.progress(0.0, "waiting for another export of this checkpoint to merge the weights"),
    )
