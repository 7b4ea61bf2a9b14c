"""Label Studio: shapes in percents, brushes in run lengths of its own, and what of a task counts."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat
from finemesh.data.readers.label_studio_brush import brush_mask
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from tests.support.sources import Loaded, load, png

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH, HEIGHT = 100, 50


def item(
    kind: str, region: str = "r", size: tuple[int, int] = (WIDTH, HEIGHT), **value: Any
) -> dict[str, Any]:
    sides = {"original_width": size[0], "original_height": size[1]}
    return {
        "id": region,
        "type": kind,
        "from_name": f"my {kind}",
        "to_name": "image",
        "value": value,
        **sides,
    }


def task(
    *result: dict[str, Any], image: str = "/data/upload/3/0a1b2c3d-a.png", **more: Any
) -> dict[str, Any]:
    annotation = {"id": 7, "completed_by": 1, "was_cancelled": False, "result": list(result)}
    return {"id": 1, "annotations": [annotation], "predictions": [], "data": {"image": image}, **more}


def imported(folder: Path, *tasks: Any, **pictures: bytes) -> Loaded:
    files = {name.replace("__", "."): data for name, data in (pictures or {"a__png": png()}).items()}
    return load(folder, {"export.json": list(tasks), **files})


def decoded(item: Any) -> Any:
    return coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": item["rle_counts"]}) > 0  # pyright: ignore[reportArgumentType]


def encode_brush(pixels: Any) -> list[int]:
    """Written after the description of the form: single pixels in one block each, and repeated ones."""
    values = np.repeat((pixels * 255).astype(int), 4).tolist()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    at = 0
    while at < len(values):
        end = at
        while end < len(values) and values[end] == values[at] and end - at < 65_536:
            end += 1
        if end - at >= 8:
            size, place = next((size, i) for i, size in enumerate((3, 4, 8, 16)) if end - at <= 1 << size)
            bits += f"1{place:02b}{end - at - 1:0{size}b}{values[at]:08b}"
        else:
            end = min(at + 8, len(values))
            bits += f"0{0:02b}{end - at - 1:03b}" + "".join(f"{value:08b}" for value in values[at:end])
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def test_a_box_is_turned_about_its_corner(tmp_path: Path) -> None:
    flat = item("rectanglelabels", "a", x=10, y=20, width=30, height=40, rotation=0, rectanglelabels=["car"])
    turned = item(
        "rectanglelabels", "b", x=50, y=20, width=30, height=20, rotation=30, rectanglelabels=["bus"]
    )
    (row,) = imported(tmp_path, task(flat, turned)).rows.values()
    first, second = row["objects"]
    assert (first["object_id"], first["class_name"], first["bbox"]) == ("a", "car", [10, 10, 30, 20])
    corner, side, down = complex(50, 10), 30 * np.exp(1j * math.pi / 6), 10j * np.exp(1j * math.pi / 6)
    corners = [corner, corner + side, corner + side + down, corner + down]
    xs, ys = [each.real for each in corners], [each.imag for each in corners]
    assert second["bbox"] == pytest.approx([min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)])
    assert json.loads(second["attributes"])["shape"]["rotation"] == 30


def test_outlines_ellipses_and_points_lie_where_pil_draws_them(tmp_path: Path) -> None:
    points = [[10, 10], [60, 20], [50, 90], [5, 70]]
    outline = item("polygonlabels", "a", points=points, closed=True, polygonlabels=["leaf"])
    round_one = item(
        "ellipselabels", "b", x=50, y=50, radiusX=30, radiusY=20, rotation=0, ellipselabels=["egg"]
    )
    point = item("keypointlabels", "c", x=25, y=50, width=0.5, keypointlabels=["eye", "left"])
    (row,) = imported(tmp_path, task(outline, round_one, point)).rows.values()
    leaf, egg, eye = row["objects"]
    pixels = [(x, y / 2) for x, y in points]
    assert leaf["polygons"] == [[side for point in pixels for side in point]]
    for found, draw in (
        (leaf, lambda canvas: canvas.polygon(pixels, fill=1)),
        (egg, lambda canvas: canvas.ellipse([20, 15, 79, 34], fill=1)),
    ):
        canvas = Image.new("1", (WIDTH, HEIGHT))
        draw(ImageDraw.Draw(canvas))
        both = decoded(found), np.asarray(canvas)
        assert (both[0] & both[1]).sum() / (both[0] | both[1]).sum() > 0.93
    assert egg["bbox"] == [20, 15, 60, 20]
    assert egg["area"] == pytest.approx(math.pi * 30 * 10, rel=0.02)
    assert (eye["class_name"], eye["keypoints"], eye["visible"]) == ("eye", [25, 25, 2], True)
    assert json.loads(eye["attributes"])["labels"] == ["eye", "left"]


@pytest.mark.parametrize("seed", range(5))
def test_brushes_decode_to_what_was_brushed(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    pixels = random.random((HEIGHT, WIDTH)) < random.choice([0.02, 0.5, 0.98])
    pixels[10:30, 20:70] = seed % 2 == 0
    brush = item("brushlabels", format="rle", rle=encode_brush(pixels), brushlabels=["paint"])
    (row,) = imported(tmp_path, task(brush)).rows.values()
    assert (decoded(row["objects"][0]) == pixels).all()
    assert row["objects"][0]["area"] == pixels.sum()


def test_the_reference_example_of_the_run_lengths() -> None:
    """4 pixels whose alpha is 0, 255, 255, 0, written by hand: one block of 16 values, then nothing."""
    values = "".join(f"{value:08b}" for value in [0] * 4 + [255] * 8 + [0] * 4)
    bits = f"{16:032b}{7:05b}{3:04b}{3:04b}{7:04b}{15:04b}" + "0" + "00" + f"{15:04b}" + values
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]
    assert brush_mask(rle, (2, 2), "rle").decode().tolist() == [[False, True], [True, False]]


def test_what_is_said_of_the_picture_and_of_a_region(tmp_path: Path) -> None:
    box = item("rectangle", "a", x=0, y=0, width=10, height=10)
    label = item("labels", "a", x=0, y=0, width=10, height=10, labels=["car"])
    colour = item("choices", "a", choices=["red"])
    choice = item("choices", "c", choices=["street"])
    text = item("textarea", "d", text=["a red car", "a car"])
    rating = item("rating", "e", rating=4)
    (row,) = imported(
        tmp_path, task(box, label, colour, choice, text, rating, meta={"by": "x"})
    ).rows.values()
    (car,) = row["objects"]
    assert (car["class_name"], json.loads(car["attributes"])) == ("car", {"result": {"my choices": ["red"]}})
    assert (row["class_name"], row["captions"]) == ("street", ["a red car", "a car"])
    attributes = json.loads(row["attributes"])
    assert (attributes["result"], attributes["meta"]) == ({"my rating": [4]}, {"by": "x"})
    assert attributes["annotation"]["completed_by"] == 1


def test_each_annotation_is_a_row_but_cancelled_ones_and_predictions_beside_them(tmp_path: Path) -> None:
    box = item("rectanglelabels", x=0, y=0, width=10, height=10, rectanglelabels=["car"])
    guess = {"id": 9, "model_version": "m", "score": 0.5, "result": [box, {**box, "id": "s", "score": 0.25}]}
    two = task(box, predictions=[guess])
    two["annotations"] += [{"id": 8, "result": []}, {"id": 10, "was_cancelled": True, "result": [box]}]
    guessed = task(predictions=[guess]) | {"id": 2, "annotations": []}
    loaded = imported(tmp_path, two, guessed, task() | {"id": 3, "annotations": []})
    assert {name: len(row["objects"]) for name, row in loaded.rows.items()} == {
        "export/1/7": 1,
        "export/1/8": 0,
        "export/2": 2,
    }
    assert [each["score"] for each in loaded.rows["export/2"]["objects"]] == [0.5, 0.25]
    assert loaded.rows["export/1/7"]["objects"][0]["score"] is None
    assert [(entry.row_id, entry.reason) for entry in loaded.faults] == [("export/3", "NOT_ANNOTATED")]
    assert loaded.manifest.warnings[:2] == (
        "tasks without annotations: their predictions were read, with their scores",
        "1 cancelled annotations were left out",
    )
    assert loaded.manifest.options["format"] == AnnotationFormat.LABEL_STUDIO


@pytest.mark.parametrize(
    "place",
    [
        "/data/upload/3/0a1b2c3d-a.png",
        "/data/local-files/?d=pictures/a.png",
        "s3://bucket/some/a.png",
        "https://example.com/x/a.png?token=1",
        "/tasks/1/resolve/?fileuri=" + base64.urlsafe_b64encode(b"s3://bucket/a.png").decode().rstrip("="),
        "gs://bucket/%61.png",
    ],
)
def test_a_picture_is_found_by_its_name_and_never_fetched(place: str, tmp_path: Path) -> None:
    (row,) = imported(tmp_path, task(image=place)).rows.values()
    assert row["images"][0]["name"] == "a.png"


def test_without_any_picture_one_is_rendered(tmp_path: Path) -> None:
    box = item("rectanglelabels", x=0, y=0, width=50, height=50, rectanglelabels=["car"])
    loaded = load(tmp_path, {"export.json": [task(box), task() | {"id": 2}]})
    (row,) = loaded.rows.values()
    assert (row["images"][0]["media"], row["images"][0]["width"]) == ("rendered", WIDTH)
    assert [entry.reason for entry in loaded.faults] == ["IMAGE_MISSING"], "no item states the size"


RLE = encode_brush(np.zeros((HEIGHT, WIDTH)))


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        (task(item("rectanglelabels", x="1", y=0, width=1, height=1)), "COORDINATE_INVALID"),
        (task(item("rectanglelabels", x=1, y=0, width=-1, height=1)), "BBOX_INVALID"),
        (
            task(item("rectanglelabels", x=1, y=0, width=1, height=1, rectanglelabels=[" "])),
            "EMPTY_CLASS_NAME",
        ),
        (task(item("ellipselabels", x=1, y=0, radiusX=-1, radiusY=1)), "BBOX_INVALID"),
        (task(item("polygonlabels", points=[[1, 1], [2, 2]])), "POLYGON_INVALID"),
        (task(item("polygonlabels", points=[[1, 1], [2, 2], [1e9, 1]])), "POLYGON_INVALID"),
        (task(item("brushlabels", rle=[256])), "RLE_INVALID"),
        (task(item("brushlabels", rle=RLE[:9])), "RLE_INVALID"),
        (task(item("brushlabels", rle=[0, 0, 0, 4, *RLE[4:]])), "RLE_INVALID"),
        (task(item("brushlabels", size=(7, 7), rle=RLE)), "IMAGE_SIZE_MISMATCH"),
        (task(image="gone.png"), "IMAGE_MISSING"),
        (task() | {"data": {"text": "no picture"}}, "NO_IMAGE"),
        (task() | {"data": {"a": "a.png", "b": "b.png"}}, "MULTIPLE_IMAGES"),
        (task() | {"data": {"image": "a.png", "text": "\ud800"}}, "TEXT_INVALID"),
        (task({"type": "rectanglelabels"}), "MALFORMED_REGION"),
        (task() | {"annotations": [{"id": 3}]}, "MALFORMED_ANNOTATION"),
        (task() | {"annotations": 3}, "MALFORMED_TASK"),
        (7, "MALFORMED_TASK"),
    ],
)
def test_a_faulty_task_is_put_aside(faulty: Any, reason: str, tmp_path: Path) -> None:
    loaded = imported(tmp_path, task() | {"id": 0}, faulty)
    assert (list(loaded.rows), [entry.reason for entry in loaded.faults]) == (["export/0"], [reason])


def test_a_long_first_task_is_recognised_and_a_cut_file_refused(tmp_path: Path) -> None:
    long = task(item("textarea", text=["x" * 100_000]))
    assert len(imported(tmp_path / "1", long).rows) == 1
    with pytest.raises(InvalidError) as caught:
        load(tmp_path / "2", {"export.json": json.dumps([long])[:-5], "a.png": png()})
    assert caught.value.reason == "MALFORMED_JSON"
