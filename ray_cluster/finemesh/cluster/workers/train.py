"""Training: the loop of `finemesh.finetune`, with its surroundings on S3 and in the spool."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import threading
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from finemesh.chassis.fine_tune_spec import spec_from_proto
from finemesh.chassis.logs import get_logger
from finemesh.client.lineage import code_of, environment_here, hardware_here
from finemesh.cluster.attempts import resource_key
from finemesh.cluster.meeting import met
from finemesh.cluster.spool import SpoolWriter, spool_path
from finemesh.cluster.worker import Job, Stopped
from finemesh.cluster.workers.evaluations import EvaluationSpool
from finemesh.cluster.workers.models import local_base_model
from finemesh.cluster.workers.store import Store
from finemesh.cluster.workers.uploads import Uploader
from finemesh.core.attempts import Phase
from finemesh.core.errors import FinemeshError, PreconditionError
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.data import load_manifest
from finemesh.finetune.checkpoint import verify_checkpoint
from finemesh.finetune.distributed import ALONE, Group
from finemesh.finetune.hooks import Certificate, CheckpointInfo, NoHooks, Outcome, StopReason, TrainResult
from finemesh.finetune.loop import train as run_loop
from finemesh.finetune.prepared import PreparedCache
from finemesh.finetune.rows import read_manifest
from finemesh.finetune.usage import peak_device_memory_bytes
from finemesh.v1 import attempt_pb2, training_job_pb2
from finemesh.v1.evaluation_pb2 import Evaluation
from finemesh.v1.lineage_pb2 import Lineage

_TIMED_STEPS: Final = 1000

_log = get_logger("finemesh.worker.train")


def train(job: Job) -> attempt_pb2.AttemptResult:
    """Carry out a TrainWork, from its checkpoint on if it names one; or a rank's part in it."""
    if job.rank:
        return _take_part(job)
    work = job.command.train_work
    spec = spec_from_proto(work.spec)
    with Store(job.site) as store:
        job.begin("fetching the dataset")
        dataset = job.scratch / "dataset"
        store.fetch(work.dataset_uri, dataset)
        base_model = local_base_model(spec, store, job.scratch)
        resume_from = _fetch_checkpoint(job, store) if work.HasField("resume_from") else None
        job_folder = resource_key(job.command.resource)
        spool = SpoolWriter(
            spool_path(job.site.spool_dir, job_folder, job.command.attempt),
            work.run,
            job.command.attempt,
            job.site.spool_bytes,
        )
        uploader = Uploader(job, store, work.output_uri, after_step=resume_from.step if resume_from else 0)
        hooks = _Hooks(job, spool, _evaluations(job, spec, dataset), uploader, resume_from)
        job.lineage = _lineage(spec, dataset).SerializeToString()
        job.record = hooks.record
        try:
            with _group(job, spec) as group:
                result = run_loop(
                    spec,
                    base_model=base_model,
                    dataset=dataset,
                    work=job.scratch / "run",
                    hooks=hooks,
                    resume_from=_checkpoint_folder(job, resume_from.step) if resume_from else None,
                    prepared=_prepared(job),
                    group=group,
                    pause_at_step=work.pause_at_step,
                    micro_batch_size=work.micro_batch_size,
                    apart_python=job.site.apart_python,
                )
            uploader.settle(result.checkpoint.step)
        finally:
            job.record = None
            hooks.close()
            uploader.close()
        if result.outcome is not Outcome.COMPLETED:
            raise Stopped(result.step)
        _publish_evaluation(job.scratch / "run", store, work.output_uri)
    return attempt_pb2.AttemptResult(training=_result(result, dataset, hooks.pace))


def _evaluations(job: Job, spec: FineTuneSpec, dataset: Path) -> EvaluationSpool:
    return EvaluationSpool(
        job.site.spool_dir / resource_key(job.command.resource),
        job.command.train_work.run,
        job.command.attempt,
        dataset,
        Evaluation(dataset=spec.dataset, dataset_digest=read_manifest(dataset).digest),
        spec.sequence.max_tokens,
    )


def _prepared(job: Job) -> PreparedCache | None:
    site = job.site
    return PreparedCache(site.prepared_dir, site.prepared_bytes) if site.prepared_bytes else None


def _take_part(job: Job) -> attempt_pb2.AttemptResult:
    """Train as one of several, led by rank 0, which alone has the checkpoint and talks to others."""
    work = job.command.train_work
    spec = spec_from_proto(work.spec)
    with Store(job.site) as store:
        store.fetch(work.dataset_uri, job.scratch / "dataset")
        base_model = local_base_model(spec, store, job.scratch)
    with _group(job, spec) as group:
        run_loop(
            spec,
            base_model=base_model,
            dataset=job.scratch / "dataset",
            work=job.scratch / "run",
            prepared=_prepared(job),
            group=group,
            pause_at_step=work.pause_at_step,
            micro_batch_size=work.micro_batch_size,
        )
    return attempt_pb2.AttemptResult()


def _group(job: Job, spec: FineTuneSpec) -> AbstractContextManager[Group]:
    if not job.meeting:
        return nullcontext(ALONE)
    return met(job.meeting, job.rank, spec.resources.ranks, job.listener)


class _Pace:
    """Seconds of optimiser steps: from one to the next, where nothing lay between that took long."""

    def __init__(self) -> None:
        self._last = (-1, 0.0)
        self._seconds: deque[float] = deque(maxlen=_TIMED_STEPS)

    def note(self, step: int) -> None:
        now = time.monotonic()
        if step == self._last[0] + 1:
            self._seconds.append(now - self._last[1])
        self._last = step, now

    @property
    def step_seconds(self) -> float:
        """The median, which validations and checkpoints do not move; 0 before the second step."""
        return statistics.median(self._seconds) if self._seconds else 0.0


class _Hooks(NoHooks):
    """What the loop tells: points to the spool, checkpoints to the uploader, progress to the job."""

    def __init__(
        self,
        job: Job,
        spool: SpoolWriter,
        evaluations: EvaluationSpool,
        uploader: Uploader,
        resume_from: training_job_pb2.Checkpoint | None,
    ) -> None:
        self._job = job
        self._expected_hash = resume_from.sample_hash if resume_from else ""
        self._spool = spool
        self._evaluations = evaluations
        self._uploader = uploader
        self._recording = threading.Lock()  # the spool is one thread's at a time
        self._closed = False
        self._checkpointed = 0
        self.pace = _Pace()

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        if self._job.phase is not Phase.RUNNING:
            _log.info("stage", resource=self._job.command.resource, stage="training", step=step)
        self._job.phase, self._job.step = Phase.RUNNING, step
        if "train/learning_rate" in values:
            self.pace.note(step)
        with self._recording:
            self._spool.append(step, values)
        kill_after = self._job.command.train_work.kill_after_step
        if kill_after and step >= kill_after and self._checkpointed:  # the probe of a certificate
            self._uploader.settle(self._checkpointed)  # one that starts anew would prove nothing
            os.kill(os.getpid(), signal.SIGKILL)

    def record(self, values: dict[str, float]) -> None:
        """Log values that others than the loop have measured, at the step where the loop is."""
        with self._recording:
            if not self._closed:
                self._spool.append(self._job.step, values)

    def close(self) -> None:
        """Close the spool."""
        with self._recording:
            self._closed = True
            self._spool.close()

    def on_evaluation(self, split: str, step: int, folder: Path) -> None:
        self._evaluations.put(split, step, folder)

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        self._uploader.put(info)
        self._checkpointed = info.step

    def on_resume(self, certificate: Certificate, sample_hash: str) -> None:
        """Raises PreconditionError, reason RESUME_DIVERGED: it would not be the same run any more."""
        expected = self._expected_hash
        matches = expected == certificate.sample_hash == sample_hash
        self._job.certificate = training_job_pb2.ResumeCertificate(
            attempt=self._job.command.attempt,
            step=certificate.step,
            expected_sample_hash=expected,
            actual_sample_hash=sample_hash,
            matches=matches,
        )
        self._job.step = certificate.step
        if not matches:
            raise PreconditionError(
                f"the samples up to step {certificate.step} are not those that the checkpoint was trained on",
                reason="RESUME_DIVERGED",
            )

    def on_progress(self, fraction: float, message: str) -> None:
        self._job.fraction, self._job.message = max(self._job.fraction, fraction), message
        _, _, total = message.rpartition(" of ")
        if message.startswith("step ") and total.isdigit():
            self._job.total_steps = int(total)
        else:
            _log.info("stage", resource=self._job.command.resource, stage=message)

    def should_stop(self) -> StopReason | None:
        self._uploader.check()
        return StopReason.CANCEL if self._job.stop.is_set() else None


def _fetch_checkpoint(job: Job, store: Store) -> training_job_pb2.Checkpoint:
    """The last committed checkpoint that is intact, fetched with the best one beside it for the final test.

    Raises:
        PreconditionError: CHECKPOINT_CORRUPT, none is intact.
        UnavailableError: the store is away.
    """
    work = job.command.train_work
    committed = (work.resume_from, *work.earlier)
    intact = next((each for each in committed if _fetched(job, store, each)), None)
    if intact is None:
        steps = ", ".join(str(each.step) for each in committed)
        raise PreconditionError(
            f"no committed checkpoint of {job.command.resource} is intact (steps {steps}): mend the object "
            "store, or submit the job anew",
            reason="CHECKPOINT_CORRUPT",
        )
    if work.HasField("best") and work.best.step < intact.step:
        _fetched(job, store, work.best)
    return intact


def _fetched(job: Job, store: Store, checkpoint: training_job_pb2.Checkpoint) -> bool:
    """Whether a checkpoint was fetched as it was committed. Raises UnavailableError, the store is away."""
    job.begin(f"fetching the checkpoint of step {checkpoint.step}")
    folder = _checkpoint_folder(job, checkpoint.step)
    try:
        store.fetch(checkpoint.uri, folder)
        verify_checkpoint(folder, checkpoint.manifest_sha256)
    except FinemeshError as error:
        if error.retryable:
            raise
        shutil.rmtree(folder, ignore_errors=True)
        _log.warning("checkpoint_passed_over", step=checkpoint.step, uri=checkpoint.uri, reason=str(error))
        return False
    return True


def _checkpoint_folder(job: Job, step: int) -> Path:
    return job.scratch / "resume" / f"step-{step:08d}"


def _publish_evaluation(run: Path, store: Store, output_uri: str) -> None:
    """Per-item results, the ledger and the summary, beside the checkpoints."""
    names = ["result.json", "ledger.jsonl", *(f"evaluation/{p.name}" for p in (run / "evaluation").glob("*"))]
    for name in names:
        if (run / name).is_file():
            store.put(run / name, f"{output_uri}/{name}", "application/json")


def _lineage(spec: FineTuneSpec, dataset: Path) -> Lineage:
    """What a training in this process is made of; `dataset` is the folder that was fetched."""
    return Lineage(
        dataset=spec.dataset,
        dataset_digest=load_manifest(dataset).digest,
        code=code_of(Path(__file__)),
        environment=environment_here(),
        seed=spec.optimization.seed,
        hardware=hardware_here(),
    )


def _result(result: TrainResult, dataset: Path, pace: _Pace) -> attempt_pb2.TrainingResult:
    held_out = sum(ledger.kept for split, ledger in result.ledgers.items() if split != "train")
    usage = {
        "trained": result.ledgers["train"].kept,
        "held_out": held_out,
        "gap": load_manifest(dataset).splits.get("gap", 0),
        "truncated": sum(result.truncated.values()),
        "over_length": sum(ledger.dropped for ledger in result.ledgers.values()),
    }
    return attempt_pb2.TrainingResult(
        step=result.step,
        metrics=result.metrics,
        row_usage=usage,
        peak_device_memory_bytes=peak_device_memory_bytes(),
        step_seconds=pace.step_seconds,
    )
