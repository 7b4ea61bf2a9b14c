"""What steps train on: made ahead by a thread, the same as if made on demand, and broken rows by name."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from finemesh.core.errors import UnavailableError
from finemesh.core.spec.finetune import Checkpointing, Resources, Task
from finemesh.finetune import pictures, rows, sight
from finemesh.finetune.checkpoint import list_checkpoints
from finemesh.finetune.feed import Feed
from finemesh.finetune.hooks import NoHooks
from finemesh.finetune.loop import train
from finemesh.finetune.objectives.objective import AnyObjective, Split
from finemesh.finetune.order import SampleOrder

from tests.support.conversations import colour_rows, spec, text_rows, tiny_model, write_dataset
from tests.support.picture_runs import picture_spec
from tests.support.shapes import shape_rows


@dataclass(frozen=True)
class Word:
    row_id: str
    size: int = 1


@dataclass(frozen=True)
class Words:
    """A batch of words, with tensors in the places where batches have them."""

    ids: list[str]
    inputs: dict[str, Any]


class Speller:
    """Stands where an objective does; one of its words cannot be spelt."""

    def __init__(self, broken: str = "") -> None:
        self.broken, self.threads = broken, set[str]()

    def vary(self, sample: Word, _epoch: int) -> Word:
        return sample

    def collate(self, _split: Split[Word], samples: Sequence[Word]) -> Words:
        self.threads.add(threading.current_thread().name)
        ids = [sample.row_id for sample in samples]
        if self.broken in ids:
            raise OSError("its picture is gone")
        return Words(ids, {"lengths": [torch.tensor([len(each) for each in ids])]})


CHOSEN = spec(Task.LANGUAGE)  # steps of 2 x 4 samples


def make_feed(speller: Speller, total_steps: int = 100, **changes: Any) -> Feed:
    words = [Word(f"word-{index}") for index in range(21)]
    order = SampleOrder([word.row_id for word in words], seed=3)
    objective = cast("AnyObjective", speller)
    return Feed(objective, Split(words, [], 0), order, replace(CHOSEN, **changes), total_steps)


def test_steps_are_what_the_order_says_wherever_one_asks() -> None:
    order = SampleOrder([f"word-{index}" for index in range(21)], seed=3)
    with make_feed(speller := Speller()) as feed:
        for position in (0, 8, 16, 24, 8, 16, 800, 792, 800):
            given = feed.at(position)
            expected = [f"word-{index}" for index in order.take(position, 8)]
            assert given.row_ids == expected
            assert [cast("Any", batch).ids for batch in given.batches] == [expected[:4], expected[4:]]
    assert speller.threads == {"feed_0"}


def test_a_row_that_makes_no_batch_is_named_when_its_step_comes_and_not_before() -> None:
    order = SampleOrder([f"word-{index}" for index in range(21)], seed=3)
    broken = f"word-{order.take(19, 1)[0]}"  # the fourth of the third step
    with make_feed(Speller(broken)) as feed:
        feed.at(0)
        feed.at(8)
        with pytest.raises(UnavailableError, match=f"row {broken} .* its picture is gone") as caught:
            feed.at(16)
    assert (caught.value.reason, caught.value.metadata) == ("ROW_UNREADABLE", {"row_id": broken})


def test_a_worker_that_dies_ends_the_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the making of a batch is raised where it is waited for: nobody waits for ever."""

    def dying(*_: object) -> None:
        raise SystemExit(3)

    with make_feed(speller := Speller()) as feed:
        feed.at(0)
        monkeypatch.setattr(speller, "collate", dying)
        with pytest.raises(SystemExit):
            _ = [feed.at(position) for position in range(8, 80, 8)]


def test_nothing_is_made_beyond_the_end_of_the_run() -> None:
    order = SampleOrder([f"word-{index}" for index in range(21)], seed=3)
    with make_feed(Speller(f"word-{order.take(16, 1)[0]}"), total_steps=2) as feed:
        assert len(feed.at(8).row_ids) == 8
        assert not feed._coming  # pyright: ignore[reportPrivateUsage]


def test_what_goes_to_a_gpu_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU there is no page-locked memory; doubling stands for it."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor * 2)
    with make_feed(Speller(), resources=Resources(gpus=1)) as feed:
        [first, _] = cast("Any", feed.at(0).batches)
    assert [2 * len(each) for each in first.ids] == first.inputs["lengths"][0].tolist()


@pytest.mark.parametrize("fails", [False, True])
def test_no_thread_outlives_a_run(tmp_path: Path, fails: bool) -> None:
    class Failing(NoHooks):
        def on_metrics(self, step: int, values: dict[str, float]) -> None:
            if fails:
                raise KeyboardInterrupt

    def run() -> None:
        train(CHOSEN, base_model=model, dataset=data, work=tmp_path / "work", hooks=Failing())

    model = tiny_model(tmp_path / "llama", "llama")
    data = write_dataset(tmp_path / "texts", list(text_rows({"train": 20})))
    before = threading.enumerate()
    if fails:
        with pytest.raises(KeyboardInterrupt):
            run()
    else:
        run()
    assert not set(threading.enumerate()) - set(before)


def test_a_picture_that_breaks_in_mid_epoch_ends_the_run_and_mended_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards are written over when two steps are done: one picture is cut off in the middle."""
    monkeypatch.setattr(sight, "PIXEL_CACHE_BYTES", 0)  # as if there were too many to keep
    monkeypatch.setattr(rows, "_images", rows._images.__wrapped__)  # pyright: ignore[reportPrivateUsage]
    model = tiny_model(tmp_path / "llava", "llava")
    data = write_dataset(tmp_path / "colours", list(colour_rows({"train": 20})))
    chosen = spec(checkpoint=Checkpointing(every_steps=2))
    order = SampleOrder(_row_ids(data), chosen.optimization.seed)
    victim = _row_ids(data)[order.take(4 * 8, 1)[0]]  # first seen again in the fifth step
    whole = {path: path.read_bytes() for path in data.glob("shards/*")}

    class Breaking(NoHooks):
        def on_metrics(self, step: int, values: dict[str, float]) -> None:
            if step == 2:
                _cut_picture(data, victim)

    def run(work: str, hooks: NoHooks, resume_from: Path | None = None) -> Any:
        return train(
            chosen,
            base_model=model,
            dataset=data,
            work=tmp_path / work,
            hooks=hooks,
            resume_from=resume_from,
        )

    with pytest.raises(UnavailableError, match=victim) as caught:
        run("broken", Breaking())
    assert caught.value.reason == "ROW_UNREADABLE"
    for path, content in whole.items():
        path.write_bytes(content)
    checkpoints = list_checkpoints(tmp_path / "broken" / "checkpoints")
    resumed = run("resumed", NoHooks(), checkpoints[-1][1])
    assert resumed.certificate == run("straight", NoHooks()).certificate


@pytest.mark.parametrize("family", ["llava", "vit"])
def test_a_picture_that_breaks_before_the_final_test_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """What is validated and tested is read anew like what is trained on, and fetched anew as well."""
    monkeypatch.setattr(sight, "PIXEL_CACHE_BYTES", 0)
    monkeypatch.setattr(pictures.ArrayCache.__init__, "__defaults__", (0,))
    monkeypatch.setattr(rows, "_images", rows._images.__wrapped__)  # pyright: ignore[reportPrivateUsage]
    counts = {"train": 8, "test": 8}
    sees = family == "vit"
    chosen = picture_spec(Task.IMAGE_CLASSIFICATION) if sees else spec()
    made = list(shape_rows(counts, side_px=32, most=1)) if sees else list(colour_rows(counts))
    model, data = tiny_model(tmp_path / "model", family), write_dataset(tmp_path / "data", made)

    class Breaking(NoHooks):
        def on_metrics(self, step: int, values: dict[str, float]) -> None:
            if step == chosen.optimization.max_steps:
                _cut_picture(data, "test-5")

    with pytest.raises(UnavailableError, match=r"row test-5 was read when .* decoded") as caught:
        train(
            replace(chosen, test_split="test"),
            base_model=model,
            dataset=data,
            work=tmp_path / "work",
            hooks=Breaking(),
        )
    assert (caught.value.reason, caught.value.metadata) == ("ROW_UNREADABLE", {"row_id": "test-5"})


def test_a_row_whose_shard_is_broken_is_named_by_its_place(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", list(colour_rows({"train": 4})))
    [shard, _] = sorted(data.glob("shards/*"))
    shard.write_bytes(b"PAR1 no more")
    place = rows.Location(shard.relative_to(data).as_posix(), 0, 1)
    with pytest.raises(UnavailableError, match=r"row 1 of group 0 in shards/part-00000.parquet .* Parquet"):
        sight.load_image(data, place)


def _row_ids(dataset: Path) -> list[str]:
    shards = sorted(dataset.glob("shards/*"))
    return [each for path in shards for each in pq.read_table(path)["row_id"].to_pylist()]


def _cut_picture(dataset: Path, row_id: str) -> None:
    for path in dataset.glob("shards/*"):
        table = pq.read_table(path)
        values = table.to_pylist()
        for value in values:
            if value["row_id"] == row_id:
                encoded = value["images"][0]["data"]
                value["images"][0]["data"] = encoded[: len(encoded) // 2]
        broken = path.with_suffix(".broken")
        pq.write_table(pa.Table.from_pylist(values, schema=table.schema), broken, row_group_size=16)
        broken.replace(path)
