"""`python -m finemesh.finetune.apart_child MODULE`: the child of `apart`, which runs the loop.

Its standard output is the pipe to the parent; what libraries print goes to standard error instead.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TextIO

from finemesh.core.errors import FinemeshError, PreconditionError
from finemesh.finetune.apart import Request, error_to_json
from finemesh.finetune.hooks import Certificate, CheckpointInfo, StopReason, TrainResult
from finemesh.finetune.usage import own_peaks


class Parent:
    """The hooks of the loop, called where the parent is. Each waits for its answer."""

    def __init__(self, pipe: TextIO) -> None:
        self._pipe = pipe
        self._heard: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def hear(self) -> str:
        """The next line that the parent says."""
        return self._heard.get()

    def tell(self, **said: Any) -> None:
        # NaN and infinity are written as Python reads them: they are values of metrics, too.
        self._pipe.write(json.dumps({**said, "peaks": own_peaks()}, default=str) + "\n")
        self._pipe.flush()

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        self._call("on_metrics", step=step, values=values)

    def on_evaluation(self, split: str, step: int, folder: Path) -> None:
        self._call("on_evaluation", split=split, step=step, folder=folder)

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        self._call("on_checkpoint", info=asdict(info))

    def on_resume(self, certificate: Certificate, sample_hash: str) -> None:
        self._call("on_resume", certificate=asdict(certificate), sample_hash=sample_hash)

    def on_progress(self, fraction: float, message: str) -> None:
        self._call("on_progress", fraction=fraction, message=message)

    def should_stop(self) -> StopReason | None:
        reason = self._call("should_stop")
        return StopReason(reason) if reason else None

    def _call(self, hook: str, **given: Any) -> str | None:
        self.tell(hook=hook, **given)
        return json.loads(self.hear())["stop"]

    def _listen(self) -> NoReturn:
        """Also while the loop computes: a parent that is gone must not leave a process on its GPU."""
        for line in sys.stdin:
            self._heard.put(line)
        os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's, which asks for a checkpoint
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    parent = Parent(pipe)
    try:
        parent.tell(result=asdict(_train(sys.argv[1], Request.from_json(parent.hear()), parent)))
    except FinemeshError as error:
        parent.tell(error=error_to_json(error))


def _train(module: str, request: Request, hooks: Parent) -> TrainResult:
    try:
        import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # the last two: a torchvision of another torch
        raise PreconditionError(
            f"{module} cannot be imported by {sys.executable} ({error}): pip install 'finemesh[yolo]' where "
            "training runs, beside a torchvision that was made for its torch, or name an interpreter that "
            "has both",
            reason="NOT_INSTALLED",
        ) from error
    from finemesh.finetune.distributed import ALONE
    from finemesh.finetune.loop import train_here

    return train_here(
        request.spec,
        request.base_model,
        request.dataset,
        request.work,
        hooks,
        request.resume_from,
        request.prepared,
        ALONE,
        request.pause_at_step,
        request.micro_batch_size,
    )


if __name__ == "__main__":
    main()
