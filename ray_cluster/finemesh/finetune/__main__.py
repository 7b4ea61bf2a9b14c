"""`python -m finemesh.finetune spec.json --base DIR --dataset DIR --work DIR`: one spec, one process."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune.hooks import CheckpointInfo, NoHooks, StopReason


class _Console(NoHooks):
    """Metrics and checkpoints as JSON lines on standard output, progress on standard error."""

    def __init__(self) -> None:
        self._stop: StopReason | None = None

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        self._print({"step": step, **values})

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        self._print({"step": info.step, "checkpoint": str(info.path)})

    def on_progress(self, fraction: float, message: str) -> None:
        print(f"{fraction:4.0%} {message}", file=sys.stderr)  # noqa: T201

    def warn(self, message: str) -> None:
        print(f"warning: {message}", file=sys.stderr)  # noqa: T201

    def should_stop(self) -> StopReason | None:
        return self._stop

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """The first interrupt stops after a checkpoint, a second one at once."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._stop = StopReason.CANCEL

    @staticmethod
    def _print(value: dict[str, object] | dict[str, float]) -> None:
        print(json.dumps(value), flush=True)  # noqa: T201


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m finemesh.finetune", description=__doc__)
    parser.add_argument("spec", type=Path, help="a FineTuneSpec as JSON")
    parser.add_argument("--base", required=True, type=Path, help="folder of the base model")
    parser.add_argument("--dataset", required=True, type=Path, help="folder of a canonical dataset")
    parser.add_argument("--work", required=True, type=Path, help="folder for checkpoints and results")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last intact checkpoint in --work"
    )
    given = parser.parse_args(arguments)
    console = _Console()
    signal.signal(signal.SIGINT, console.interrupt)
    try:
        spec = _read_spec(given.spec)
        from finemesh.finetune.checkpoint import newest_intact
        from finemesh.finetune.loop import train

        result = train(
            spec,
            base_model=given.base,
            dataset=given.dataset,
            work=given.work,
            hooks=console,
            resume_from=newest_intact(given.work / "checkpoints", console.warn) if given.resume else None,
        )
    except FinemeshError as error:
        print(f"error {error.reason}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(asdict(result), default=str))  # noqa: T201
    return 0


def _read_spec(path: Path) -> FineTuneSpec:
    try:
        return FineTuneSpec.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise InvalidError(f"{path} is not a spec in JSON: {error}", reason="MALFORMED_SPEC") from error


if __name__ == "__main__":
    sys.exit(main())
