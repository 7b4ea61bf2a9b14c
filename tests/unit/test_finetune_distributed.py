"""Two ranks compute what one process computes, and either goes on where the other stopped."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from finemesh.core.errors import UnavailableError
from finemesh.core.spec.finetune import (
    Evaluation,
    FineTuneSpec,
    Full,
    Lora,
    Optimization,
    Resources,
    Strategy,
    Task,
    Tower,
)
from finemesh.finetune.batches import cut, shares
from finemesh.finetune.distributed import ALONE, joined
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch.distributed import TCPStore

from tests.support.conversations import colour_rows, spec, text_rows, tiny_model, write_dataset
from tests.support.ranks import Leg, carry_out, run_legs

# Three processes start and make some twenty runs before the first test.
pytestmark = pytest.mark.timeout(300)

# Sums of fp32 in another order; over six steps of a high rate the difference grows.
TOLERANCE: Final = 2e-4
STEPS: Final = 4


def chosen(
    task: Task, strategy: Strategy = Strategy.DDP, rows_per_step: int = 8, **changes: Any
) -> FineTuneSpec:
    """A run without dropout, which draws other numbers on every rank."""
    base = spec(task, **{"method": Lora(rank=4, alpha=8), "validation_split": "val", **changes})
    micro, parts = (1, 1) if rows_per_step == 1 else (rows_per_step // 2, 2)
    return replace(
        base,
        optimization=Optimization(
            learning_rate=2e-3,
            max_steps=STEPS,
            micro_batch_size=micro,
            gradient_accumulation_steps=parts,
            seed=3,
        ),
        resources=Resources(cpus=2, workers=2, strategy=strategy),
    )


FULL: Final = Full((Tower.LANGUAGE,))
LLAVA: Final = Lora(rank=4, alpha=8, train_connector=True)
RUNS: Final = {
    "lora": chosen(Task.LANGUAGE),
    "full": chosen(Task.LANGUAGE, method=FULL),
    "llava": chosen(Task.VISION_LANGUAGE, method=LLAVA, test_split="test"),
    "a rank without a row": chosen(Task.LANGUAGE, rows_per_step=1),
    "lora, sharded": chosen(Task.LANGUAGE, Strategy.FSDP),
    "full, sharded": chosen(
        Task.LANGUAGE,
        Strategy.FSDP,
        method=FULL,
        test_split="test",
        evaluation=Evaluation(every_steps=2, baselines=True),
    ),
    "llava, sharded": chosen(Task.VISION_LANGUAGE, Strategy.FSDP, method=LLAVA),
    "all towers of pictures and texts, sharded": chosen(
        Task.VISION_LANGUAGE, Strategy.FSDP, method=Full((Tower.VISION, Tower.CONNECTOR, Tower.LANGUAGE))
    ),
    "a rank without a row, sharded": chosen(Task.LANGUAGE, Strategy.FSDP, rows_per_step=1),
}


@dataclass(frozen=True)
class Place:
    """Models and data."""

    root: Path

    def leg(self, run: FineTuneSpec, work: str, **more: Any) -> Leg:
        task = run.task.value
        base, data = (str(self.root / f"{task}-{kind}") for kind in ("base", "data"))
        return Leg(run.to_dict(), base, data, str(self.root / "work" / work), **more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("ranks"))
    counts = {"train": 20, "val": 4, "test": 4}
    mixed = [
        *colour_rows(counts),
        *({**row, "row_id": f"text-{row['row_id']}"} for row in text_rows({"train": 8})),
    ]
    for task, family, rows in (
        (Task.LANGUAGE, "llama", list(text_rows(counts))),
        (Task.VISION_LANGUAGE, "llava", mixed),
    ):
        tiny_model(place.root / f"{task.value}-base", family)
        write_dataset(place.root / f"{task.value}-data", rows)
    return place


def chain(place: Place) -> list[Leg]:
    """Full tuning stopped after every step, and resumed by others each time."""
    run = RUNS["full"]
    sharded = replace(run, resources=replace(run.resources, strategy=Strategy.FSDP))
    return [
        place.leg(run, "chain-0", stop_after=1),
        place.leg(run, "chain-1", stop_after=2, alone=True, resume_from=checkpoint(place, "chain-0", 1)),
        place.leg(sharded, "chain-2", stop_after=3, resume_from=checkpoint(place, "chain-1", 2)),
        place.leg(run, "chain-3", alone=True, resume_from=checkpoint(place, "chain-2", 3)),
    ]


def checkpoint(place: Place, work: str, step: int) -> str:
    return str(place.root / "work" / work / "checkpoints" / f"step-{step:08d}")


@pytest.fixture(scope="module")
def by_two(place: Place) -> dict[str, dict[str, Any]]:
    """What rank 0 was told of every run, of the chain, and of a run with dropout, straight and resumed."""
    drawn = replace(RUNS["lora"], method=Lora(rank=4, alpha=8, dropout=0.2))
    legs = {name: place.leg(run, name.replace(" ", "-")) for name, run in RUNS.items()}
    legs |= {f"chain {index}": leg for index, leg in enumerate(chain(place))}
    legs["drawn"] = place.leg(drawn, "drawn")
    legs["drawn, resumed"] = place.leg(drawn, "drawn-again", resume_from=checkpoint(place, "drawn", 2))
    return dict(zip(legs, run_legs(list(legs.values()), place.root), strict=True))


@pytest.fixture(scope="module")
def by_one(place: Place) -> dict[str, dict[str, Any]]:
    """The same runs by one process, each kind once: what is sharded or not is the same."""
    return {
        name: carry_out(place.leg(run, f"one-{name}"), ALONE)
        for name, run in RUNS.items()
        if run.resources.strategy is Strategy.DDP or name.startswith("all towers")
    }


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_compute_what_one_process_does(
    by_one: dict[str, dict[str, Any]], by_two: dict[str, dict[str, Any]], name: str
) -> None:
    two = by_two[name]
    one = by_one[name if name in by_one else name.removesuffix(", sharded")]
    assert [two["losses"][str(step)] for step in range(1, STEPS + 1)] == pytest.approx(
        list(one["losses"].values()), rel=TOLERANCE
    )
    for metric in ("val/loss", "train/grad_norm"):
        assert two["values"][metric] == pytest.approx(one["values"][metric], rel=10 * TOLERANCE)
    if "test/loss" in two["values"] and "test/loss" in one["values"]:
        assert two["values"]["test/loss"] == pytest.approx(one["values"]["test/loss"], rel=10 * TOLERANCE)
    assert two["sample_hash"] == one["sample_hash"]


@pytest.mark.parametrize("name", RUNS)
def test_checkpoints_are_laid_out_alike(
    place: Place, by_one: dict[str, dict[str, Any]], by_two: dict[str, dict[str, Any]], name: str
) -> None:
    one = by_one[name if name in by_one else name.removesuffix(", sharded")]
    ours, theirs = (layout(Path(each["checkpoint"])) for each in (by_two[name], one))
    # Parameters that no batch passes through have moments, of zero, where gradients are summed by the unit.
    assert ours.pop("optimizer.safetensors").items() >= theirs.pop("optimizer.safetensors").items()
    assert ours == theirs


def layout(folder: Path) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """Tensors of every file: their number formats and shapes."""
    found: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    for path in sorted(folder.rglob("*")):
        name, kinds = path.relative_to(folder).as_posix(), dict[str, tuple[str, tuple[int, ...]]]()
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
                kinds = {key: (each.get_dtype(), tuple(each.get_shape())) for key, each in slices.items()}
        found[name] = kinds
    return found


def test_any_number_of_ranks_goes_on_where_another_stopped(
    by_one: dict[str, dict[str, Any]], by_two: dict[str, dict[str, Any]]
) -> None:
    legs = [by_two[f"chain {index}"] for index in range(STEPS)]
    assert [list(leg["losses"]) for leg in legs] == [[str(step)] for step in range(1, STEPS + 1)]
    for before, after in itertools.pairwise(legs):
        assert after["resumed_hash"] == before["sample_hash"]
    losses = [loss for leg in legs for loss in leg["losses"].values()]
    assert losses == pytest.approx(list(by_one["full"]["losses"].values()), rel=TOLERANCE)
    assert legs[-1]["sample_hash"] == by_one["full"]["sample_hash"]


def test_as_many_ranks_resume_bit_for_bit_with_dropout(by_two: dict[str, dict[str, Any]]) -> None:
    straight, resumed = by_two["drawn"], by_two["drawn, resumed"]
    assert resumed["losses"] == {step: loss for step, loss in straight["losses"].items() if int(step) > 2}
    assert resumed["loss_digest"] == straight["loss_digest"]
    assert straight["losses"] != by_two["lora"]["losses"]


def test_a_rank_that_never_comes_is_not_waited_for() -> None:
    moment = timedelta(seconds=1)
    store = TCPStore("127.0.0.1", 0, 2, is_master=True, timeout=moment, wait_for_workers=False)
    with pytest.raises(UnavailableError) as caught, joined(0, 2, store=store, timeout=moment):
        pass
    assert caught.value.reason == "RANK_LOST"


@dataclass(frozen=True)
class Row:
    row_id: str
    size: int


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 9))
def test_a_step_is_shared_whole_and_evenly(sizes: list[int], size: int, ranks: int) -> None:
    rows = [Row(str(index), each) for index, each in enumerate(sizes)]
    dealt = shares(rows, size, ranks)
    given_away = [row for share in dealt for batch in share for row in batch]
    assert sorted(given_away, key=lambda row: int(row.row_id)) == rows
    assert all(1 <= len(batch) <= size for share in dealt for batch in share)
    assert max(map(len, dealt)) == math.ceil(math.ceil(len(rows) / ranks) / size)
    assert shares(rows, size, 1) == [cut(rows, size)]
