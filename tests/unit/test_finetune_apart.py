"""Training in a child process: the same run as here, and what becomes of it when one of both processes ends.

The child imports `json` where a family's library would be, and trains what needs none.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
from finemesh.core.errors import InvalidError, PreconditionError, UnavailableError
from finemesh.core.spec.finetune import FineTuneSpec, Optimization, Task
from finemesh.finetune import usage
from finemesh.finetune.apart import Request, error_of, error_to_json, train_apart
from finemesh.finetune.hooks import CheckpointInfo, Outcome, StopReason, TrainResult
from finemesh.finetune.loop import train
from finemesh.finetune.prepared import PreparedCache

from tests.support.conversations import write_dataset
from tests.support.picture_runs import Told, picture_spec, tiny_picture_model
from tests.support.servers import PATIENCE_SECONDS
from tests.support.shapes import shape_rows

SPEC = picture_spec(Task.IMAGE_CLASSIFICATION, test_split="test", validation_split="val")


@dataclass
class Listener(Told):
    """Stops or fails after a step; keeps what it was handed."""

    stop_after: int = 0
    raise_after: int = 0
    checkpoints: list[int] = field(default_factory=list[int])
    evaluations: list[str] = field(default_factory=list[str])

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        super().on_metrics(step, values)
        if step == self.raise_after:
            raise UnavailableError("the spool is away", reason="SPOOL_AWAY")

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        assert (info.path / "manifest.json").is_file()
        self.checkpoints.append(info.step)

    def on_evaluation(self, split: str, step: int, folder: Path) -> None:
        assert (folder / f"{split}.jsonl").is_file()
        self.evaluations.append(split)

    def should_stop(self) -> StopReason | None:
        return StopReason.CANCEL if self.stop_after in self.losses else None


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_picture_model(tmp_path_factory.mktemp("model") / "vit", "vit")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = list(shape_rows({"train": 24, "val": 6, "test": 8}, side_px=32, most=1))
    return write_dataset(tmp_path_factory.mktemp("data") / "shapes", rows)


def request(
    spec: FineTuneSpec, base: Path, data: Path, work: Path, resume_from: Path | None = None
) -> Request:
    return Request(spec, base, data, work, resume_from, PreparedCache(work.parent / "prepared"), 0, 0)


def comparable(result: TrainResult) -> dict[str, float]:
    return {name: value for name, value in result.metrics.items() if not name.endswith("_per_second")}


@pytest.fixture(autouse=True)
def nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_apart", usage.Peaks())


def test_a_child_stops_and_goes_on_as_one_process_would_bit_for_bit(
    base: Path, shapes: Path, tmp_path: Path
) -> None:
    here, told = Listener(), Listener(stop_after=3)
    straight = train(SPEC, base_model=base, dataset=shapes, work=tmp_path / "here", hooks=here)
    stopped = train_apart("json", request(SPEC, base, shapes, tmp_path / "apart"), told)
    assert (stopped.outcome, stopped.step) == (Outcome.CANCELLED, 3)
    assert usage.peak_resident_bytes() > usage.own_peaks().resident_bytes + 10**8  # torch alone takes more
    again = Listener()
    resumed = train_apart(
        "json", request(SPEC, base, shapes, tmp_path / "apart", stopped.checkpoint.path), again
    )
    assert told.losses | again.losses == here.losses
    assert resumed.certificate == straight.certificate
    assert comparable(resumed) == comparable(straight)
    assert replace(resumed, metrics={}, checkpoint=straight.checkpoint) == replace(straight, metrics={})
    assert again.checkpoints[-1:] == here.checkpoints[-1:] == [resumed.checkpoint.step]
    assert again.evaluations[-1] == here.evaluations[-1] == "test"


def speaker(folder: Path, then: str) -> Path:
    """An interpreter that tells of a first step, whatever it is to run, and goes on once it is answered."""
    path = folder / "python"
    hook = '{"hook": "on_metrics", "step": 1, "values": {"train/loss": 1.0}, "peaks": [4096, 512]}'
    path.write_text(f"#!/bin/sh\nread -r request\necho '{hook}'\nread -r answer\n{then}\n")
    path.chmod(0o755)
    return path


def test_what_a_hook_raises_ends_the_child(tmp_path: Path) -> None:
    asked, before = request(SPEC, tmp_path, tmp_path, tmp_path / "run"), psutil.Process().children()
    with pytest.raises(UnavailableError, match="the spool is away"):
        train_apart("json", asked, Listener(raise_after=1), speaker(tmp_path, "exec sleep 600"))
    assert not set(psutil.Process().children()) - set(before)


def test_a_child_that_dies_is_told_of(tmp_path: Path) -> None:
    asked, told = request(SPEC, tmp_path, tmp_path, tmp_path / "run"), Listener()
    with pytest.raises(UnavailableError, match=r"exit code -9.*resume") as caught:
        train_apart("json", asked, told, speaker(tmp_path, "kill -9 $$"))
    assert (caught.value.reason, told.losses) == ("TRAINER_LOST", {1: 1.0})
    assert usage.peak_device_memory_bytes() == usage.peak_memory_bytes() == 512
    assert usage.peak_resident_bytes() >= usage.own_peaks().resident_bytes + 4096


def test_a_child_ends_with_its_parent(base: Path, shapes: Path, tmp_path: Path) -> None:
    """The end of its standard input is all that it sees of a parent that was killed; it is computing then."""
    long = replace(SPEC, optimization=replace(SPEC.optimization, max_steps=100_000))
    command = [sys.executable, "-m", "finemesh.finetune.apart_child", "json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(request(long, base, shapes, tmp_path / "run").to_json() + "\n")
        child.stdin.flush()
        assert '"hook"' in child.stdout.readline()
        child.stdin.close()
        assert child.wait(PATIENCE_SECONDS) == 1


@pytest.mark.parametrize("fault", ["", "raise RuntimeError('operator torchvision::nms does not exist')"])
def test_a_library_that_is_not_there_or_not_whole_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault:
        (tmp_path / "such_library.py").write_text(fault, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(PreconditionError, match=r"pip install 'finemesh\[yolo\]'.*torchvision") as caught:
        train_apart("such_library", request(SPEC, tmp_path, tmp_path, tmp_path / "run"), Told())
    assert caught.value.reason == "NOT_INSTALLED"


def test_an_error_arrives_as_it_was_raised() -> None:
    error = InvalidError.of("spec.lora.rank", "write 8", reason="MALFORMED_SPEC")
    error.metadata["run"] = "1"
    again = error_of(error_to_json(error))
    assert isinstance(again, InvalidError)
    assert (str(again), again.reason, again.metadata) == (str(error), error.reason, error.metadata)
    assert again.violations == error.violations


def test_a_request_arrives_as_it_was_sent(tmp_path: Path) -> None:
    spec = replace(SPEC, optimization=Optimization(learning_rate=1 / 3))
    sent = request(spec, tmp_path, tmp_path, tmp_path / "run", tmp_path)
    assert Request.from_json(sent.to_json()) == sent
