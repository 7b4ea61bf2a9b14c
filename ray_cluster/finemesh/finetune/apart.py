"""Training in a process of its own, for families whose library must not be in this one (`Family.apart`).

A child process imports that library and runs the loop; the hooks stay here. Both speak in JSON lines over the
child's pipes: first the child reads what to train, then it calls one hook after the other and waits for each
answer, and last it tells the result or the error. When its standard input ends, because this process was
killed too, the child ends at once.

    parent -> child   {"spec": …, "work": …}       once
    child -> parent   {"hook": name, …}            parent -> child   {"stop": null | "CANCEL" | "PAUSE"}
    child -> parent   {"result": …} | {"error": …} once

Each line of the child also tells the `peaks` of its memory, which the parent's then include.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finemesh.core import errors
from finemesh.core.errors import FieldViolation, FinemeshError, InvalidError, UnavailableError
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.core.spec.ledger import LedgerSummary
from finemesh.finetune.hooks import Certificate, CheckpointInfo, Hooks, Outcome, TrainResult
from finemesh.finetune.prepared import PreparedCache
from finemesh.finetune.usage import Peaks, note_apart


@dataclass(frozen=True, slots=True)
class Request:
    """What `train` is told, but its hooks."""

    spec: FineTuneSpec
    base_model: Path
    dataset: Path
    work: Path
    resume_from: Path | None
    prepared: PreparedCache | None
    pause_at_step: int
    micro_batch_size: int

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "spec": self.spec.to_dict()}, default=str)

    @classmethod
    def from_json(cls, text: str) -> Request:
        values = json.loads(text)
        kept = values["prepared"]
        return cls(
            spec=FineTuneSpec.from_dict(values["spec"]),
            base_model=Path(values["base_model"]),
            dataset=Path(values["dataset"]),
            work=Path(values["work"]),
            resume_from=Path(values["resume_from"]) if values["resume_from"] else None,
            prepared=PreparedCache(Path(kept["folder"]), kept["max_bytes"]) if kept else None,
            pause_at_step=values["pause_at_step"],
            micro_batch_size=values["micro_batch_size"],
        )


def train_apart(module: str, request: Request, hooks: Hooks, python: Path | None = None) -> TrainResult:
    """`train` in a child process that imports `module` first.

    Args:
        module: makes the library's models known to transformers.
        request: what to train.
        hooks: called from this thread, as `train` calls them.
        python: the interpreter, which has finemesh and the library; None for that of this process.

    Raises:
        FinemeshError: what the run raised there.
        UnavailableError: TRAINER_LOST, the process ended without a word.
    """
    command = [str(python or sys.executable), "-m", "finemesh.finetune.apart_child", module]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            result = _converse(child, request, hooks)
        except BrokenPipeError:
            result = None
        except BaseException:
            child.kill()
            raise
    if result is None:
        raise UnavailableError(
            f"the process that trained for {module} ended with exit code {child.returncode} in the midst of "
            "it: its last words are in the log; resume from the last checkpoint",
            reason="TRAINER_LOST",
        )
    return result


def _converse(child: subprocess.Popen[str], request: Request, hooks: Hooks) -> TrainResult | None:
    """Answer the child until it is done; None if it stops speaking before."""
    assert child.stdin
    assert child.stdout
    said = request.to_json()
    while True:
        child.stdin.write(said + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            return None
        heard = json.loads(line)
        note_apart(Peaks(*heard.pop("peaks")))
        if "error" in heard:
            raise error_of(heard["error"])
        if "result" in heard:
            return _result_of(heard["result"])
        said = json.dumps({"stop": _call(hooks, heard.pop("hook"), heard)})


def _call(hooks: Hooks, name: str, given: dict[str, Any]) -> str | None:
    """What `should_stop` says; nothing for the others."""
    match name:
        case "should_stop":
            return hooks.should_stop()
        case "on_metrics":
            hooks.on_metrics(given["step"], given["values"])
        case "on_evaluation":
            hooks.on_evaluation(given["split"], given["step"], Path(given["folder"]))
        case "on_checkpoint":
            hooks.on_checkpoint(_info_of(given["info"]))
        case "on_resume":
            hooks.on_resume(Certificate(**given["certificate"]), given["sample_hash"])
        case _:
            hooks.on_progress(given["fraction"], given["message"])
    return None


def _info_of(values: dict[str, Any]) -> CheckpointInfo:
    typed: dict[str, Any] = {
        "path": Path(values["path"]),
        "certificate": Certificate(**values["certificate"]),
    }
    return CheckpointInfo(**(values | typed))


def _result_of(values: dict[str, Any]) -> TrainResult:
    ledgers: dict[str, dict[str, Any]] = values["ledgers"]
    typed: dict[str, Any] = {
        "outcome": Outcome(values["outcome"]),
        "checkpoint": _info_of(values["checkpoint"]),
        "certificate": Certificate(**values["certificate"]),
        "ledgers": {role: LedgerSummary(**each) for role, each in ledgers.items()},
    }
    return TrainResult(**(values | typed))


def error_to_json(error: FinemeshError) -> dict[str, Any]:
    """An error as JSON values, which `error_of` reads."""
    violations = [asdict(each) for each in error.violations] if isinstance(error, InvalidError) else []
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "reason": error.reason,
        "metadata": error.metadata,
        "violations": violations,
    }


def error_of(values: dict[str, Any]) -> FinemeshError:
    """The error that `error_to_json` wrote, to be raised here."""
    kind: type[FinemeshError] = getattr(errors, values["kind"])
    error = kind(values["message"], reason=values["reason"], metadata=values["metadata"])
    if isinstance(error, InvalidError):
        error.violations = [FieldViolation(**each) for each in values["violations"]]
    return error
