"""SAM 2 mask streams, and SA-V beside its video: which frames they are and what is on them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat, ImportOptions
from finemesh.data import Progress, import_source
from PIL import Image
from pycocotools import mask as coco_mask

from tests.support.sources import load, png

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH, HEIGHT = 100, 50


def pixels_of(index: int, object_id: int) -> Any:
    pixels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    if object_id != 2 or index != 1:  # object 2 is hidden in frame 1
        pixels[5 * object_id : 5 * object_id + 9, index + 3 : index + 30] = 1
    return pixels


def frame(index: int, *object_ids: int) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for object_id in object_ids:
        rle = coco_mask.encode(pixels_of(index, object_id))
        counts = rle["counts"].decode()  # pyright: ignore[reportAttributeAccessIssue]
        results.append({"object_id": object_id, "mask": {"size": [HEIGHT, WIDTH], "counts": counts}})
    return {"frame_index": index, "results": results}


# Forwards from frame 1, then backwards from it.
STREAM = [frame(1, 1, 2), frame(2, 1, 2), frame(1, 1, 2), frame(0, 1, 2)]


def lines(frames: list[Any]) -> str:
    return "".join(json.dumps(each) + "\n" for each in frames)


@pytest.mark.parametrize("form", ["list", "lines"])
def test_masks_are_those_of_the_stream_in_the_order_of_the_frames(form: str, tmp_path: Path) -> None:
    files = {"dog.json": STREAM} if form == "list" else {"dog.jsonl": lines(STREAM)}
    loaded = load(tmp_path, files)
    assert list(loaded.rows) == ["dog/000000", "dog/000001", "dog/000002"]
    for row in loaded.rows.values():
        for item in row["objects"]:
            decoded = coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": item["rle_counts"]})  # pyright: ignore[reportArgumentType]
            expected = pixels_of(row["frame_index"] or 0, int(item["object_id"]))
            assert (decoded == expected).all()
            assert item["visible"] == bool(expected.any())
    assert (loaded.manifest.media, loaded.manifest.videos) == ({"rendered": 3}, 1)
    assert loaded.manifest.options["format"] == AnnotationFormat.MASK_STREAM


def test_frames_come_from_the_folder_of_the_same_name(tmp_path: Path) -> None:
    pictures = {f"frames/dog/{index:05d}.png": png(value=10 * index) for index in range(3)}
    others = {f"frames/cat/{index:05d}.png": png(value=200) for index in range(3)}
    loaded = load(tmp_path, {"dog.jsonl": lines(STREAM), **pictures, **others})
    for row in loaded.rows.values():
        assert row["images"][0]["data"] == pictures[f"frames/dog/{row['frame_index']:05d}.png"]


def test_videos_of_one_name_keep_their_own_frames_and_rows(tmp_path: Path) -> None:
    pictures = {
        f"{take}/dog/{index:05d}.png": png(value=index + 9 * (take == "b"))
        for take in "ab"
        for index in range(3)
    }
    streams = {f"{take}/dog.jsonl": lines(STREAM) for take in "ab"}
    loaded = load(tmp_path, {**streams, **pictures, "other.json": {"a": 1}})
    assert list(loaded.rows) == [f"{take}/dog/{index:06d}" for take in "ab" for index in range(3)]
    for name, row in loaded.rows.items():
        assert row["images"][0]["data"] == pictures[f"{name[0]}/dog/{row['frame_index']:05d}.png"]
    assert "other.json was not read: of another form" in loaded.manifest.warnings


def test_two_answers_for_one_frame_are_not_merged_and_a_frame_without_results_is_put_aside(
    tmp_path: Path,
) -> None:
    loaded = load(tmp_path, {"dog.jsonl": lines([*STREAM, frame(2, 1), {"frame_index": 5}])})
    assert [(entry.row_id, entry.reason) for entry in loaded.faults] == [
        ("dog/000002~4", "DUPLICATE_ROW_ID"),
        ("dog/000005", "MALFORMED_FRAME"),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lines(STREAM) + '{"frame_index"', "MALFORMED_JSON"),
        (lines([*STREAM, {"frame_index": -1, "results": []}]), "MALFORMED_ANNOTATIONS"),
        (lines([{"frame_index": 0, "results": []}]), "MALFORMED_ANNOTATIONS"),
    ],
)
def test_a_stream_that_cannot_be_followed_ends_the_import(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        load(tmp_path, {"dog.jsonl": text})
    assert caught.value.reason == reason


def _sav(height: int, width: int, objects: int) -> dict[str, Any]:
    hidden = {"size": [height, width], "counts": [height * width]}
    sides = {"video_height": float(height), "video_width": width, "video_frame_count": 12.0}
    return {**sides, "masklet_id": list(range(objects)), "masklet": [[hidden] * objects] * 3}


def test_manual_and_automatic_masklets_share_the_video_that_they_are_named_after(
    samples: Path, tmp_path: Path
) -> None:
    import av

    with av.open(str(samples / "video/01_dog.mp4")) as container:
        stream = container.streams.video[0]
        height, width = stream.height, stream.width
    files = {"sav_1_manual.json": _sav(height, width, 1), "sav_1_auto.json": _sav(height, width, 2)}
    loaded = load(tmp_path, {**files, "sav_1.mp4": (samples / "video/01_dog.mp4").read_bytes()})
    assert (loaded.manifest.media, loaded.manifest.videos) == ({"frame": 6}, 1)
    manual, auto = loaded.rows["sav_1_manual/000002"], loaded.rows["sav_1_auto/000002"]
    assert (manual["images"][0]["sha256"], len(manual["objects"])) == (auto["images"][0]["sha256"], 1)


def test_the_sample_masklets_lie_on_frames_of_their_video(
    samples: Path, tmp_path: Path, silent: Progress
) -> None:
    """Manual and automatic annotations of one video, beside a folder of all its frames at 24 a second."""
    source = tmp_path / "source"
    (source / "sav_000001").mkdir(parents=True)
    for kind in ("manual", "auto"):
        name = f"sav_000001_{kind}.json"
        value = json.loads((samples / "sav" / name).read_text())
        value["masklet"] = value["masklet"][:3]
        value["video_frame_count"] = 12
        (source / name).write_text(json.dumps(value))
    size = (int(value["video_width"]), int(value["video_height"]))
    for index in range(12):
        buffer = io.BytesIO()
        Image.new("L", size, 20 * index).save(buffer, "PNG")
        (source / f"sav_000001/{index:05d}.png").write_bytes(buffer.getvalue())
    manifest = import_source(source, tmp_path / "out", ImportOptions(), silent)
    assert (manifest.rows, manifest.media, manifest.videos) == (6, {"frame": 6}, 1)
