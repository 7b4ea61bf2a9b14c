"""Rows of pictures: every one is there, sound or with the reason why it is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from finemesh.core.errors import PreconditionError
from finemesh.core.spec.ledger import Disposition, LedgerEntry
from finemesh.data.images import Picture
from finemesh.finetune.array_file import ArrayFile
from finemesh.finetune.pictures import ArrayCache, Arrays, sound_pictures
from finemesh.finetune.rows import Location
from finemesh.finetune.sight import load_image
from PIL import Image

from tests.support.conversations import write_dataset
from tests.support.shapes import row_of, shape_rows, shapes_row


def test_rows_come_with_their_pictures_and_objects(tmp_path: Path) -> None:
    rows = list(shape_rows({"train": 5, "val": 2}))
    dataset = write_dataset(tmp_path / "data", rows)
    found = {row.row_id: (row, picture) for row, picture in sound_pictures(dataset, "train")}
    assert found.keys() == {f"train-{index}" for index in range(5)}
    for expected in rows[:5]:
        row, picture = found[expected["row_id"]]
        assert isinstance(picture, Image.Image)
        assert [list(each.bbox_px) for each in row.objects] == [
            each["bbox"] for each in expected["objects"] if each["visible"]
        ]
        assert row.class_name == expected["objects"][0]["class_name"]
        assert np.array_equal(np.asarray(load_image(dataset, row.location)), np.asarray(picture))


def test_what_has_no_one_picture_says_why(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sound = shapes_row("sound", "train", ["circle"], rng, (32, 32))
    broken = shapes_row("broken", "train", ["circle"], rng, (32, 32))
    broken["images"][0]["data"] = broken["images"][0]["data"][:60]
    one = Picture(sound["images"][0]["data"], "PNG", 32, 32, "image")
    several = row_of("several", "train", None, pictures=[one, one])
    absent = row_of("absent", "train", None, pictures=[Picture(b"", "PNG", 8, 8, "absent")])
    rows = [broken, sound, row_of("none", "train", None), several, absent]
    dataset = write_dataset(tmp_path / "data", rows, shards=1)
    fates = {
        row.row_id: fate for row, fate in sound_pictures(dataset, "train") if isinstance(fate, LedgerEntry)
    }
    assert {row_id: (fate.disposition, fate.reason) for row_id, fate in fates.items()} == {
        "broken": (Disposition.QUARANTINED, "IMAGE_UNREADABLE"),
        "none": (Disposition.QUARANTINED, "NO_PICTURE"),
        "absent": (Disposition.QUARANTINED, "NO_PICTURE"),
        "several": (Disposition.DROPPED, "SEVERAL_PICTURES"),
    }
    with pytest.raises(PreconditionError) as caught:
        list(sound_pictures(dataset, "test"))
    assert caught.value.reason == "SPLIT_EMPTY"


def test_the_limit_counts_rows_not_sound_ones(tmp_path: Path) -> None:
    rows = [row_of("none", "train", None), *shape_rows({"train": 3})]
    dataset = write_dataset(tmp_path / "data", rows, shards=1)
    assert [row.row_id for row, _ in sound_pictures(dataset, "train", 2)] == ["none", "train-0"]


def test_a_full_cache_makes_its_arrays_again() -> None:
    made: list[Location] = []

    def make(location: Location) -> Arrays:
        made.append(location)
        return {"pixels": np.zeros(8, np.float32)}

    cache = ArrayCache(make, max_bytes=40)
    first, second = Location("a", 0, 0), Location("a", 0, 1)
    for location in (first, second, first, second):
        assert len(cache.load(location)["pixels"]) == 8
    assert made == [first, second, second]


def test_kept_arrays_are_read_as_they_were_and_owned_by_their_reader() -> None:
    file: ArrayFile[str] = ArrayFile(1000)
    given = {
        "strided": np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2].transpose(2, 0, 1),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.float16),
        "mask": np.array([True, False]),
    }
    file.put("a", given)
    file.put("a", {"other": np.zeros(1)})
    for _ in range(2):
        found = file.get("a")
        assert found
        assert found.keys() == given.keys()
        for name, array in given.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert np.array_equal(found[name], array)
        found["mask"][:] = False
    assert file.get("b") is None


def test_a_disk_without_room_only_costs_the_making_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "pwrite", full)
    file: ArrayFile[str] = ArrayFile(1000)
    file.put("a", {"x": np.zeros(4)})
    assert (file.get("a"), file.bytes_left) == (None, 0)
