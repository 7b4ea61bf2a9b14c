"""`python -m finemesh.finetune spec.yaml --dataset DIR`: one fine-tune, one process, no mesh.

The spec is the file that `finemesh train submit -f` takes, in YAML or JSON; docs/reference/specs.md has its
fields. Metrics and checkpoints go to standard output as JSON lines, progress and warnings to standard error.
The first Ctrl-C stops after a checkpoint, from which --resume goes on; a second one stops at once.
With several processes: `torchrun --nproc-per-node 2 -m finemesh.finetune spec.yaml ...`; rank 0 speaks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from finemesh import specfile
from finemesh.core.errors import FinemeshError, InvalidError, PreconditionError
from finemesh.core.spec import document, lint
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune import certify
from finemesh.finetune.families import FAMILIES
from finemesh.finetune.hooks import CheckpointInfo, NoHooks, Outcome, StopReason
from finemesh.finetune.jsonlines import to_json
from finemesh.finetune.rows import read_manifest
from finemesh.specfile import SpecFileError

_EXAMPLES: Final = """examples:
  python -m finemesh.finetune spec.yaml --dataset ./items
  python -m finemesh.finetune spec.yaml --dataset ./items -o lora.rank=32 -o optimization.max_steps=200
  python -m finemesh.finetune spec.yaml --dataset ./items --resume
  python -m finemesh.finetune spec.yaml --check
  python -m finemesh.finetune certify spec.yaml --dataset ./items
  python -m finemesh.finetune probe spec.yaml --dataset ./items > probe.json

the shortest spec:
  task: LANGUAGE
  base_model: ./llama
  lora: {rank: 16}
"""

_FOLDERS: Final = {
    "--dataset": "of a dataset in canonical form, as `finemesh dataset download` writes it, or a file of "
    "JSON lines with `text` or `messages`; by default the spec's, if that is here",
    "--base": "of the base model; by default the spec's base_model",
    "--work": "for checkpoints and results; by default ./run-ID, where ID is the spec's",
}


class _Console(NoHooks):
    """Metrics and checkpoints as JSON lines on standard output, progress on standard error."""

    def __init__(self) -> None:
        self._stop: StopReason | None = None
        self._shown = ""

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        _tell({"step": step, **values})

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        _tell({"step": info.step, "checkpoint": str(info.path)})

    def on_progress(self, fraction: float, message: str) -> None:
        """A line that is written over on a terminal; elsewhere one for each percent, and each other stage."""
        stage = f"{fraction:4.0%} {message.partition(' ')[0]}"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{fraction:4.0%} {message}" + ("\n" if fraction >= 1 else ""))
            sys.stderr.flush()
        elif stage != self._shown:
            _say(f"{fraction:4.0%} {message}")
        self._shown = stage

    def should_stop(self) -> StopReason | None:
        return self._stop

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """The first interrupt stops after a checkpoint, a second one at once."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._stop = StopReason.CANCEL


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 if it ended well, 1 if it did not, 2 if the command line or the spec is wrong."""
    words = sys.argv[1:] if arguments is None else arguments
    probes = words[:1] == ["probe"]
    certifies = words[:1] == ["certify"]
    given = _arguments(words[probes or certifies :], certifies=certifies)
    given.probes = probes
    try:
        file = specfile.overridden(specfile.read(given.spec), given.overrides)
        values = _completed(file.values, given)
        report = lint.lint_document(values, _facts(str(values.get("base_model", ""))))
        for finding in report.findings:
            place = file.place(finding.field)
            where = f"{place}: " if place else ""
            _say(f"{where}{finding.severity.lower()}: {finding.field}: {finding.message}")
        if report.spec is None or given.check:
            return 2 if report.refused else 0
        return _carry_out(report.spec, given)
    except SpecFileError as error:
        _say(f"error: {error}")
        return 2
    except FinemeshError as error:
        _say(f"error {error.reason}: {error}")
        return 1


def _arguments(arguments: list[str], *, certifies: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m finemesh.finetune" + " certify" * certifies,
        description=certify.__doc__ if certifies else __doc__,
        epilog=None if certifies else _EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", type=Path, help="the fine-tune, in YAML or JSON")
    for name, meaning in _FOLDERS.items():
        parser.add_argument(name, type=Path, metavar="DIR", help=meaning)
    parser.add_argument(
        *("-o", "--set"),
        dest="overrides",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of the spec, e.g. lora.rank=32; repeatable",
    )
    parser.add_argument(
        "--python",
        type=Path,
        metavar="FILE",
        help="the interpreter of models that train in a process of their own (yolo); by default this one",
    )
    parser.set_defaults(certifies=certifies, check=False, resume=False, cache=None)
    if certifies:
        steps = f"how many steps to train; by default {certify.DEFAULT_STEPS}"
        parser.add_argument("--steps", type=int, default=certify.DEFAULT_STEPS, help=steps)
        parser.add_argument("--seed", type=int, default=0, help="chooses the step to kill the probe after")
        return parser.parse_args(arguments)
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keeps encoded splits for the next run; by default none are"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last intact checkpoint in --work"
    )
    parser.add_argument(
        "--check", action="store_true", help="say what is wrong with the spec, and train nothing"
    )
    return parser.parse_args(arguments)


def _completed(values: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """`values`, in which folders stand for what the spec does not name."""
    dataset = str(values.get("dataset") or given.dataset or "")
    if given.dataset is None and dataset and Path(dataset).exists():
        given.dataset = Path(dataset)
    if not dataset.startswith("projects/"):
        words = re.sub(r"[^a-z0-9]+", "-", Path(dataset).resolve().name.lower()).strip("-0123456789")
        dataset = f"projects/local/datasets/{words[:63].strip('-') or 'dataset'}"
    base_model = values.get("base_model") or str(given.base or "")
    return {**values, "dataset": dataset, "base_model": base_model}


def _facts(base_model: str) -> lint.BaseModelFacts:
    """What the config.json of a local model says."""
    try:
        facts = lint.facts_of(json.loads((Path(base_model) / "config.json").read_bytes()))
    except (OSError, ValueError, AttributeError):
        return lint.BaseModelFacts()
    family = next((each for each in FAMILIES if facts.model_type in each.model_types), None)
    return replace(facts, layers=family.lora_targets) if family else facts


def _carry_out(spec: FineTuneSpec, given: argparse.Namespace) -> int:
    base_model: Path = given.base or Path(spec.base_model)
    if not base_model.is_dir():
        raise InvalidError.of(
            "base_model",
            f"{base_model} is no folder here: download the model and give its folder by --base",
            reason="BASE_MODEL_NOT_FOUND",
        )
    if given.dataset is None:
        raise InvalidError.of(
            "dataset",
            "give the folder of a dataset, or a file of JSON lines, by --dataset; "
            "`finemesh dataset download` writes a folder",
            reason="DATASET_NOT_FOUND",
        )
    read_manifest(given.dataset)  # a wrong folder shows before the model is loaded
    if given.probes:
        return _probe(spec, base_model, given.dataset)
    if given.certifies:
        work: Path = given.work or Path(f"certified-{spec.fingerprint()[:8]}")
        return _certify(spec, base_model, work, given)
    return _train(spec, base_model, given.work or Path(f"run-{spec.fingerprint()[:8]}"), given)


def _probe(spec: FineTuneSpec, base_model: Path, dataset: Path) -> int:
    from finemesh.finetune.probe import probe

    _tell(probe(spec, base_model, dataset).to_json())
    return 0


def _certify(spec: FineTuneSpec, base_model: Path, work: Path, given: argparse.Namespace) -> int:
    chosen = {"steps": given.steps, "seed": given.seed, "apart_python": given.python}
    certificate = certify.certify(spec, base_model, given.dataset, work, **chosen)
    for line in certificate.lines():
        print(line)  # noqa: T201
    return 0 if certificate.green else 1


def _train(spec: FineTuneSpec, base_model: Path, work: Path, given: argparse.Namespace) -> int:
    if not given.resume and any(work.glob("checkpoints/step-*")):
        raise PreconditionError(
            f"{work} holds checkpoints, which a run that begins would remove: go on with --resume, or name "
            "another folder by --work",
            reason="WORK_NOT_EMPTY",
        )
    work.mkdir(parents=True, exist_ok=True)
    console = _Console()
    signal.signal(signal.SIGINT, console.interrupt)
    from finemesh.finetune.checkpoint import newest_intact
    from finemesh.finetune.distributed import from_environment
    from finemesh.finetune.loop import train
    from finemesh.finetune.prepared import PreparedCache

    with from_environment() as group:
        if group.leads:
            console.on_progress(0.0, f"working in {work}")
        newest = newest_intact(work / "checkpoints", _say) if given.resume and group.leads else None
        if group.leads and newest is None:
            heading = "What was trained here. Again: python -m finemesh.finetune spec.yaml --dataset DIR"
            (work / "spec.yaml").write_text(specfile.dump(document.write(spec), heading))
        result = train(
            spec,
            base_model=base_model,
            dataset=given.dataset,
            work=work,
            hooks=console,
            resume_from=newest,
            prepared=PreparedCache(given.cache) if given.cache else None,
            group=group,
            apart_python=given.python,
        )
    if group.leads:
        _tell(asdict(result))
        if result.outcome is not Outcome.COMPLETED:
            _say(f"stopped after step {result.step}: the same command with --resume goes on")
    return 0


def _tell(value: dict[str, Any]) -> None:
    print(to_json(value), flush=True)  # noqa: T201


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _run() -> None:
    code = main()
    if "WORLD_SIZE" in os.environ:
        from finemesh.finetune.distributed import end_process

        end_process(code)
    sys.exit(code)


if __name__ == "__main__":
    _run()
