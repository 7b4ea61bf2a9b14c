"""Validation, checkpoints and the final test of a run."""

from __future__ import annotations

from pathlib import Path

from finemesh.finetune import checkpoint as checkpoints
from finemesh.finetune.hooks import CheckpointInfo
from finemesh.finetune.run import Run


def validate(run: Run) -> None:
    """Score the validation split, if there is one, once per step."""
    if "val" not in run.splits or run.validated_step == run.state.step:
        return
    run.log(run.objective.validate(run.splits["val"]))
    run.validated_step = run.state.step


def save(run: Run) -> CheckpointInfo:
    """Write the checkpoint of this step, once. Which one is best, validation says, so that comes first."""
    state = run.state
    if run.saved and run.saved.step == state.step:
        return run.saved
    if run.spec.checkpoint.keep_best and "val" in run.splits:
        validate(run)
        value = state.metrics[run.objective.criterion.metric]
        if state.best_value is None or run.objective.criterion.better(value, state.best_value):
            state.best_step, state.best_value = state.step, value
    run.saved = checkpoints.save_checkpoint(run.checkpoints, run.model, run.optimizer, state)
    steps = [step for step, _ in checkpoints.list_checkpoints(run.checkpoints)]
    kept = steps[-run.spec.checkpoint.keep_last :]
    if run.spec.checkpoint.keep_best and state.best_step is not None:
        kept.append(state.best_step)
    checkpoints.discard(run.checkpoints, kept)
    run.hooks.on_checkpoint(run.saved)
    return run.saved


def test_best(run: Run, resume_from: Path | None) -> int | None:
    """Test the best checkpoint if it is at hand, otherwise the last weights. Returns the step of those."""
    if "test" not in run.splits:
        return None
    tested = run.state.step
    best = run.state.best_step
    if best is not None and best != tested:
        homes = [run.checkpoints] + ([resume_from.parent] if resume_from else [])
        found = [folder for home in homes if (folder := checkpoints.checkpoint_folder(home, best)).is_dir()]
        if found:
            checkpoints.verify_checkpoint(found[0])
            checkpoints.load_weights(found[0], run.model)
            tested = best
    run.log(run.objective.test(run.splits["test"], run.base_model, run.work / "evaluation"))
    return tested
