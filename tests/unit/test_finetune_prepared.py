"""Encoded splits are kept, found again, made anew where they are broken, let go where they are too many."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.core.spec import codec
from finemesh.core.spec.finetune import Checkpointing, FineTuneSpec, Full, Objective, Task, Tower
from finemesh.finetune import prepared as prepared_module
from finemesh.finetune.hooks import TrainResult
from finemesh.finetune.loop import train
from finemesh.finetune.models import load_model
from finemesh.finetune.objectives.objective import Split
from finemesh.finetune.objectives.registry import make_objective
from finemesh.finetune.prepared import PreparedCache, encoding_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.conversations import colour_rows, spec, text_rows, tiny_model, write_dataset
from tests.support.picture_runs import picture_spec, tiny_picture_model
from tests.support.shapes import shape_rows
from tests.unit.test_finetune_preference import ANSWERS, pair_row
from tests.unit.test_finetune_text import text_row

Made = tuple[FineTuneSpec, Path, list[dict[str, Any]]]
COUNTS = {"train": 12, "val": 4, "test": 4}


def conversations(root: Path) -> Made:
    return spec(Task.LANGUAGE), tiny_model(root / "model", "llama"), list(text_rows(COUNTS))


def about_pictures(root: Path) -> Made:
    return spec(), tiny_model(root / "model", "llava"), list(colour_rows(COUNTS))


def preferences(root: Path) -> Made:
    rows = [pair_row(f"{each}-{n}", each, *pair) for each in COUNTS for n, pair in enumerate(ANSWERS)]
    chosen = spec(Task.LANGUAGE, objective=Objective.PREFERENCE)
    return chosen, tiny_model(root / "model", "llama"), rows


def texts(root: Path) -> Made:
    rows = [text_row(f"{split}-{n}", split, "red green blue " * n) for split in COUNTS for n in range(1, 5)]
    chosen = spec(Task.LANGUAGE, objective=Objective.TEXT)
    return chosen, tiny_model(root / "model", "llama"), rows


def boxes(root: Path) -> Made:
    return of_pictures(root, Task.DETECTION, "yolos")


def classes(root: Path) -> Made:
    return of_pictures(root, Task.IMAGE_CLASSIFICATION, "vit")


def regions(root: Path) -> Made:
    return of_pictures(root, Task.SEMANTIC_SEGMENTATION, "segformer")


def masks(root: Path) -> Made:
    return of_pictures(root, Task.INSTANCE_SEGMENTATION, "mask2former")


def of_pictures(root: Path, task: Task, family: str) -> Made:
    rows = list(shape_rows(COUNTS, side_px=32, most=1))
    towers = (Tower.VISION, Tower.HEAD)
    return picture_spec(task, method=Full(towers)), tiny_picture_model(root / "model", family), rows


TASKS = (conversations, about_pictures, preferences, texts, boxes, classes, regions, masks)


@pytest.mark.parametrize("made", TASKS, ids=lambda made: made.__name__)
def test_a_repeated_run_encodes_nothing_and_computes_the_same(
    made: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, model, rows = made(tmp_path)
    chosen = replace(chosen, validation_split="val", test_split="test", checkpoint=Checkpointing())
    dataset = write_dataset(tmp_path / "data", rows)

    def run(work: str, prepared: PreparedCache | None) -> TrainResult:
        return train(chosen, base_model=model, dataset=dataset, work=tmp_path / work, prepared=prepared)

    without, first = run("without", None), run("first", PreparedCache(tmp_path / "cache"))

    def write(*_: Any) -> bool:
        raise AssertionError("encoded anew")

    monkeypatch.setattr(PreparedCache, "_write", write)
    again = run("again", PreparedCache(tmp_path / "cache"))
    for other in (first, again):
        assert other.certificate == without.certificate
        assert (other.ledgers, other.truncated) == (without.ledgers, without.truncated)
        assert other.metrics["test/loss"] == without.metrics["test/loss"]
    assert len({(tmp_path / work / "ledger.jsonl").read_text() for work in ("without", "again")}) == 1


@pytest.fixture
def counted(tmp_path: Path) -> tuple[Callable[..., Split[Any]], list[str]]:
    """An encoder of texts with a cache in front, and the splits that it really encoded."""
    chosen, model, rows = conversations(tmp_path)
    dataset = write_dataset(tmp_path / "data", rows)
    objective = make_objective(chosen, load_model(chosen, model), dataset)
    encode, seen = objective.encode, list[str]()

    def counting(split: str, limit: int = 0) -> Split[Any]:
        seen.append(split)
        return encode(split, limit)

    object.__setattr__(objective, "encode", counting)

    def encoded(split: str, limit: int = 0, max_bytes: int = 1 << 30) -> Split[Any]:
        cache = PreparedCache(tmp_path / "cache", max_bytes)
        return cache.encoder(chosen, model, dataset, objective)(split, limit)

    return encoded, seen


def test_broken_entries_are_made_again(
    counted: tuple[Callable[..., Split[Any]], list[str]], tmp_path: Path
) -> None:
    encoded, seen = counted
    whole = [(each.row_id, each.input_ids_T.copy()) for each in encoded("train").samples]
    [entry] = (tmp_path / "cache").iterdir()

    def flip(name: str) -> None:
        content = bytearray((entry / name).read_bytes())
        content[len(content) // 2] ^= 1
        (entry / name).write_bytes(content)

    def empty() -> None:
        shutil.rmtree(entry)
        entry.mkdir()

    harms: list[Callable[[], object]] = [
        *(lambda name=name: flip(name) for name in ("arrays.bin", "samples.jsonl", "entries.jsonl")),
        (entry / "arrays.bin").unlink,
        lambda: (entry / "manifest.json").write_text("{"),
        lambda: (entry / "manifest.json").write_text('{"files": []}'),
        empty,
    ]
    for count, harm in enumerate(harms, 2):
        harm()
        for split in (encoded("train"), encoded("train")):
            for sample, (row_id, ids_T) in zip(split.samples, whole, strict=True):
                assert sample.row_id == row_id
                assert np.array_equal(sample.input_ids_T, ids_T)
        assert len(seen) == count
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [entry.name]


def test_arrays_are_mapped_not_read(counted: tuple[Callable[..., Split[Any]], list[str]]) -> None:
    encoded, _ = counted
    for sample in encoded("train").samples:
        base: Any = sample.input_ids_T
        while not isinstance(base, np.memmap):
            base = base.base
        assert sample.input_ids_T.flags.writeable  # in memory alone: the file stays
        sample.input_ids_T[:] = 0
    assert all(sample.input_ids_T.any() for sample in encoded("train").samples)


def test_the_least_recently_used_go_first(
    counted: tuple[Callable[..., Split[Any]], list[str]], tmp_path: Path
) -> None:
    encoded, seen = counted
    for day, limit in enumerate((1, 2, 3)):
        before = set((tmp_path / "cache").glob("*"))
        encoded("train", limit)
        [entry] = set((tmp_path / "cache").glob("*")) - before
        os.utime(entry, (day, day))
    before = set((tmp_path / "cache").glob("*"))
    encoded("val")
    size = sum(each.stat().st_size for each in (tmp_path / "cache").rglob("*") if each.is_file())
    [entry] = set((tmp_path / "cache").glob("*")) - before
    shutil.rmtree(entry)
    encoded("train", 1)  # now the last one used
    encoded("val", max_bytes=size - 1)
    seen.clear()
    for limit in (1, 3, 2):
        encoded("train", limit)
    assert len(seen) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_a_cache_that_cannot_be_written_is_none(
    counted: tuple[Callable[..., Split[Any]], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "cache").touch()
    encoded, seen = counted
    assert encoded("train").ledger == encoded("train").ledger
    assert seen == ["train", "train"]


# Keys

LEAVES = {
    "sequence.max_tokens": 100,
    "sequence.over_length": "DROP",
    "sequence.packing": False,
    "sequence.length_grouping": True,
    "task": "VISION_LANGUAGE",
    "objective": "TEXT",
    "pictures.horizontal_flip": 0.5,
}
WITHOUT_EFFECT = {
    "optimization.seed": 9,
    "optimization.learning_rate": 0.5,
    "checkpoint.keep_last": 7,
    "evaluation.every_steps": 3,
    "resources.cpus": 2.0,
    "dataset": "projects/p/datasets/copy",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("inputs")
    return tiny_model(root / "model", "llama"), write_dataset(root / "data", list(text_rows(COUNTS)))


def key(chosen: FineTuneSpec, model: Path, dataset: Path) -> str:
    from finemesh.finetune.objectives.conversation import Conversation

    return codec.digest(encoding_inputs(chosen, model, dataset, Conversation))


@pytest.mark.parametrize(("path", "value"), [*LEAVES.items(), *WITHOUT_EFFECT.items()])
def test_what_encoding_reads_of_the_spec_makes_another_key(
    inputs: tuple[Path, Path], path: str, value: object
) -> None:
    content = spec(Task.LANGUAGE).to_dict()
    *parents, leaf = path.split(".")
    inner = content
    for parent in parents:
        inner = inner[parent]
    assert inner[leaf] != value
    inner[leaf] = value
    changed = key(FineTuneSpec.from_dict(content), *inputs) != key(spec(Task.LANGUAGE), *inputs)
    assert changed == (path in LEAVES)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_change_of_a_file_makes_another_key(inputs: tuple[Path, Path], data: st.DataObject) -> None:
    """A bit of the dataset or of the model's files but its weights; a file more or less, or renamed."""
    chosen, before = spec(Task.LANGUAGE), key(spec(Task.LANGUAGE), *inputs)
    files = [each for root in inputs for each in sorted(root.rglob("*")) if each.is_file()]
    path = data.draw(st.sampled_from([each for each in files if each.suffix != ".safetensors"]))
    content = path.read_bytes()
    harm = data.draw(st.sampled_from(["flip", "remove", "rename", "add"]))
    added = path.with_name(f"more{path.suffix}")
    try:
        if harm == "flip":
            changed = bytearray(content)
            changed[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(changed)
        elif harm == "add":
            shutil.copy(path, added)
        else:
            path.rename(added)
            if harm == "remove":
                added.unlink()
        assert key(chosen, *inputs) != before
    finally:
        added.unlink(missing_ok=True)
        path.write_bytes(content)
    assert key(chosen, *inputs) == before


def test_weights_and_hidden_folders_make_no_other_key(inputs: tuple[Path, Path]) -> None:
    model, dataset = inputs
    before = key(spec(Task.LANGUAGE), model, dataset)
    (model / ".cache").mkdir()
    (model / ".cache" / "downloaded").touch()
    (model / "adapter.safetensors").touch()
    assert key(spec(Task.LANGUAGE), model, dataset) == before


def test_other_sources_or_libraries_make_another_key(
    inputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = key(spec(Task.LANGUAGE), *inputs)
    for name in ("file_digest", "_version"):
        prepared_module._code.cache_clear()  # pyright: ignore[reportPrivateUsage]
        with monkeypatch.context() as patched:
            patched.setattr(prepared_module, name, lambda _: "other")
            assert key(spec(Task.LANGUAGE), *inputs) != before
    prepared_module._code.cache_clear()  # pyright: ignore[reportPrivateUsage]
