"""The main job: import, split, make instructions, train two runs, kill one, compare, export, download."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import psutil

from finemesh.core.errors import FinemeshError
from finemesh.embedded.demo import work
from finemesh.embedded.demo.calls import Calls
from finemesh.embedded.demo.facts import Findings, Scores, broken_promises
from finemesh.embedded.demo.progress import Display, Stopwatch
from finemesh.embedded.mesh import Mesh
from finemesh.v1 import dataset_pb2, export_pb2, training_job_pb2, validation_report_pb2
from finemesh.v1.fine_tune_spec_pb2 import (
    CheckpointSpec,
    EvaluationSpec,
    FineTuneSpec,
    LoraMethod,
    OptimizationSpec,
    ResourceSpec,
)

RANKS: Final = (4, 16)
EPOCHS: Final = 6
CHECKPOINT_STEPS: Final = 40
# The run that is killed has gone this far, and has a checkpoint to go back to.
KILL_AT_FRACTION: Final = 0.4
FORMATS: Final = {"adapter": export_pb2.EXPORT_FORMAT_ADAPTER, "merged": export_pb2.EXPORT_FORMAT_MERGED}
BASE_MODEL: Final = "LLaVA architecture, 2 layers of width 64, random weights, built on the spot"
Summary = dataset_pb2.DatasetSummary


class MainJob:
    """One run of the main job. `run` blocks; everything it finds goes to `findings`."""

    def __init__(
        self,
        mesh: Mesh,
        calls: Calls,
        display: Display,
        watch: Stopwatch,
        findings: Findings,
        folder: Path,
        output: Path,
    ) -> None:
        self._mesh = mesh
        self._calls = calls
        self._display = display
        self._watch = watch
        self._found = findings
        self._folder = folder
        self._output = output

    def run(self, source: Path | None) -> None:
        """Raises FinemeshError or RpcError when a step fails."""
        items = self._data(source)
        jobs = self._train(items)
        better = self._compare(jobs)
        self._export(better)

    # ---- data

    def _data(self, source: Path | None) -> dataset_pb2.Dataset:
        if source is None:
            source = self._folder / "scenes.zip"
            with self._watch.stage("make the scenes"), self._display.bar("drawing scenes"):
                work.make_scenes(source)
        with self._watch.stage("import"):
            raw = self._calls.import_source(source, "raw")
            self._note_dataset("import", raw)
        with self._watch.stage("split"):
            origin = dataset_pb2.SplitOrigin(dataset=raw.name)
            split = self._calls.make("split", dataset_pb2.Dataset(display_name="split", split_from=origin))
            self._note_dataset("split", split)
        with self._watch.stage("convert and validate"):
            return self._convert(split, classes=raw.summary.has_class_names)

    def _convert(self, split: dataset_pb2.Dataset, *, classes: bool) -> dataset_pb2.Dataset:
        """Questions and answers in canonical form, and from those the other forms and the report."""
        if classes:
            task = dataset_pb2.INSTRUCTION_TASK_CLASSIFY_REGION
            self._found.task = "name the class of the object in a crop of 112 px, cut by its mask"
        else:
            task = dataset_pb2.INSTRUCTION_TASK_LOCATE_OBJECT
            self._found.task = (
                "say in which of nine cells of the frame the marked object is; no class accuracy"
            )
        items = self._make_form("items", split, dataset_pb2.DATASET_FORMAT_CANONICAL, task)
        self._note_dataset("instructions", items)
        rows = {each.split: each.rows for each in items.summary.splits}
        self._found.splits = ", ".join(f"{name} {rows[name]}" for name in sorted(rows))
        self._found.splits += f"; leakage {items.summary.leakage:.4f}"
        with ThreadPoolExecutor(3) as pool:
            plain = dataset_pb2.INSTRUCTION_TASK_UNSPECIFIED
            forms = [
                pool.submit(
                    self._make_form, "hugging-face", items, dataset_pb2.DATASET_FORMAT_HUGGING_FACE, plain
                ),
                pool.submit(self._make_form, "llava", items, dataset_pb2.DATASET_FORMAT_LLAVA, plain),
            ]
            report = pool.submit(self._calls.validate, items.name).result()
            for form in forms:
                self._note_dataset(form.result().name.rsplit("/", 1)[-1], form.result())
        self._note_report(report)
        return items

    def _make_form(
        self,
        dataset_id: str,
        parent: dataset_pb2.Dataset,
        dataset_format: dataset_pb2.DatasetFormat,
        task: dataset_pb2.InstructionTask,
    ) -> dataset_pb2.Dataset:
        origin = dataset_pb2.ConvertOrigin(dataset=parent.name, format=dataset_format, instruction=task)
        return self._calls.make(
            dataset_id, dataset_pb2.Dataset(display_name=dataset_id, converted_from=origin)
        )

    def _note_dataset(self, stage: str, dataset: dataset_pb2.Dataset) -> None:
        ledger = dataset.summary.ledger
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(ledger.by_reason.items()))
        told = f"{ledger.inputs} in = {ledger.kept} kept + {ledger.quarantined} quarantined"
        told += f" + {ledger.dropped} dropped"
        self._found.ledgers[stage] = (
            f"{told}{f' ({reasons})' if reasons else ''}; {dataset.summary.row_count} rows out"
        )
        self._found.notes += [each for each in dataset.summary.warnings if each not in self._found.notes]
        self._display.say(f"{stage}: {self._found.ledgers[stage]}")
        if ledger.inputs != ledger.kept + ledger.quarantined + ledger.dropped:
            self._found.failures.append(f"the ledger of {stage} does not add up")

    def _note_report(self, report: validation_report_pb2.ValidationReport) -> None:
        verdicts = validation_report_pb2.ValidationReport.Verdict
        verdict = verdicts.Name(report.verdict).removeprefix("VERDICT_").replace("_", " ").lower()
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(report.finding_counts.items()))
        self._found.validation = f"{verdict}, {report.row_count} rows{f': {kinds}' if kinds else ''}"
        self._display.say(f"validation: {self._found.validation}")
        if (
            report.verdict == validation_report_pb2.ValidationReport.VERDICT_FAILED
            and not self._found.own_source
        ):
            self._found.failures.append("the default data did not pass its validation")

    # ---- training

    def _train(self, items: dataset_pb2.Dataset) -> list[training_job_pb2.TrainingJob]:
        base_model = self._folder / "base-model"
        with self._watch.stage("build the base model"), self._display.bar("building the base model"):
            self._calls.download_dataset(items.name, self._folder / "items")
            work.build_base_model(self._folder / "items", base_model)
        self._found.base_model = BASE_MODEL
        with self._watch.stage("train two runs, kill one"), ThreadPoolExecutor(len(RANKS)) as pool:
            submitted = [
                self._calls.submit(f"rank-{rank}", _spec(items.name, base_model, rank)) for rank in RANKS
            ]
            victim = submitted[-1].name
            following = [pool.submit(self._follow, job.name, kill=job.name == victim) for job in submitted]
            jobs = [each.result() for each in following]
        for job in jobs:
            run = job.run.rsplit("/", 1)[-1]
            self._found.losses[run] = first, last = self._calls.losses(job.run)
            self._display.say(f"{run}: loss {first:.3f} → {last:.3f} in {job.step} steps")
        self._check_resumed(jobs[-1])
        return jobs

    def _follow(self, name: str, *, kill: bool) -> training_job_pb2.TrainingJob:
        done = threading.Event()

        def on_change(job: training_job_pb2.TrainingJob) -> None:
            far = job.total_steps and job.step >= KILL_AT_FRACTION * job.total_steps
            due = kill and far and job.latest_checkpoint.step and job.worker.pids and not done.is_set()
            if due and self._kill(job):
                done.set()

        return self._calls.follow_job(name, on_change)

    def _kill(self, job: training_job_pb2.TrainingJob) -> bool:
        """SIGKILL the training actor, as a crash or the out-of-memory killer would. Whether it was there: one
        that has died by itself is named until its lease is over.
        """
        (pid,) = job.worker.pids
        if not psutil.pid_exists(pid):
            return False
        if pid not in {process.pid for process in self._mesh.processes()}:
            raise FinemeshError(f"process {pid} is none of this mesh", reason="NOT_OURS")
        os.kill(pid, signal.SIGKILL)
        name = job.name.rsplit("/", 1)[-1]
        self._found.killed = f"{name} at step {job.step} of {job.total_steps}, by SIGKILL"
        self._display.say(f"killed the training actor of {self._found.killed}", "yellow")
        return True

    def _check_resumed(self, job: training_job_pb2.TrainingJob) -> None:
        if not self._found.killed:
            self._found.failures.append("no run was killed: it was over before it could be")
        elif not job.resume_certificates:
            self._found.failures.append("the killed run did not resume from a checkpoint")
        else:
            certificate = job.resume_certificates[-1]
            self._found.resumed = certificate.matches
            order = "the same" if certificate.matches else "ANOTHER"
            self._found.killed += f"; attempt {certificate.attempt} resumed from step {certificate.step}"
            self._found.killed += f" with {order} sample order"
            self._display.say(self._found.killed, "green" if certificate.matches else "red")
            if not certificate.matches:
                self._found.failures.append("the killed run did not resume where it was")

    # ---- comparison and export

    def _compare(self, jobs: list[training_job_pb2.TrainingJob]) -> training_job_pb2.TrainingJob:
        with self._watch.stage("compare"):
            answer = self._calls.compare([job.run for job in jobs])
            better = next((job for job in jobs if job.run == answer.better_run), jobs[0])
            metrics = self._calls.metrics(better.run)
        differences = "; ".join(
            f"{each.field} {' | '.join(each.values)}" for each in answer.config_differences
        )
        self._found.verdict = f"{answer.verdict}. They differ in: {differences}"
        self._display.say(self._found.verdict)
        self._found.better_run = better.run
        try:
            self._found.scores = Scores.of(metrics)
        except KeyError as error:
            self._found.failures.append(f"the run has no metric {error}")
            return better
        broken = broken_promises(self._found.scores)
        if self._found.own_source:
            self._found.notes += broken  # reported, not promised: the data is the user's
        else:
            self._found.failures += broken
        return better

    def _export(self, job: training_job_pb2.TrainingJob) -> None:
        with self._watch.stage("export, prove"), ThreadPoolExecutor(len(FORMATS)) as pool:
            short = job.name.rsplit("/", 1)[-1]
            making = {
                form: pool.submit(self._calls.export, job.name, number, f"{short}-{form}")
                for form, number in FORMATS.items()
            }
            exports = {form: each.result() for form, each in making.items()}
        for form, export in exports.items():
            parity = export.parity
            self._found.parity[form] = (
                f"logits differ by at most {parity.max_logit_difference:.1e}, tokens agree "
                f"{parity.token_agreement:.1%}, {parity.items} items in a fresh process, {parity.runtime}"
            )
            self._display.say(f"{form}: {self._found.parity[form]}")
        with self._watch.stage("download, check again"):
            self._download(exports["merged"])

    def _download(self, export: export_pb2.Export) -> None:
        """Fetch the package through the gateway, and replay it here as whoever receives it would."""
        archive = self._output / f"{export.name.rsplit('/', 1)[-1]}.zip"
        shutil.rmtree(archive.with_suffix(""), ignore_errors=True)
        with self._display.bar("downloading the package"):
            size_bytes = self._calls.download_export(export.name, archive)
        with self._display.bar("checking the downloaded package"):
            report = work.verify_package(archive, self._folder / "base-model")
        self._found.package = f"{archive.resolve()} ({size_bytes / 1e6:.1f} MB)"
        if not report["passed"]:
            self._found.failures.append(f"the downloaded package differs: {report['reasons']}")


def _spec(dataset: str, base_model: Path, rank: int) -> FineTuneSpec:
    return FineTuneSpec(
        task=FineTuneSpec.TASK_VISION_LANGUAGE,
        base_model=str(base_model),
        dataset=dataset,
        lora=LoraMethod(rank=rank, alpha=2.0 * rank, train_connector=True),
        optimization=OptimizationSpec(
            learning_rate=3e-3, epochs=EPOCHS, micro_batch_size=16, warmup_ratio=0.05, seed=1
        ),
        evaluation=EvaluationSpec(every_steps=CHECKPOINT_STEPS, baselines=True),
        checkpoint=CheckpointSpec(every_steps=CHECKPOINT_STEPS, keep_best=True),
        resources=ResourceSpec(cpus=1),
    )
