"""A run made ready: model, objective, data and optimiser, new or where a checkpoint left them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from finemesh.core.errors import PreconditionError
from finemesh.core.spec import codec
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune import checkpoint as checkpoints
from finemesh.finetune.base_weights import base_digest
from finemesh.finetune.budget import check_loss_budget, first_quarantined, write_ledger
from finemesh.finetune.checkpoint import TrainState
from finemesh.finetune.distributed import ALONE, Group
from finemesh.finetune.feed import Feed
from finemesh.finetune.forward import prepare_forward
from finemesh.finetune.heads import classes_of
from finemesh.finetune.holdout import first_rows, hold_out
from finemesh.finetune.hooks import Hooks, StopReason
from finemesh.finetune.models import Model, load_model
from finemesh.finetune.numerics import loss_scaler
from finemesh.finetune.objectives.objective import AnyObjective, AnySplit, Sample
from finemesh.finetune.objectives.registry import make_objective
from finemesh.finetune.optimizer import make_optimizer
from finemesh.finetune.order import EMPTY_HASH, Grouping, SampleOrder, digest_of, roll
from finemesh.finetune.prepared import PreparedCache
from finemesh.finetune.saving import Saver

_ASIDE: Final = {"evaluation", "checkpoint", "resources", "on_out_of_memory"}


class StopAsked(Exception):  # noqa: N818  not an error: the run is told to stop, and does
    """Those around the run want it to stop."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Run:
    """Everything one call of `train` works with. `splits` are by role: `train`, `val`, `test`."""

    spec: FineTuneSpec
    base_model: Path
    work: Path
    hooks: Hooks
    model: Model
    objective: AnyObjective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    splits: dict[str, AnySplit]
    feed: Feed
    total_steps: int
    state: TrainState
    saver: Saver
    group: Group = ALONE
    validated_step: int = -1
    pause_at_step: int = 0

    @property
    def at_pause(self) -> bool:
        """Whether it is where it is to pause."""
        return 0 < self.pause_at_step <= self.state.step

    @property
    def checkpoints(self) -> Path:
        return self.work / "checkpoints"

    @property
    def evaluation(self) -> Path:
        return self.work / "evaluation"

    def log(self, values: dict[str, float]) -> None:
        """Tell new values of metrics, and keep the last of each."""
        self.state.metrics.update(values)
        self.hooks.on_metrics(self.state.step, values)

    def tell_items(self, split: str, step: int) -> None:
        """Tell that the items of an evaluation are written."""
        if self.group.leads:
            self.hooks.on_evaluation(split, step, self.evaluation)

    def check_stop(self) -> None:
        """Raises StopAsked, on every rank, if the run is to stop."""
        if reason := self.group.tell(self.hooks.should_stop() or ""):
            raise StopAsked(StopReason(reason))


def prepare(
    spec: FineTuneSpec,
    base_model: Path,
    dataset: Path,
    work: Path,
    hooks: Hooks,
    resume_from: Path | None,
    prepared: PreparedCache | None = None,
    group: Group = ALONE,
) -> Run:
    """Load, encode, and resume if asked. Raises what `train` raises before its first step."""
    work.mkdir(parents=True, exist_ok=True)
    hooks.on_progress(0.0, "loading the base model")
    model = load_model(spec, base_model, classes_of(spec, dataset), group)
    for note in model.notes:
        hooks.on_progress(0.0, note)
    hooks.on_progress(0.0, "encoding the dataset")
    objective = make_objective(spec, model, dataset)
    encode = prepared.encoder(spec, base_model, dataset, objective) if prepared else objective.encode
    splits = _held_out(spec, dataset, _encode(spec, encode))
    write_ledger(work / "ledger.jsonl", splits)
    examples = {role: first_quarantined(split.entries) for role, split in splits.items()}
    check_loss_budget(spec, dataset, {role: split.ledger for role, split in splits.items()}, examples)
    objective.begin(splits)
    row_ids = [sample.row_id for sample in splits["train"].samples]
    state = TrainState(recipe=_recipe(spec), data=digest_of(row_ids), base=base_digest(base_model))
    prepare_forward(model)
    optimizer = make_optimizer(model)
    checkpoint = group.tell(str(resume_from or ""))
    if checkpoint:
        state = _resume(Path(checkpoint), model, optimizer, state, group)
    order = sample_order(spec, splits["train"].samples)
    steps = total_steps(spec, len(row_ids))
    run = Run(
        spec=spec,
        base_model=base_model,
        work=work,
        hooks=hooks,
        model=model,
        objective=objective,
        optimizer=optimizer,
        scaler=loss_scaler(spec.precision, model.device, state.scaler),
        splits=splits,
        feed=Feed(objective, splits["train"], order, spec, steps, group),
        total_steps=steps,
        state=state,
        saver=Saver(work / "checkpoints", spec.checkpoint, hooks),
        group=group,
    )
    if checkpoint:
        _certify(run, Path(checkpoint), row_ids, order)
    checkpoints.discard(
        run.checkpoints, [s for s, _ in checkpoints.list_checkpoints(run.checkpoints) if s <= state.step]
    )
    return run


def sample_order(spec: FineTuneSpec, samples: Sequence[Sample]) -> SampleOrder:
    """In which order a run takes the samples of its training split."""
    grouping = None
    if spec.sequence.length_grouping:
        sizes = [sample.size for sample in samples]
        grouping = Grouping(sizes, spec.optimization.micro_batch_size)
    return SampleOrder([sample.row_id for sample in samples], spec.optimization.seed, grouping)


def total_steps(spec: FineTuneSpec, samples: int) -> int:
    """Optimiser steps of a run over so many samples."""
    optimization = spec.optimization
    if optimization.max_steps:
        return optimization.max_steps
    per_step = optimization.micro_batch_size * optimization.gradient_accumulation_steps
    return max(1, math.ceil(optimization.epochs * samples / per_step))


def _encode(spec: FineTuneSpec, encode: Callable[[str, int], AnySplit]) -> dict[str, AnySplit]:
    splits = {"train": encode(spec.train_split, 0)}
    if spec.validation_split:
        try:
            splits["val"] = encode(spec.validation_split, spec.evaluation.max_items)
        except PreconditionError as error:
            if error.reason != "SPLIT_EMPTY" or not spec.evaluation.holdout_fraction:
                raise
    if spec.test_split:
        splits["test"] = encode(spec.test_split, 0)
    return splits


def _held_out(spec: FineTuneSpec, dataset: Path, splits: dict[str, AnySplit]) -> dict[str, AnySplit]:
    """`splits`, with a part of the training split to validate on if the spec asks for one."""
    share, limit = spec.evaluation.holdout_fraction, spec.evaluation.max_items
    if "val" in splits or not share:
        return splits
    seed = spec.optimization.seed
    train, val = hold_out(splits["train"], dataset, spec.train_split, share, seed)
    return {**splits, "train": train, "val": first_rows(val, limit) if limit else val}


def _resume(
    folder: Path, model: Model, optimizer: torch.optim.Optimizer, fresh: TrainState, group: Group
) -> TrainState:
    state = checkpoints.read_state(folder, group)
    for reason, what, expected, found in (
        ("CHECKPOINT_OF_OTHER_SPEC", "another spec", fresh.recipe, state.recipe),
        ("CHECKPOINT_OF_OTHER_DATA", "other training rows", fresh.data, state.data),
        ("CHECKPOINT_OF_OTHER_BASE", "another base model", fresh.base, state.base or fresh.base),
    ):
        if expected != found:
            raise PreconditionError(
                f"checkpoint {folder} was made with {what}: resume it with the same, or start anew",
                reason=reason,
            )
    checkpoints.load_weights(folder, model, group)
    checkpoints.load_progress(folder, model, optimizer, group)
    return state


def _certify(run: Run, folder: Path, row_ids: Sequence[str], order: SampleOrder) -> None:
    """Compute what the order says was consumed, and compare with what the checkpoint says."""
    consumed = (row_ids[index] for index in order.take(0, run.state.position))
    sample_hash = roll(EMPTY_HASH, consumed)
    run.hooks.on_resume(run.state.certificate, sample_hash)
    if sample_hash != run.state.sample_hash:
        raise PreconditionError(
            f"checkpoint {folder} consumed other samples than this order would have: start anew",
            reason="CHECKPOINT_OF_OTHER_DATA",
        )
    run.saver.resumed_from(checkpoints.checkpoint_info(folder, run.state, run.group))


def _recipe(spec: FineTuneSpec) -> str:
    """Digest of what decides the computation: not how often it is looked at, saved, nor on what it runs."""
    content = spec.to_dict()
    return codec.digest({key: content[key] for key in content if key not in _ASIDE})
