"""Stopping early: a run ends when so many evaluations in a row were no better than the best before them."""

from __future__ import annotations

from finemesh.finetune.run import Run
from finemesh.finetune.saving import validate


def evaluate(run: Run) -> None:
    """Score the validation split where it is time to, once per step, and judge it. Raises StopAsked.

    A run that was stopped in the middle of it does so when it is resumed.
    """
    state, every = run.state, run.spec.evaluation.every_steps
    if not every or state.step % every or state.judged_step == state.step:
        return
    validate(run)
    if "val" in run.splits:
        _judge(run)
    state.judged_step = state.step


def is_over(run: Run) -> bool:
    """Whether patience is at its end. The state alone says so: a resumed run stops where it would have."""
    patience = run.spec.evaluation.patience
    return 0 < patience <= run.state.evaluations_in_vain


def _judge(run: Run) -> None:
    state, criterion = run.state, run.objective.criterion
    value, least = state.metrics[criterion.metric], run.spec.evaluation.min_improvement
    if state.judged_best is None or criterion.better(value, state.judged_best, least):
        state.judged_best, state.evaluations_in_vain = value, 0
    else:
        state.evaluations_in_vain += 1
    if run.spec.evaluation.patience:
        run.log({"val/evaluations_in_vain": float(state.evaluations_in_vain)})
