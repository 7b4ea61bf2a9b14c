"""What `finemesh train` and `finemesh sweep` show, and what becomes of numbers that no request can hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from finemesh.client.cli.app import app
from finemesh.client.cli.context import EXIT_USAGE, err, options, out, run
from finemesh.client.cli.estimates import print_estimate
from finemesh.client.cli.specs import Given, as_seen_from_here
from finemesh.client.cli.sweeps import show_sweep
from finemesh.client.cli.training import show_job
from finemesh.client.specs import to_message
from finemesh.v1 import estimate_pb2, sweep_pb2
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec
from finemesh.v1.training_job_pb2 import TrainingJob
from google.rpc import status_pb2
from typer import Exit


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options as of a process of its own, with a token, and a mesh that nothing is asked of."""
    options.__init__()
    monkeypatch.setattr(options, "_connection", None)
    token = tmp_path / "token"
    token.write_text("a")
    token.chmod(0o600)
    monkeypatch.setenv("FINEMESH_SERVER", "127.0.0.1:1")
    monkeypatch.setenv("FINEMESH_TOKEN_FILE", str(token))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "words",
    ["train priority r16 99999999999", "workers resize 99999999999", "train logs r16 --tail 99999999999"],
)
def test_a_number_that_no_field_holds_is_refused(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["finemesh", *words.split()])
    with err.capture() as said, pytest.raises(SystemExit) as ended:
        run(app)
    assert ended.value.code == EXIT_USAGE
    assert "Value out of range: 99999999999" in said.get()


def test_an_estimate_of_a_tiny_run_is_not_nothing() -> None:
    found = estimate_pb2.TrainingEstimate(currency="EUR")
    found.gpu_hours.MergeFrom(estimate_pb2.EstimateInterval(low=0.00003, likely=0.00015, high=1234.5))
    found.cost.MergeFrom(estimate_pb2.EstimateInterval(low=0.000075, likely=0.000375, high=3086.25))
    with out.capture() as shown:
        print_estimate(found)
    assert "0.00015 (3e-05 to 1,234.50)" in shown.get()
    assert "0.00038 (7.5e-05 to 3,086.25) EUR" in shown.get()


def test_what_a_job_went_on_after_is_no_error_of_it() -> None:
    job = TrainingJob(name="projects/p/trainingJobs/a", state=TrainingJob.STATE_RUNNING)
    job.error.CopyFrom(status_pb2.Status(code=14, message="its worker died"))
    with out.capture() as shown, err.capture() as said:
        show_job(job)
    assert ("went on after  its worker died" in shown.get(), said.get()) == (True, "")
    job.state = TrainingJob.STATE_FAILED
    with out.capture() as shown, err.capture() as said:
        show_job(job)
    assert ("its worker died" in shown.get(), said.get()) == (False, "error: its worker died\n")


def test_a_job_tells_that_memory_ran_out() -> None:
    job = TrainingJob(name="projects/p/trainingJobs/a", state=TrainingJob.STATE_RUNNING)
    for rows, told in ((0, False), (2, True)):
        job.micro_batch_size = rows
        with out.capture() as shown:
            show_job(job)
        assert ("micro batch  2 rows, for memory ran out with more" in shown.get()) is told


def test_a_sweep_that_was_only_checked_has_no_state() -> None:
    sweep = sweep_pb2.Sweep(name="projects/p/sweeps/a", state=sweep_pb2.Sweep.STATE_RUNNING)
    with out.capture() as shown:
        show_sweep(sweep, planned=True)
    assert not {"RUNNING", "took"} & set(shown.get().split())
    with out.capture() as shown:
        show_sweep(sweep)
    assert "RUNNING" in shown.get()


def test_a_folder_that_is_not_here_is_no_base_model() -> None:
    with err.capture() as said, pytest.raises(Exit) as ended:
        as_seen_from_here(FineTuneSpec(base_model="./llava"))
    assert (ended.value.exit_code, "./llava is no folder here" in said.get()) == (EXIT_USAGE, True)
    Path("llava").mkdir()
    assert as_seen_from_here(FineTuneSpec(base_model="./llava")).base_model == str(Path("llava").resolve())


def test_a_share_of_gpus_gets_whole_cores() -> None:
    """So that of 1.5 GPUs the message is about them alone."""
    assert to_message(Given(gpus=1.5).read([])).resources.cpus == 2
