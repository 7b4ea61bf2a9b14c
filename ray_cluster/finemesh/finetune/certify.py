"""`python -m finemesh.finetune certify spec.yaml …`: prove that a run that is killed and resumed is the same.

Two processes train the spec for a few steps, without its final test. One, the probe, gets SIGKILL right after
a step that a seed chooses, and is resumed from what it left on disk. Then samples, losses and weights of both
are compared. In FP32 on a CPU they have to be equal bit for bit; elsewhere the samples have to, while losses
and weights may differ by TOLERANCE, for GPUs add up in another order each time.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from finemesh import specfile
from finemesh.core.errors import PreconditionError
from finemesh.core.spec import document
from finemesh.core.spec.finetune import Checkpointing, FineTuneSpec, Precision
from finemesh.finetune.jsonlines import to_json

DEFAULT_STEPS: Final = 20
# Relative; what the addition of the same numbers in another order comes to over some steps, with a margin.
TOLERANCE: Final = 0.02
_CHECKPOINTS: Final = 5
# A checkpoint is told of before the next but one is begun: the first, of step 1, by the end of step 3.
_FEWEST_STEPS: Final = 4
_LAST_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a killed and resumed run has in common with one that was never stopped.

    Attributes:
        steps: that were trained.
        killed_after_step: the step after which the probe was killed.
        resumed_from_step: the checkpoint that it went on from; 0 means from the start.
        exact: whether losses and weights have to be equal bit for bit, or within TOLERANCE.
        samples_equal: whether both trained on the same samples in the same order.
        loss_difference, weight_difference: the largest relative difference of the loss of a step, and of a
            tensor of the last weights; 0 means equal bit for bit.
        differing: the first step, and the tensors, that differ by more than they may.
    """

    steps: int
    killed_after_step: int
    resumed_from_step: int
    exact: bool
    samples_equal: bool
    loss_difference: float
    weight_difference: float
    differing: tuple[str, ...]

    @property
    def green(self) -> bool:
        return self.samples_equal and not self.differing

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"resume certificate: {'green' if self.green else 'RED'}"
        yield (
            f"  killed by SIGKILL after step {self.killed_after_step} of {self.steps}, "
            f"resumed from step {self.resumed_from_step}"
        )
        yield f"  samples: {'the same, in the same order' if self.samples_equal else 'OTHERS'}"
        for what, value in (("losses", self.loss_difference), ("weights", self.weight_difference)):
            allowed = "has to be 0" if self.exact else f"at most {TOLERANCE:.0%}"
            said = "equal bit for bit" if value == 0 else f"relative difference {value:.2g}, {allowed}"
            yield f"  {what}: {said}"
        yield from (f"  differs: {name}" for name in self.differing[:_LAST_LINES])


@dataclass(frozen=True, slots=True)
class Told:
    """What a process wrote: its last line (nothing if it was killed), and the loss of each step."""

    result: dict[str, Any]
    losses: dict[int, float]


def certify(
    spec: FineTuneSpec,
    base_model: Path,
    dataset: Path,
    work: Path,
    *,
    steps: int,
    seed: int,
    apart_python: Path | None = None,
) -> Certificate:
    """Train `spec` for `steps` steps twice under `work`, kill one run and resume it, and compare them.

    `apart_python` is the interpreter for families that train in a process of their own, as `train` has it.

    Raises:
        PreconditionError: PROBE_FAILED, a run ended with an error, its own words are in the message; or
            before it had a checkpoint.
    """
    for run in ("straight", "probe"):
        shutil.rmtree(work / run, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    cut = shortened(spec, steps)
    (work / "spec.yaml").write_text(specfile.dump(document.write(cut), "What was certified here."))
    command = [sys.executable, "-m", "finemesh.finetune", str(work / "spec.yaml")]
    if apart_python:
        command += ["--python", str(apart_python)]
    command += ["--base", str(base_model), "--dataset", str(dataset), "--work"]
    straight = watched([*command, str(work / "straight")])
    killed = watched([*command, str(work / "probe")], kills(cut, seed))
    resumed = watched([*command, str(work / "probe"), "--resume"])
    certificate = compare(straight, killed, resumed, cut, max(killed.losses))
    content = {"green": certificate.green, **asdict(certificate)}
    (work / "certificate.json").write_text(to_json(content, indent=1), encoding="utf-8")
    return certificate


def kills(spec: FineTuneSpec, seed: int) -> range:
    """The steps after which the probe may be killed, the first of them chosen by the seed: behind the first
    checkpoint, and never the last step, after which the run could be over before the signal comes.
    """
    last = spec.optimization.max_steps
    first = min(spec.checkpoint.every_steps + 1, last - 1)
    return range(random.Random(seed).randrange(first, last), last)  # noqa: S311  no secret


def shortened(spec: FineTuneSpec, steps: int) -> FineTuneSpec:
    """`spec` for at most so many steps, but enough to be killed behind a checkpoint; with a few checkpoints
    on the way and no final test.
    """
    steps = max(_FEWEST_STEPS, min(steps, spec.optimization.max_steps or steps))
    return replace(
        spec,
        test_split="",
        optimization=replace(spec.optimization, max_steps=steps),
        evaluation=replace(spec.evaluation, baselines=False),
        checkpoint=Checkpointing(every_steps=max(1, steps // _CHECKPOINTS), keep_last=2, keep_best=False),
    )


def compare(
    straight: Told, killed: Told, resumed: Told, spec: FineTuneSpec, killed_after: int
) -> Certificate:
    """The certificate of a run that was never stopped, and of one that was."""
    exact = spec.precision is Precision.FP32 and spec.resources.gpus == 0
    first = min(resumed.losses, default=killed_after + 1)
    losses = {
        f"the loss of step {step}": _relative(loss - told, loss)
        for told_by in (killed.losses, resumed.losses)
        for step, told in sorted(told_by.items())
        for loss in [straight.losses[step]]
    }
    missing = set(straight.losses) - set(killed.losses) - set(resumed.losses)
    losses |= {f"the loss of step {step}": math.inf for step in missing}
    weights = _weight_differences(straight, resumed)
    certificates = [told.result["certificate"] for told in (straight, resumed)]
    if exact and certificates[0]["loss_digest"] != certificates[1]["loss_digest"]:
        losses.setdefault("the digest of all losses", math.inf)
    allowed = 0.0 if exact else TOLERANCE
    return Certificate(
        steps=straight.result["step"],
        killed_after_step=killed_after,
        resumed_from_step=first - 1,
        exact=exact,
        samples_equal=certificates[0]["sample_hash"] == certificates[1]["sample_hash"],
        loss_difference=max(losses.values()),
        weight_difference=max(weights.values()),
        differing=tuple(name for name, value in {**losses, **weights}.items() if not value <= allowed),
    )


def _weight_differences(straight: Told, resumed: Told) -> dict[str, float]:
    """Of each tensor of the last checkpoints: the norm of the difference over the norm."""
    from safetensors.torch import load_file

    # Some are whole numbers: batch norms count their batches.
    ours, theirs = (
        {name: tensor.double() for name, tensor in load_file(_weights(told)).items()}
        for told in (straight, resumed)
    )
    return {
        name: _relative(float((ours[name] - theirs[name]).norm()), float(ours[name].norm()))
        if name in ours and name in theirs
        else math.inf
        for name in sorted(ours.keys() | theirs.keys())
    }


def _relative(difference: float, size: float) -> float:
    return abs(difference) / abs(size) if difference and size else abs(difference)


def _weights(told: Told) -> Path:
    folder = Path(told.result["checkpoint"]["path"])
    [path] = [*folder.glob("adapter/*.safetensors"), *folder.glob("weights/*.safetensors")]
    return path


def watched(command: Sequence[str], kills: range = range(0)) -> Told:
    """Run a process to its end, or kill it after the first step of `kills` with a checkpoint before it.

    Raises PreconditionError, PROBE_FAILED: it fails, or is over before it could be killed.
    """
    saved = False
    losses: dict[int, float] = {}
    result: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            result = json.loads(line)
            saved |= "checkpoint" in result
            if "train/loss" in result:
                losses[result["step"]] = result["train/loss"]
                if saved and result["step"] in kills:
                    process.kill()
                    return Told({}, losses)
        if process.wait():
            said.seek(0)
            words = " ".join(said.read().splitlines()[-_LAST_LINES:])
            raise PreconditionError(
                f"a run that should be certified failed ({words}): mend that first", reason="PROBE_FAILED"
            )
    if kills:
        raise PreconditionError(
            "the run was over before a checkpoint of it was on disk, so there was nothing to resume: certify "
            "more --steps, without evaluation.patience",
            reason="PROBE_FAILED",
        )
    return Told(result, losses)
