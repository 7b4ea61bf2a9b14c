"""Conversations and forms, each read back by a reader that is not ours."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.core.errors import PreconditionError
from finemesh.core.spec.data import ConvertOptions, DatasetFormat, ImportOptions, InstructionTask
from finemesh.core.spec.ledger import Disposition
from finemesh.data import (
    Progress,
    convert_dataset,
    import_source,
    iter_ledger,
    iter_rows,
    load_manifest,
    verify_dataset,
)
from PIL import Image
from pycocotools import mask as coco_mask

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_every_object_has_exactly_one_fate(divided: Path, conversations: Path) -> None:
    objects = {
        f"{row['row_id']}#{item['object_id']}": item
        for row in iter_rows(divided, columns=["row_id", "objects"])
        for item in row["objects"]
    }
    entries = list(iter_ledger(conversations))
    assert Counter(entry.row_id for entry in entries) == Counter(objects.keys())
    for entry in entries:
        item = objects[entry.row_id]
        if entry.reason == "INVISIBLE":
            assert not item["visible"]
        if entry.reason == "TOO_SMALL":
            assert item["area"] < 64
        assert (entry.disposition is Disposition.KEPT) == bool(entry.children)
    kept = [child for entry in entries for child in entry.children]
    assert kept == [row["row_id"] for row in iter_rows(conversations)]


def test_conversation_names_its_object_and_inherits_its_split(divided: Path, conversations: Path) -> None:
    parents = {row["row_id"]: row for row in iter_rows(divided)}
    for row in iter_rows(conversations):
        [origin] = row["parents"]
        parent = parents[origin.rpartition("#")[0]]
        item = next(item for item in parent["objects"] if origin.endswith(f"#{item['object_id']}"))
        assert row["split"] == parent["split"] != ""
        assert row["video_id"] == parent["video_id"]
        question, answer = row["messages"]
        assert [part["type"] for part in question["content"]] == ["image", "text"]
        assert [part["text"] for part in answer["content"]] == [item["class_name"]]


def test_crop_shows_the_object_in_its_colour(conversations: Path) -> None:
    """The mask of the crop, decoded by pycocotools, lies on pixels of the class's colour."""
    hues = {"tomato": 0, "orange": 31, "lemon": 56, "lime": 98, "blueberry": 224, "plum": 284}
    seen = 0
    for row in iter_rows(conversations):
        [item] = row["objects"]
        counts: Any = {
            "size": [row["images"][0]["height"], row["images"][0]["width"]],
            "counts": item["rle_counts"],
        }
        inside = coco_mask.decode(counts) > 0
        assert float(inside.sum()) == item["area"]
        with Image.open(io.BytesIO(row["images"][0]["data"])) as image:
            assert image.size == (112, 112)
            hue = np.asarray(image.convert("HSV"), dtype=float)[..., 0][inside] * 360 / 255
        turn = np.deg2rad(hue - hues[item["class_name"] or ""])
        seen += abs(np.rad2deg(np.arctan2(np.sin(turn).mean(), np.cos(turn).mean()))) < 24
    assert seen > 0.95 * load_manifest(conversations).rows


def test_manifest_counts_answers_per_split(conversations: Path) -> None:
    manifest = load_manifest(conversations)
    assert sum(sum(answers.values()) for answers in manifest.answers.values()) == manifest.rows
    assert set(manifest.answers) == {"train", "val", "test"}
    assert manifest.leakage is not None
    assert manifest.leakage.score == 0


def test_located_objects_lie_in_the_cell_that_is_answered(
    samples: Path, tmp_path: Path, silent: Progress
) -> None:
    import_source(samples / "sav/sav_000001_manual.json", tmp_path / "in", ImportOptions(), silent)
    options = ConvertOptions(instruction=InstructionTask.LOCATE_OBJECT, image_size_px=90)
    manifest = convert_dataset(tmp_path / "in", tmp_path / "out", options, silent)
    assert manifest.ledger.check().inputs == 605
    for row in iter_rows(tmp_path / "out"):
        answer = row["messages"][1]["content"][0]["text"]
        x, y, width, height = row["objects"][0]["bbox"]
        column = 0 if "left" in answer else 2 if "right" in answer else 1
        line = 0 if "top" in answer else 2 if "bottom" in answer else 1
        assert column - 0.1 <= (x + width / 2) / 30 <= column + 1.1
        assert line - 0.1 <= (y + height / 2) / 30 <= line + 1.1
        with Image.open(io.BytesIO(row["images"][0]["data"])) as image:
            red, green, blue = np.asarray(image, dtype=int).transpose(2, 0, 1)
        assert ((red > 180) & (blue > 180) & (green < 120)).sum() > 5, "the outline is to be seen"


def test_classes_cannot_be_asked_without_names(samples: Path, tmp_path: Path, silent: Progress) -> None:
    import_source(samples / "sav/sav_000001_manual.json", tmp_path / "in", ImportOptions(), silent)
    options = ConvertOptions(instruction=InstructionTask.CLASSIFY_REGION)
    with pytest.raises(PreconditionError) as error:
        convert_dataset(tmp_path / "in", tmp_path / "out", options, silent)
    assert error.value.reason == "EMPTY_DATASET"
    assert "NO_CLASS_NAME" in error.value.message
    assert not (tmp_path / "out").exists()


def test_max_items_are_taken_evenly(divided: Path, tmp_path: Path, silent: Progress) -> None:
    options = ConvertOptions(instruction=InstructionTask.CLASSIFY_REGION, max_items=36)
    manifest = convert_dataset(divided, tmp_path / "out", options, silent)
    assert manifest.rows == 36
    for split in ("train", "val", "test"):
        assert 9 <= manifest.splits[split] <= 15
    again = convert_dataset(divided, tmp_path / "again", options, silent)
    assert again.digest == manifest.digest


def test_frequent_answers_are_cut_back(divided: Path, tmp_path: Path, silent: Progress) -> None:
    options = ConvertOptions(instruction=InstructionTask.LOCATE_OBJECT, max_answer_ratio=1.0)
    manifest = convert_dataset(divided, tmp_path / "out", options, silent)
    assert manifest.ledger.by_reason["BALANCE"] > 0
    for answers in manifest.answers.values():
        assert max(answers.values()) <= np.ceil(np.median(list(answers.values()))) + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_hugging_face_form_opens_in_datasets(conversations: Path, tmp_path: Path, silent: Progress) -> None:
    import datasets

    datasets.disable_progress_bars()
    options = ConvertOptions(target=DatasetFormat.HUGGING_FACE)
    manifest = convert_dataset(conversations, tmp_path / "out", options, silent)
    verify_dataset(tmp_path / "out")
    loaded: Any = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    counts = {"validation" if split == "val" else split: count for split, count in manifest.splits.items()}
    assert {name: part.num_rows for name, part in loaded.items()} == counts
    assert isinstance(loaded["train"].features["images"].feature, datasets.Image)
    ours = {row["row_id"]: row for row in iter_rows(conversations)}
    for part in loaded.values():
        for row in part:
            mine = ours.pop(row["row_id"])
            assert row["messages"] == mine["messages"]
            assert row["objects"] == mine["objects"]
            with Image.open(io.BytesIO(mine["images"][0]["data"])) as image:
                assert np.array_equal(np.asarray(row["images"][0]), np.asarray(image))
    assert not ours


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_hugging_face_form_opens_in_datasets_unsplit(
    imported: Path, tmp_path: Path, silent: Progress
) -> None:
    import datasets

    datasets.disable_progress_bars()
    manifest = convert_dataset(
        imported, tmp_path / "out", ConvertOptions(target=DatasetFormat.HUGGING_FACE), silent
    )
    assert "never split: `datasets` shows all rows as train" in manifest.warnings
    loaded: Any = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in loaded.items()} == {"train": manifest.rows}


def test_coco_form_says_what_it_has_no_place_for(
    conversations: Path, tmp_path: Path, silent: Progress
) -> None:
    """Conversations have none; the frame of a video stands in the fields of its picture."""
    manifest = convert_dataset(
        conversations, tmp_path / "out", ConvertOptions(target=DatasetFormat.COCO), silent
    )
    assert f"messages of {manifest.rows} rows left out: COCO has no place for it" in manifest.warnings
    told = [
        (image["video_id"], image["frame_index"])
        for split in manifest.splits
        for image in json.loads((tmp_path / f"out/annotations/instances_{split}.json").read_text())["images"]
    ]
    expected = [(row["video_id"], row["frame_index"]) for row in iter_rows(conversations)]
    assert sorted(told) == sorted(expected)


def test_yolo_form_says_what_it_has_no_place_for(tmp_path: Path, silent: Progress) -> None:
    point: dict[str, Any] = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 2, 3, 4],
        "keypoints": [2, 3, 2],
    }
    caption = {"id": 2, "image_id": 1, "caption": "a nose"}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}],
        "annotations": [point, caption],
        "categories": [{"id": 1, "name": "nose"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    import_source(tmp_path / "coco.json", tmp_path / "raw", ImportOptions(), silent)
    manifest = convert_dataset(
        tmp_path / "raw", tmp_path / "out", ConvertOptions(target=DatasetFormat.YOLO_DETECTION), silent
    )
    assert {
        "key points of 1 objects left out: detection and segmentation have no place for them",
        "captions of 1 rows left out: YOLO has no place for it",
    } <= {*manifest.warnings}


def test_llava_form_reads_as_plain_json_and_pictures(
    conversations: Path, tmp_path: Path, silent: Progress
) -> None:
    options = ConvertOptions(target=DatasetFormat.LLAVA)
    manifest = convert_dataset(conversations, tmp_path / "out", options, silent)
    verify_dataset(tmp_path / "out")
    assert "objects left out: a form of conversations has no place for them" in manifest.warnings
    ours = {row["row_id"]: row for row in iter_rows(conversations)}
    for split, count in manifest.splits.items():
        entries = json.loads((tmp_path / f"out/llava_{split}.json").read_text())
        assert len(entries) == count
        for entry in entries:
            mine = ours.pop(entry["id"])
            human, gpt = entry["conversations"]
            assert (human["from"], gpt["from"]) == ("human", "gpt")
            assert human["value"] == f"<image>\n{mine['messages'][0]['content'][1]['text']}"
            assert gpt["value"] == mine["messages"][1]["content"][0]["text"]
            with Image.open(tmp_path / "out" / entry["image"]) as image:
                assert image.size == (112, 112)
            assert (tmp_path / "out" / entry["image"]).read_bytes() == mine["images"][0]["data"]
    assert not ours


def test_llava_needs_conversations(divided: Path, tmp_path: Path, silent: Progress) -> None:
    with pytest.raises(PreconditionError) as error:
        convert_dataset(divided, tmp_path / "out", ConvertOptions(target=DatasetFormat.LLAVA), silent)
    assert "24 x NO_MESSAGES" in error.value.message
    assert not (tmp_path / "out").exists()


def test_instruction_and_form_in_one_step(divided: Path, tmp_path: Path, silent: Progress) -> None:
    options = ConvertOptions(DatasetFormat.LLAVA, InstructionTask.CLASSIFY_REGION)
    manifest = convert_dataset(divided, tmp_path / "out", options, silent)
    assert manifest.ledger.check().kept == manifest.rows
    assert len(list((tmp_path / "out/images").iterdir())) == manifest.rows


def test_a_form_is_not_a_source_of_rows(conversations: Path, tmp_path: Path, silent: Progress) -> None:
    options = ConvertOptions(target=DatasetFormat.LLAVA)
    convert_dataset(conversations, tmp_path / "out", options, silent)
    with pytest.raises(PreconditionError) as error:
        list(iter_rows(tmp_path / "out"))
    assert error.value.reason == "NOT_CANONICAL"
