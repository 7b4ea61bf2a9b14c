"""What `finemesh runs show` says of a run beside its metrics."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape

from finemesh.client.cli.context import options, out
from finemesh.client.cli.output import duration, moment, short, table
from finemesh.client.cli.paging import collect
from finemesh.client.errors import RpcError
from finemesh.client.figures import size
from finemesh.v1 import run_pb2, training_service_pb2
from finemesh.v1.lineage_pb2 import Lineage
from finemesh.v1.training_job_pb2 import Checkpoint

# Libraries whose versions decide what a training comes to; the others are in the JSON.
_TELLING = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "numpy", "finemesh")


def facts_of(run: run_pb2.Run) -> Iterator[tuple[str, object]]:
    """What people said of it, and what it was made of."""
    yield "experiment", escape(run.experiment)
    yield "tags", escape(", ".join(run.tags))
    yield "labels", escape(", ".join(f"{key}={value}" for key, value in sorted(run.labels.items())))
    yield "parent", run.parent_run
    yield "notes", escape(run.notes)
    yield "started", moment(run.start_time if run.HasField("start_time") else run.create_time)
    yield "took", duration(run.start_time if run.HasField("start_time") else run.create_time, run.end_time)
    yield from _made_of(run.lineage)


def _made_of(lineage: Lineage) -> Iterator[tuple[str, object]]:
    code, environment, hardware = lineage.code, lineage.environment, lineage.hardware
    short_digest = lineage.dataset_digest.removeprefix("sha256:")[:12]
    digest = f" ({short_digest})" if short_digest else ""
    yield "dataset", escape(lineage.dataset + digest)
    changed = ", with changes since" if code.dirty else ""
    yield "code", escape(f"{code.repository} {code.commit[:12]}{changed}".strip())
    yield "command", escape(code.command)
    yield "seed", lineage.seed if lineage.HasField("seed") else ""
    libraries = [
        f"{name} {environment.libraries[name]}" for name in _TELLING if name in environment.libraries
    ]
    python = [f"Python {environment.python}"] if environment.python else []
    yield "environment", escape(", ".join([*python, *libraries]))
    yield "platform", escape(environment.platform)
    if hardware.hostname:
        cores = f"{hardware.cpu_count} x {hardware.cpu}, {size(hardware.memory_bytes)}"
        gpus = [
            f"{kind} {size(memory)}"
            for kind, memory in zip(hardware.gpus, hardware.gpu_memory_bytes, strict=True)
        ]
        yield "hardware", escape("; ".join([f"{hardware.hostname}: {cores}", *gpus]))


def print_checkpoints(run: run_pb2.Run) -> None:
    """The checkpoints of the job that makes it, and where its log is."""
    if not run.training_job:
        return
    connection = options.connection()
    request = training_service_pb2.ListCheckpointsRequest(parent=run.training_job)
    try:
        found: list[Checkpoint] = collect(
            connection.training.ListCheckpoints, request, lambda page: iter(page.checkpoints), 1000
        )
    except RpcError as error:
        if error.reason != "TRAINING_JOB_NOT_FOUND":  # deleted, while its run was kept
            raise
        return
    if found:
        rows = [
            (
                each.step,
                "best" if each.best else "",
                size(each.size_bytes),
                moment(each.create_time),
                each.uri,
            )
            for each in found
        ]
        out.print(table(("checkpoint", "", "size", "committed", "uri"), rows))
    out.print(f"[dim]log: finemesh train logs {short(run.training_job)}[/]", highlight=False)
