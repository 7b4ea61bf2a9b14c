"""When memory runs out: what is said, and that smaller micro batches take the same steps."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finemesh.cluster.deaths import death, kernel_kills, stillbirth
from finemesh.core.spec.finetune import FineTuneSpec, Lora, OutOfMemory, Sequence, Task
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.loop import train
from finemesh.finetune.out_of_memory import asked_bytes, is_out_of_memory, remedy
from ray.core.generated import common_pb2
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError

from tests.support.conversations import spec as make_spec
from tests.support.conversations import text_rows, tiny_model, write_dataset

# Summing the same numbers in another order moves a loss in fp32 by no more (docs/reference/estimates.md).
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("memory")
    write_dataset(made / "items", list(text_rows({"train": 32})))
    tiny_model(made / "llama", "llama")
    return made


class Losses(NoHooks):
    def __init__(self) -> None:
        self.of: dict[int, float] = {}

    def on_metrics(self, step: int, values: dict[str, float]) -> None:
        if "train/loss" in values:
            self.of[step] = values["train/loss"]


def spec_of(**sequence: Any) -> FineTuneSpec:
    spec = make_spec(Task.LANGUAGE, method=Lora(rank=4), sequence=Sequence(**sequence))
    chosen = replace(
        spec.optimization, micro_batch_size=8, gradient_accumulation_steps=1, max_steps=6, learning_rate=1e-2
    )
    return replace(
        spec,
        optimization=chosen,
        checkpoint=replace(spec.checkpoint, every_steps=3, keep_last=9),
        on_out_of_memory=OutOfMemory.HALVE_MICRO_BATCH,
    )


@pytest.mark.parametrize("sequence", [{}, {"packing": False, "length_grouping": True}])
def test_the_same_steps_cut_smaller_go_on_from_a_checkpoint(
    folder: Path, tmp_path: Path, sequence: dict[str, Any]
) -> None:
    """As after memory ran out in step 4: same samples in the same order, losses within the tolerance."""
    spec, whole, cut = spec_of(**sequence), Losses(), Losses()
    places: dict[str, Any] = {"base_model": folder / "llama", "dataset": folder / "items"}
    first = train(spec, **places, work=tmp_path / "whole", hooks=whole)
    halfway = dict(list_checkpoints(tmp_path / "whole" / "checkpoints"))[3]
    second = train(spec, **places, work=tmp_path / "cut", hooks=cut, resume_from=halfway, micro_batch_size=2)
    assert second.certificate.sample_hash == first.certificate.sample_hash
    assert sorted(cut.of) == [4, 5, 6]
    for step, loss in cut.of.items():
        assert loss == pytest.approx(whole.of[step], rel=TOLERANCE)


LIMITED = """
import json, resource, sys
from pathlib import Path
import tests.unit.test_out_of_memory as here
from finemesh.core.errors import ResourceExhaustedError
from finemesh.finetune.loop import train

class Limit(here.Losses):
    def on_progress(self, fraction, message):
        if message.startswith("step 1 "):  # all is loaded, and warm
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            room = pages * resource.getpagesize() + {room}
            resource.setrlimit(resource.RLIMIT_AS, (room, room))

folder = Path(sys.argv[1])
try:
    places = dict(base_model=folder / "llama", dataset=folder / "long", work=folder / "limited")
    train(here.big(), **places, hooks=Limit())
except ResourceExhaustedError as error:
    print(json.dumps([error.reason, str(error), error.metadata]))
"""


def big() -> FineTuneSpec:
    """Steps whose largest allocation is tens of megabytes: the logits of everything."""
    spec = spec_of(max_tokens=4096)
    return replace(spec, optimization=replace(spec.optimization, micro_batch_size=32))


def test_a_real_limit_of_memory_is_told_with_the_longest_row_and_a_remedy(folder: Path) -> None:
    rows = list(text_rows({"train": 32}))
    for number, each in enumerate(rows):
        each["messages"][1]["content"][0]["text"] = "red " * (200 + 10 * number)
    write_dataset(folder / "long", rows)
    script = LIMITED.replace("{room}", str(4 << 20))
    ended = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ended.stdout, ended.stderr[-2000:]
    reason, message, facts = json.loads(ended.stdout.splitlines()[-1])
    assert reason == "OUT_OF_MEMORY"
    assert facts["longest_row"] == "train-31"
    assert int(facts["peak_bytes"]) > 100e6
    assert "memory ran out in step 2" in message
    assert (
        "set optimization.micro_batch_size to 16 and optimization.gradient_accumulation_steps to 2" in message
    )
    assert [step for step, _ in list_checkpoints(folder / "limited" / "checkpoints")] == []


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        # As torch 2.13 and numpy 2.4 write it.
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of", 2.5 * 2**30),
        (
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 65536 bytes. Error code 12",
            65536,
        ),
        ("Unable to allocate 7.45 GiB for an array with shape (1000000000,)", 7.45 * 2**30),
        ("expected scalar type Float but found Half", 0),
    ],
)
def test_what_an_allocator_was_asked_for(text: str, asked: float) -> None:
    assert asked_bytes(text) == int(asked)


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert is_out_of_memory(MemoryError())


def test_the_remedy_is_the_mildest() -> None:
    spec = replace(spec_of(), on_out_of_memory=OutOfMemory.FAIL)
    assert "micro_batch_size to 4" in remedy(spec, 8)
    assert "HALVE_MICRO_BATCH" in remedy(spec, 8)
    assert remedy(spec, 1).startswith("set optimization.activation_checkpointing")
    twice = replace(spec, optimization=replace(spec.optimization, activation_checkpointing=True))
    assert "NF4" in remedy(twice, 1)


def test_a_worker_that_was_killed_for_memory_is_told_from_one_that_died(tmp_path: Path) -> None:
    killed = death(ActorDiedError(), 1, 0, kills=0)
    assert killed.reason == "WORKER_LOST"
    assert str(killed).startswith("the worker of attempt 1 died: its process ended without a word")
    words = "The actor is unavailable: RpcError: RPC error: keepalive watchdog timeout rpc_code: 14"
    lost = death(ActorUnavailableError(words, None), 1, 0, kills=0)
    assert (lost.reason, lost.retryable) == ("WORKER_SILENT", True)
    assert str(lost).endswith("(keepalive watchdog timeout)")
    raised = RayTaskError("run", "Traceback …\nAttributeError: no 'rows'", AttributeError("no 'rows'"))
    assert str(death(raised, 2, 0, kills=0)) == "the worker of attempt 2 died: AttributeError: no 'rows'"
    assert death(ActorDiedError(), 1, 10**9, kills=1).reason == "OUT_OF_MEMORY"
    error = death(OutOfMemoryError("2 workers killed"), 3, 10**9, kills=0)
    assert (error.reason, error.metadata["peak_bytes"]) == ("OUT_OF_MEMORY", "1000000000")
    assert "attempt 3 was killed by Ray" in str(error)
    (tmp_path / "vmstat").write_text("pgfault 12\noom_kill 7\n")
    assert kernel_kills(tmp_path / "vmstat") == 7
    assert kernel_kills(tmp_path / "none") == 0


def test_a_supervisor_that_could_not_begin_is_told_from_one_that_has_ended() -> None:
    """In the words of Ray 2.60."""
    raised = RayTaskError("__init__", "Traceback …\nRuntimeError: no room", RuntimeError("no room"))
    for error in (raised, ActorDiedError(raised)):
        assert stillbirth(error) == "RuntimeError: no room"
    ended = "The actor is dead. Worker exit type: SYSTEM_ERROR Worker exit detail: End of file."
    context: Any = vars(common_pb2)["ActorDiedErrorContext"]  # which type checkers cannot see
    killed = context(actor_id=bytes(16), error_message=ended, never_started=True)
    assert stillbirth(ActorDiedError(killed)) == "its process ended while it started: End of file."
    killed.never_started = False
    assert not stillbirth(ActorDiedError(killed))
