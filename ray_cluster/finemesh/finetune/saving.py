"""Validation, checkpoints and the final test of a run.

Checkpoints are written by a thread, one at a time: training waits only while the state is copied, or when the
checkpoint before is not on disk yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from finemesh.core.errors import FinemeshError
from finemesh.core.spec.finetune import Checkpointing, Lora
from finemesh.finetune import checkpoint as checkpoints
from finemesh.finetune.checkpoint import Camera, Snapshot
from finemesh.finetune.hooks import CheckpointInfo, Hooks

if TYPE_CHECKING:  # a run holds the saver
    from finemesh.finetune.run import Run


class Saver:
    """Writes checkpoints beside the training, tells of them between steps, and removes those that expire.

    Attributes:
        begun_step: of the last checkpoint that was begun, or resumed from; -1 before.
        last: the last one that is whole and was told of.
    """

    def __init__(self, root: Path, policy: Checkpointing, hooks: Hooks) -> None:
        self.root = root
        self.camera = Camera()
        self.begun_step = -1
        self.last: CheckpointInfo | None = None
        self._policy = policy
        self._hooks = hooks
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[CheckpointInfo] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)

    def resumed_from(self, info: CheckpointInfo) -> None:
        self.begun_step, self.last = info.step, info

    def begin(self, run: Run) -> None:
        """Take a snapshot and let it be written. Raises what `finish` raises, of the one before."""
        self.finish()
        if not run.group.leads:
            self.camera.assist(run.model, run.optimizer)
            self.resumed_from(checkpoints.checkpoint_info(self.root, run.state, run.group))
            return
        snapshot = self.camera.snapshot(run.model, run.optimizer, run.state)
        self.begun_step = run.state.step
        self._writing = self._thread.submit(self._write, snapshot)

    def poll(self) -> None:
        """Tell of a checkpoint that has become whole. Raises what `finish` raises."""
        if self._writing and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Wait until what was begun is whole, and tell of it.

        Raises:
            ResourceExhaustedError, UnavailableError: it could not be written, see `write_checkpoint`.
        """
        if self._writing:
            writing, self._writing = self._writing, None
            self.last = writing.result()
            self._hooks.on_checkpoint(self.last)

    def _write(self, snapshot: Snapshot) -> CheckpointInfo:
        info = checkpoints.write_checkpoint(self.root, snapshot)
        kept = [step for step, _ in checkpoints.list_checkpoints(self.root)][-self._policy.keep_last :]
        if self._policy.keep_best and snapshot.state.best_step is not None:
            kept.append(snapshot.state.best_step)
        checkpoints.discard(self.root, kept)
        return info


def validate(run: Run) -> None:
    """Score the validation split, if there is one, once per step. Raises StopAsked."""
    if "val" not in run.splits or run.validated_step == run.state.step:
        return
    with _interruptible(run):
        run.log(run.group.agreed(run.objective.validate(run.splits["val"], run.evaluation)))
    run.tell_items("val", run.state.step)
    run.validated_step = run.state.step


def save(run: Run) -> None:
    """Begin the checkpoint of this step, once. Which one is best, validation says, so that comes first.

    One that was written at a stop in the middle of that validation is rated, and written again, when the run
    goes on. Raises StopAsked, and what `Saver.finish` raises.
    """
    state, rates = run.state, run.spec.checkpoint.keep_best and "val" in run.splits
    if run.saver.begun_step == state.step and not (rates and state.rated_step < state.step):
        return
    if rates:
        validate(run)
        value = state.metrics[run.objective.criterion.metric]
        if state.best_value is None or run.objective.criterion.better(value, state.best_value):
            state.best_step, state.best_value = state.step, value
        state.rated_step = state.step
    run.saver.begin(run)


def save_stopped(run: Run) -> None:
    """The checkpoint of a run that was told to stop: at once, without a validation before."""
    if run.saver.begun_step != run.state.step:
        run.saver.begin(run)
    run.saver.finish()


def test_best(run: Run, resume_from: Path | None) -> int | None:
    """Test the best checkpoint if it is at hand and intact, otherwise the last weights. Returns their step.

    Raises StopAsked.
    """
    if "test" not in run.splits:
        return None
    tested = run.state.step
    best = run.state.best_step
    if best is not None and best != tested:
        homes = [run.checkpoints] + ([resume_from.parent] if resume_from else [])
        found = [
            folder for home in homes if _usable(folder := checkpoints.checkpoint_folder(home, best), run)
        ]
        if at_hand := run.group.tell(str(found[0]) if found else ""):
            checkpoints.load_weights(Path(at_hand), run.model, run.group)
            tested = best
    with _interruptible(run):
        values = run.objective.test(run.splits["test"], run.base_model, run.evaluation)
        run.log(run.group.agreed(values))
    run.tell_items("test", tested)
    return tested


def _usable(folder: Path, run: Run) -> bool:
    """Whether a checkpoint is there and intact; that it is not, people are told."""
    if not folder.is_dir():
        return False
    try:
        checkpoints.verify_checkpoint(folder)
    except FinemeshError as error:
        run.hooks.on_progress(1.0, f"the best checkpoint is passed over, the last one tested: {error}")
        return False
    return True


@contextlib.contextmanager
def _interruptible(run: Run) -> Generator[None]:
    """Ask before every pass through the model whether to stop: held-out splits may take long."""

    def ask(*_: object) -> None:
        run.check_stop()

    modules = [run.model.module]
    if isinstance(run.spec.method, Lora):  # generating goes past the adapters' wrapper
        modules.append(run.model.module.get_base_model())
    handles = [module.register_forward_pre_hook(ask) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
