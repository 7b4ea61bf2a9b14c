"""The training loop: `train` runs one spec in this process, from a local model and dataset to a tested
checkpoint.

One optimiser step takes `micro_batch_size * gradient_accumulation_steps` samples. Its loss is the sum over
all their tokens that carry loss, divided by the number of those tokens in the whole step: how the samples are
cut into micro batches changes nothing. A loss or gradient that is not finite stops the run before the
optimiser moves.

With the same spec, model, data and thread count a run resumed from any checkpoint computes on a CPU in fp32
what it would have computed uninterrupted, bit for bit; `Certificate` says so.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.nn import functional

from finemesh.core.errors import PreconditionError
from finemesh.core.spec import codec
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.finetune import checkpoint as checkpoints
from finemesh.finetune.batches import Batch, collate, cut
from finemesh.finetune.checkpoint import TrainState
from finemesh.finetune.encoding import EncodedSplit, Encoder, Sample
from finemesh.finetune.evaluation import evaluate, evaluate_test
from finemesh.finetune.hooks import CheckpointInfo, Hooks, NoHooks, Outcome, StopReason, TrainResult
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.optimizer import learning_rate, make_optimizer, set_learning_rate
from finemesh.finetune.order import EMPTY_HASH, SampleOrder, digest_of, roll
from finemesh.finetune.rows import read_manifest
from finemesh.finetune.scoring import AnswerSet, closed_answers

_TRAINING_SHARE = 0.9  # of the progress; preparing comes before it counts, the final test is the rest


@dataclass(slots=True)
class _Run:
    """Everything one call of `train` works with."""

    spec: FineTuneSpec
    base_model: Path
    work: Path
    hooks: Hooks
    model: Model
    optimizer: torch.optim.AdamW
    train: EncodedSplit
    held_out: dict[str, EncodedSplit]
    answers: AnswerSet | None
    order: SampleOrder
    total_steps: int
    state: TrainState
    saved: CheckpointInfo | None = None
    validated_step: int = -1
    samples_per_step: int = field(init=False)

    def __post_init__(self) -> None:
        optimization = self.spec.optimization
        self.samples_per_step = optimization.micro_batch_size * optimization.gradient_accumulation_steps

    @property
    def checkpoints(self) -> Path:
        return self.work / "checkpoints"


def train(
    spec: FineTuneSpec,
    *,
    base_model: Path,
    dataset: Path,
    work: Path,
    hooks: Hooks | None = None,
    resume_from: Path | None = None,
) -> TrainResult:
    """Train `spec`, test the best checkpoint, and return how it ended.

    Args:
        spec: validated here.
        base_model: local folder of the base model.
        dataset: local folder of a canonical dataset.
        work: owned by this run: `checkpoints/`, `evaluation/`, `ledger.jsonl`, `result.json`. Checkpoints of
            later steps than `resume_from` are removed.
        hooks: called between steps.
        resume_from: a checkpoint folder of this spec and dataset. If the best checkpoint so far is another
            one, put it beside that, so that it can be tested at the end.

    Raises:
        InvalidError: the spec, the model, or a row under the policy RAISE; see `load_model` and
            `Encoder.encode`.
        PreconditionError: LOSS_BUDGET_EXCEEDED, NON_FINITE_LOSS, NON_FINITE_GRADIENT, CHECKPOINT_CORRUPT,
            CHECKPOINT_OF_OTHER_SPEC, CHECKPOINT_OF_OTHER_DATA, NO_ACCELERATOR, SPLIT_EMPTY.
        NotFoundError: CHECKPOINT_NOT_FOUND, DATASET_NOT_FOUND, BASE_MODEL_NOT_FOUND.
    """
    spec.validate()
    torch.set_num_threads(max(1, int(spec.resources.cpus)))
    run = _prepare(spec, base_model, dataset, work, hooks or NoHooks(), resume_from)
    outcome = _train_steps(run)
    saved = _save(run)
    tested_step = _test(run, resume_from) if outcome is Outcome.COMPLETED else None
    result = TrainResult(
        outcome=outcome,
        step=run.state.step,
        total_steps=run.total_steps,
        checkpoint=saved,
        best_step=run.state.best_step,
        tested_step=tested_step,
        metrics=dict(run.state.metrics),
        certificate=run.state.certificate,
        ledgers={split: each.ledger for split, each in _splits(run).items()},
        truncated={split: each.truncated for split, each in _splits(run).items()},
    )
    (work / "result.json").write_text(json.dumps(asdict(result), indent=1, default=str), encoding="utf-8")
    return result


def _prepare(
    spec: FineTuneSpec, base_model: Path, dataset: Path, work: Path, hooks: Hooks, resume_from: Path | None
) -> _Run:
    work.mkdir(parents=True, exist_ok=True)
    hooks.on_progress(0.0, "loading the base model")
    model = load_model(spec, base_model)
    encoder = Encoder(model.family, model.processor, model.config, spec.sequence)
    hooks.on_progress(0.0, "encoding the dataset")
    train_split = encoder.encode(dataset, spec.train_split)
    held_out: dict[str, EncodedSplit] = {}
    if spec.validation_split:
        held_out["val"] = encoder.encode(dataset, spec.validation_split, spec.evaluation.max_items)
    if spec.test_split:
        held_out["test"] = encoder.encode(dataset, spec.test_split)
    splits = {"train": train_split, **held_out}
    _write_ledger(work / "ledger.jsonl", splits)
    check_loss_budget(spec, dataset, {split: encoded.ledger for split, encoded in splits.items()})
    row_ids = [sample.row_id for sample in train_split.samples]
    state = TrainState(recipe=_recipe(spec), data=digest_of(row_ids))
    optimizer = make_optimizer(model.trainable, spec.optimization)
    if resume_from:
        state = _resume(resume_from, model, optimizer, state)
    run = _Run(
        spec=spec,
        base_model=base_model,
        work=work,
        hooks=hooks,
        model=model,
        optimizer=optimizer,
        train=train_split,
        held_out=held_out,
        answers=closed_answers(train_split.samples),
        order=SampleOrder(row_ids, spec.optimization.seed),
        total_steps=total_steps(spec, len(row_ids)),
        state=state,
    )
    if resume_from:
        _certify(run, resume_from, row_ids)
    checkpoints.discard(
        run.checkpoints, [s for s, _ in checkpoints.list_checkpoints(run.checkpoints) if s <= state.step]
    )
    return run


def _resume(folder: Path, model: Model, optimizer: torch.optim.AdamW, fresh: TrainState) -> TrainState:
    state = checkpoints.read_state(folder)
    for reason, what, expected, found in (
        ("CHECKPOINT_OF_OTHER_SPEC", "another spec", fresh.recipe, state.recipe),
        ("CHECKPOINT_OF_OTHER_DATA", "other training rows", fresh.data, state.data),
    ):
        if expected != found:
            raise PreconditionError(
                f"checkpoint {folder} was made with {what}: resume it with the same, or start anew",
                reason=reason,
            )
    checkpoints.load_weights(folder, model)
    checkpoints.load_progress(folder, model, optimizer)
    return state


def _certify(run: _Run, folder: Path, row_ids: Sequence[str]) -> None:
    """Compute what the order says was consumed, and compare with what the checkpoint says."""
    consumed = (row_ids[index] for index in run.order.take(0, run.state.position))
    sample_hash = roll(EMPTY_HASH, consumed)
    run.hooks.on_resume(run.state.certificate, sample_hash)
    if sample_hash != run.state.sample_hash:
        raise PreconditionError(
            f"checkpoint {folder} consumed other samples than this order would have: start anew",
            reason="CHECKPOINT_OF_OTHER_DATA",
        )
    run.saved = checkpoints.checkpoint_info(folder, run.state)


def _recipe(spec: FineTuneSpec) -> str:
    """Digest of what decides the computation: not how often it is looked at, saved, nor on what it runs."""
    content = spec.to_dict()
    return codec.digest(
        {key: content[key] for key in content if key not in {"evaluation", "checkpoint", "resources"}}
    )


def total_steps(spec: FineTuneSpec, samples: int) -> int:
    """Optimiser steps of a run over so many samples."""
    optimization = spec.optimization
    if optimization.max_steps:
        return optimization.max_steps
    per_step = optimization.micro_batch_size * optimization.gradient_accumulation_steps
    return max(1, math.ceil(optimization.epochs * samples / per_step))


def _train_steps(run: _Run) -> Outcome:
    run.model.module.train()
    while run.state.step < run.total_steps:
        reason = run.hooks.should_stop()
        if reason:
            return Outcome.PAUSED if reason is StopReason.PAUSE else Outcome.CANCELLED
        _step(run)
        step, spec = run.state.step, run.spec
        if spec.evaluation.every_steps and step % spec.evaluation.every_steps == 0:
            _validate(run)
        if spec.checkpoint.every_steps and step % spec.checkpoint.every_steps == 0:
            _save(run)
        run.hooks.on_progress(_TRAINING_SHARE * step / run.total_steps, f"step {step} of {run.total_steps}")
    return Outcome.COMPLETED


def _step(run: _Run) -> None:
    """One optimiser step over the next samples of the order."""
    started = time.perf_counter()
    state, optimization = run.state, run.spec.optimization
    samples = [run.train.samples[i] for i in run.order.take(state.position, run.samples_per_step)]
    batches = _micro_batches(run, samples)
    loss = _backward(run.model, batches)
    _check_finite(loss, "LOSS", state.step + 1)
    grad_norm = _clip(run.model, optimization.max_grad_norm)
    _check_finite(grad_norm, "GRADIENT", state.step + 1)
    rate = learning_rate(optimization, state.step, run.total_steps)
    set_learning_rate(run.optimizer, rate)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.position += len(samples)
    state.sample_hash = roll(state.sample_hash, [sample.row_id for sample in samples])
    state.loss_digest = roll(state.loss_digest, [loss.hex()])
    tokens = sum(batch.tokens for batch in batches)
    _log(
        run,
        {
            "train/loss": loss,
            "train/learning_rate": rate,
            "train/grad_norm": grad_norm,
            "train/tokens_per_second": tokens / (time.perf_counter() - started),
        },
    )


def _micro_batches(run: _Run, samples: Sequence[Sample]) -> list[Batch]:
    return [
        collate(
            part,
            run.train.pictures.load,
            packing=run.spec.sequence.packing,
            pad_id=run.model.pad_id,
            device=run.model.device,
        )
        for part in cut(samples, run.spec.optimization.micro_batch_size)
    ]


def _backward(model: Model, batches: Sequence[Batch]) -> float:
    """Gradients of the mean loss over all tokens that carry loss. Returns it, in nats per token."""
    loss_tokens = sum(len(batch.targets_N) for batch in batches)
    total = torch.zeros((), device=model.device)
    for batch in batches:
        loss = functional.cross_entropy(model.logits(batch), batch.targets_N, reduction="sum") / loss_tokens
        loss.backward()
        total += loss.detach()
    return float(total)


def _clip(model: Model, max_norm: float) -> float:
    limit = max_norm if max_norm > 0 else math.inf
    return float(torch.nn.utils.clip_grad_norm_(list(model.trainable.values()), limit))


def _check_finite(value: float, what: str, step: int) -> None:
    if not math.isfinite(value):
        raise PreconditionError(
            f"the {what.lower()} of step {step} is {value}; the weights stand where they stood before it: "
            "lower the learning rate, clip gradients, or look for broken rows",
            reason=f"NON_FINITE_{what}",
            metadata={"step": str(step)},
        )


def _validate(run: _Run) -> None:
    if "val" not in run.held_out or run.validated_step == run.state.step:
        return
    _log(run, evaluate(run.model, run.held_out["val"], run.answers, "val"))
    run.validated_step = run.state.step


def _save(run: _Run) -> CheckpointInfo:
    """Write the checkpoint of this step, once. Which one is best, validation says, so that comes first."""
    state = run.state
    if run.saved and run.saved.step == state.step:
        return run.saved
    if run.spec.checkpoint.keep_best and "val" in run.held_out:
        _validate(run)
        loss = state.metrics["val/loss"]
        if state.best_loss is None or loss < state.best_loss:
            state.best_step, state.best_loss = state.step, loss
    run.saved = checkpoints.save_checkpoint(run.checkpoints, run.model, run.optimizer, state)
    steps = [step for step, _ in checkpoints.list_checkpoints(run.checkpoints)]
    kept = steps[-run.spec.checkpoint.keep_last :]
    if run.spec.checkpoint.keep_best and state.best_step is not None:
        kept.append(state.best_step)
    checkpoints.discard(run.checkpoints, kept)
    run.hooks.on_checkpoint(run.saved)
    return run.saved


def _test(run: _Run, resume_from: Path | None) -> int | None:
    """Test the best checkpoint if it is at hand, otherwise the last weights. Returns the step of those."""
    if "test" not in run.held_out:
        return None
    run.hooks.on_progress(_TRAINING_SHARE, "testing")
    tested = run.state.step
    best = run.state.best_step
    if best is not None and best != tested:
        homes = [run.checkpoints] + ([resume_from.parent] if resume_from else [])
        found = [folder for home in homes if (folder := checkpoints.checkpoint_folder(home, best)).is_dir()]
        if found:
            checkpoints.verify_checkpoint(found[0])
            checkpoints.load_weights(found[0], run.model)
            tested = best
    metrics = evaluate_test(
        run.model, run.held_out["test"], run.answers, run.base_model, run.work / "evaluation"
    )
    _log(run, metrics)
    run.hooks.on_progress(1.0, f"tested step {tested}")
    return tested


def _log(run: _Run, values: dict[str, float]) -> None:
    run.state.metrics.update(values)
    run.hooks.on_metrics(run.state.step, values)


def _splits(run: _Run) -> dict[str, EncodedSplit]:
    return {"train": run.train, **run.held_out}


def _write_ledger(path: Path, splits: dict[str, EncodedSplit]) -> None:
    """One JSON object per row and split: what became of it."""
    with path.open("w", encoding="utf-8") as stream:
        for split, encoded in splits.items():
            for entry in encoded.entries:
                stream.write(json.dumps({"split": split, **asdict(entry)}, ensure_ascii=False) + "\n")


def check_loss_budget(spec: FineTuneSpec, dataset: Path, ledgers: Mapping[str, LedgerSummary]) -> None:
    """Refuse to train on what is left after too much was lost, in making the dataset or in encoding it.

    Args:
        spec: names the budget.
        dataset: folder of the dataset.
        ledgers: what the encoding of each split came to.

    Raises:
        PreconditionError: LOSS_BUDGET_EXCEEDED; SPLIT_EMPTY, nothing of a split is left.
    """
    stages = {"the dataset": read_manifest(dataset).ledger} | {
        f"split {split!r}": ledger for split, ledger in ledgers.items()
    }
    for stage, ledger in stages.items():
        if ledger.quarantined > spec.max_quarantined_fraction * ledger.inputs:
            raise PreconditionError(
                f"{ledger.quarantined} of {ledger.inputs} rows of {stage} are quarantined, over the budget "
                f"of {spec.max_quarantined_fraction:.1%}: see the ledger, mend the rows, or raise "
                "max_quarantined_fraction",
                reason="LOSS_BUDGET_EXCEEDED",
            )
    for split, ledger in ledgers.items():
        if not ledger.kept:
            raise PreconditionError(
                f"no row of the split {split!r} is left to use: see the ledger", reason="SPLIT_EMPTY"
            )
