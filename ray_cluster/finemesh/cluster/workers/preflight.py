"""Preflight: what a fine-tune would be trained on, as a result and as two files beside each other."""

from __future__ import annotations

import json

from google.protobuf import json_format

from finemesh.chassis.preflight_options import preflight_options
from finemesh.cluster.convert import preflight_result
from finemesh.cluster.worker import Job
from finemesh.cluster.workers.models import local_base_model
from finemesh.cluster.workers.store import Store
from finemesh.core.attempts import Phase
from finemesh.v1 import attempt_pb2


def preflight(job: Job) -> attempt_pb2.AttemptResult:
    """Carry out a PreflightWork. The base model's weights are not fetched: nothing is computed with them."""
    from finemesh.finetune.preflight import preflight_dataset
    from finemesh.finetune.preflight_page import page_of

    work = job.command.preflight_work
    options = preflight_options(work.spec, work.options, work.spec.dataset)
    with Store(job.site) as store:
        job.progress(0.0, "fetching the dataset")
        dataset = job.scratch / "dataset"
        store.fetch(work.source_uri, dataset, job.progress)
        job.progress(0.0, "fetching the base model's processor")
        base_model = local_base_model(options.spec, store, job.scratch, weights=False)
        job.phase = Phase.RUNNING
        report = preflight_dataset(options, base_model, dataset, job.progress)
        result = preflight_result(report)
        page, text = job.scratch / "report.html", job.scratch / "report.json"
        page.write_text(page_of(report), encoding="utf-8")
        content = json_format.MessageToDict(result.preflight)
        text.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        store.put(text, f"{work.output_uri}/{text.name}", "application/json")
        store.put(page, f"{work.output_uri}/{page.name}", "text/html; charset=utf-8")
    return result
