"""The training loop: `train` runs one spec in this process, from a local model and dataset to a tested
checkpoint.

One optimiser step takes `micro_batch_size * gradient_accumulation_steps` samples. Its loss is the sum over
all that carries loss in them (tokens, boxes, pixels), divided by how much that is in the whole step: how the
samples are cut into micro batches changes nothing. A loss or gradient that is not finite stops the run before
the optimiser moves.

With the same spec, model, data and thread count a run resumed from any checkpoint computes on a CPU in fp32
what it would have computed uninterrupted, bit for bit; `Certificate` says so.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch

from finemesh.core.errors import InvalidError
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune.apart import Request, train_apart
from finemesh.finetune.distributed import ALONE, Group
from finemesh.finetune.families import family_of
from finemesh.finetune.hooks import Hooks, NoHooks, Outcome, StopReason, TrainResult
from finemesh.finetune.jsonlines import to_json
from finemesh.finetune.memory import kept_memory
from finemesh.finetune.out_of_memory import explained
from finemesh.finetune.patience import evaluate, is_over
from finemesh.finetune.prepared import PreparedCache
from finemesh.finetune.run import Run, StopAsked, prepare
from finemesh.finetune.saving import save, save_stopped, test_best, validate
from finemesh.finetune.step import take_step

_TRAINING_SHARE: Final = 0.9  # of the progress; preparing comes before it counts, the final test is the rest


def train(
    spec: FineTuneSpec,
    *,
    base_model: Path,
    dataset: Path,
    work: Path,
    hooks: Hooks | None = None,
    resume_from: Path | None = None,
    prepared: PreparedCache | None = None,
    group: Group = ALONE,
    pause_at_step: int = 0,
    micro_batch_size: int = 0,
    apart_python: Path | None = None,
) -> TrainResult:
    """Train `spec`, test the best checkpoint, and return how it ended.

    Args:
        spec: validated here.
        base_model: local folder of the base model.
        dataset: local folder of a canonical dataset, or a file of text (finemesh.finetune.lines).
        work: owned by this run: `checkpoints/`, `evaluation/`, `ledger.jsonl`, `result.json`. Checkpoints of
            later steps than `resume_from` are removed.
        hooks: called between steps.
        resume_from: a checkpoint folder of this spec and dataset. If the best checkpoint so far is another
            one, put it beside that, so that it can be tested at the end.
        prepared: where encoded splits are kept for the next run; None for nowhere.
        group: the processes that train this spec together; each calls this. Only rank 0's `work`, `hooks` and
            `resume_from` count.
        pause_at_step: validate, save and stop after so many steps, on all ranks alike; 0 means never.
        micro_batch_size: rows of a forward pass in place of the spec's, in the same steps; 0 for the spec's.
        apart_python: the interpreter for families that train in a process of their own; None for this one.

    Raises:
        InvalidError: the spec, the model, or a row under the policy RAISE; see `load_model` and
            `Objective.encode`.
        PreconditionError: LOSS_BUDGET_EXCEEDED, NON_FINITE_LOSS, NON_FINITE_GRADIENT, CHECKPOINT_CORRUPT,
            CHECKPOINT_OF_OTHER_SPEC, CHECKPOINT_OF_OTHER_DATA, CHECKPOINT_OF_OTHER_BASE, BASE_MODEL_CORRUPT,
            NO_ACCELERATOR, SPLIT_EMPTY, METRIC_FAILED.
        UnavailableError: ROW_UNREADABLE, CHECKPOINT_NOT_WRITTEN, RANK_LOST, TRAINER_LOST.
        ResourceExhaustedError: DISK_FULL, OUT_OF_MEMORY.
        NotFoundError: CHECKPOINT_NOT_FOUND, DATASET_NOT_FOUND, BASE_MODEL_NOT_FOUND.
    """
    spec.validate()
    hooks = hooks if hooks and group.leads else NoHooks()
    with group.watched():
        module = family_of(base_model, spec.task).apart
        if not module:
            given = (prepared, group, pause_at_step, micro_batch_size)
            return train_here(spec, base_model, dataset, work, hooks, resume_from, *given)
        if group.size > 1:
            raise InvalidError.of(
                "spec.resources.ranks",
                "this family trains in one process: write 1",
                reason="METHOD_UNSUITABLE",
            )
        settings = (resume_from, prepared, pause_at_step, micro_batch_size)
        return train_apart(module, Request(spec, base_model, dataset, work, *settings), hooks, apart_python)


def train_here(
    spec: FineTuneSpec,
    base_model: Path,
    dataset: Path,
    work: Path,
    hooks: Hooks,
    resume_from: Path | None,
    prepared: PreparedCache | None,
    group: Group,
    pause_at_step: int,
    micro_batch_size: int,
) -> TrainResult:
    """`train` in this process, whatever the family; raises what it raises."""
    torch.set_num_threads(max(1, int(spec.resources.cpus / group.size)))
    with group.folder(work) as folder, explained(spec) as progress:
        run = prepare(spec, base_model, dataset, folder, hooks, resume_from, prepared, group)
        progress.run, run.pause_at_step = run, pause_at_step
        run.feed.micro_batch_size = micro_batch_size or run.feed.micro_batch_size
        return _carry_out(run, resume_from)


def _carry_out(run: Run, resume_from: Path | None) -> TrainResult:
    tested_step = None
    with run.feed, run.saver, kept_memory(run.model.device.type):
        try:
            _train_steps(run)
            tested_step = _conclude(run, resume_from)
            outcome = Outcome.COMPLETED
        except StopAsked as asked:
            save_stopped(run)
            outcome = Outcome.PAUSED if asked.reason is StopReason.PAUSE else Outcome.CANCELLED
    assert run.saver.last  # both ways end with a checkpoint
    result = TrainResult(
        outcome=outcome,
        step=run.state.step,
        total_steps=run.total_steps,
        checkpoint=run.saver.last,
        best_step=run.state.best_step,
        tested_step=tested_step,
        metrics=dict(run.state.metrics),
        certificate=run.state.certificate,
        ledgers={role: split.ledger for role, split in run.splits.items()},
        truncated={role: split.truncated for role, split in run.splits.items()},
    )
    (run.work / "result.json").write_text(to_json(asdict(result), indent=1), encoding="utf-8")
    return result


def _train_steps(run: Run) -> None:
    """The steps that are left. Raises StopAsked."""
    run.model.train()
    evaluate(run)
    _save_if_due(run)
    while run.state.step < run.total_steps and not is_over(run):
        run.saver.poll()
        run.check_stop()
        _pause_if_due(run)
        take_step(run)
        step = run.state.step
        evaluate(run)
        if run.at_pause:
            validate(run)
        _save_if_due(run)
        run.hooks.on_progress(_TRAINING_SHARE * step / run.total_steps, f"step {step} of {run.total_steps}")


def _pause_if_due(run: Run) -> None:
    """Raises StopAsked where the run is to pause, saved and measured."""
    if run.at_pause:
        save(run)
        raise StopAsked(StopReason.PAUSE)


def _save_if_due(run: Run) -> None:
    step, every = run.state.step, run.spec.checkpoint.every_steps
    if step and every and step % every == 0:
        save(run)


def _conclude(run: Run, resume_from: Path | None) -> int | None:
    """The last checkpoint and the final test. Returns the step that was tested; raises StopAsked."""
    save(run)
    run.saver.finish()
    run.hooks.on_progress(_TRAINING_SHARE, "testing")
    tested_step = test_best(run, resume_from)
    run.hooks.on_progress(1.0, f"tested step {tested_step}" if tested_step else "trained")
    return tested_step
