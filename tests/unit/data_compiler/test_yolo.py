"""YOLO: boxes, outlines and key points as ultralytics defines them, and data.yaml files as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat, ImportOptions
from finemesh.data import Progress, import_source, iter_rows
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from tests.support.sources import Files, load, png

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DATA = "names: [cat, no]\ntrain: images/train\nval: images/val\n"


def test_the_roboflow_sample_is_read_in_spite_of_its_broken_path(
    samples: Path, tmp_path: Path, silent: Progress
) -> None:
    source = samples / "yolo_roboflow"
    manifest = import_source(source, tmp_path / "out", ImportOptions(), silent)
    names = yaml.safe_load((source / "data.yaml").read_text())["names"]
    for row in iter_rows(tmp_path / "out"):
        path = source / row["images"][0]["name"]
        with Image.open(path) as image:
            width, height = image.size
        lines = (path.parents[1] / "labels" / f"{path.stem}.txt").read_text().splitlines()
        assert len(lines) == len(row["objects"])
        for line, item in zip(lines, row["objects"], strict=True):
            number, x, y, w, h = (float(word) for word in line.split())
            assert item["class_name"] == names[int(number)]
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            assert item["bbox"] == pytest.approx(box)
        assert row["split"] == path.parents[1].name
    assert manifest.splits == {"train": 2, "val": 1}
    assert manifest.options["format"] == AnnotationFormat.YOLO
    assert manifest.warnings == (
        "data.yaml: val is '../valid/images', which is not there: read from 'val/images'",
    )


def test_outlines_are_kept_in_pixels_and_drawn_as_pil_draws_them(tmp_path: Path) -> None:
    shares = [0.1, 0.2, 0.8, 0.24, 0.7, 0.9, 0.2, 0.8]
    line = "1 " + " ".join(map(str, shares))
    loaded = load(
        tmp_path, {"data.yaml": DATA, "images/train/a.png": png(), "labels/train/a.txt": line + " 0.75\n"}
    )
    (item,) = loaded.rows["images/train/a.png"]["objects"]
    points = [(x * 100, y * 50) for x, y in zip(shares[::2], shares[1::2], strict=True)]
    assert item["polygons"] == [pytest.approx([side for point in points for side in point])]
    assert (item["class_name"], item["score"]) == ("no", 0.75)
    canvas = Image.new("1", (100, 50))
    ImageDraw.Draw(canvas).polygon(points, fill=1)
    decoded = coco_mask.decode({"size": [50, 100], "counts": item["rle_counts"]}) > 0  # pyright: ignore[reportArgumentType]
    drawn = np.asarray(canvas)
    assert (decoded & drawn).sum() / (decoded | drawn).sum() > 0.93  # PIL also fills the outline itself
    assert item["bbox"] == pytest.approx([10, 10, 70, 35])


def test_key_points_are_kept_with_their_visibility(tmp_path: Path) -> None:
    names = "names: {0: person}\nkpt_shape: [2, 3]\ntrain: images\n"
    line = "0 0.5 0.5 0.4 0.4 0.4 0.5 2 0 0 0\n"
    loaded = load(tmp_path, {"data.yaml": names, "images/a.png": png(), "labels/a.txt": line})
    (item,) = loaded.rows["images/a.png"]["objects"]
    assert item["keypoints"] == pytest.approx([40, 25, 2, 0, 0, 0])
    assert item["bbox"] == pytest.approx([30, 15, 40, 20])


def test_a_picture_without_labels_shows_nothing_and_labels_without_a_picture_are_put_aside(
    tmp_path: Path,
) -> None:
    loaded = load(
        tmp_path,
        {
            "data.yaml": DATA,
            "images/train/a.png": png(),
            "images/val/b.png": png(),
            "labels/val/b.txt": "\n",
            "labels/val/gone.txt": "0 0.5 0.5 0.1 0.1",
            "labels/val/classes.txt": "cat",
        },
    )
    assert [row["objects"] for row in loaded.rows.values()] == [[], []]
    assert loaded.manifest.ledger.by_reason == {"IMAGE_MISSING": 1}
    (entry,) = loaded.faults
    assert entry.row_id == "labels/val/gone.txt"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.1", "MALFORMED_LABEL"),
        ("0 0.5 0.5 0.1 x", "MALFORMED_LABEL"),
        ("0 0.5 0.5 0.1 nan", "MALFORMED_LABEL"),
        ("0 0.5 0.5 0.1 1e400", "MALFORMED_LABEL"),
        ("0 0.5 0.5 0.1 0.1 7", "MALFORMED_LABEL"),
        ("7 0.5 0.5 0.1 0.1", "UNKNOWN_CATEGORY"),
        ("-1 0.5 0.5 0.1 0.1", "UNKNOWN_CATEGORY"),
        ("0 40 25 10 10", "COORDINATE_INVALID"),
        ("0 0.5 0.5 0.1 -0.1", "COORDINATE_INVALID"),
        ("0 0.1 0.1 0.2 0.2 0.3 1.2", "COORDINATE_INVALID"),
        (b"\xff\xfe", "MALFORMED_LABEL"),
    ],
)
def test_a_faulty_line_is_named(line: str | bytes, reason: str, tmp_path: Path) -> None:
    label = line if isinstance(line, bytes) else "0 0.5 0.5 0.1 0.1\n" + line
    loaded = load(
        tmp_path,
        {
            "data.yaml": DATA,
            "images/train/a.png": png(),
            "images/train/b.png": png(),
            "labels/train/b.txt": label,
        },
    )
    assert (list(loaded.rows), loaded.manifest.ledger.by_reason) == (["images/train/a.png"], {reason: 1})
    (entry,) = loaded.faults
    assert "labels/train/b.txt" in entry.message
    assert entry.field == "labels/train/b.txt" + ("" if isinstance(line, bytes) else ":2")


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        ("images/train", False),
        ("./images/train/", False),
        ("[images/train/x, images/train/y]", False),
        ("lists/train.txt", False),
        ("/home/me/set/images/train", True),
        ("../images/training", True),
        ("elsewhere", True),
    ],
)
def test_pictures_of_a_split_are_found_however_they_are_named(
    said: str, warned: bool, tmp_path: Path
) -> None:
    files: Files = {
        "set/data.yaml": f"path: .\nnames: [cat]\ntrain: {said}\n",
        "set/images/train/x/a.png": png(),
        "set/images/train/y/b.png": png(),
        "set/labels/train/y/b.txt": "0 0.5 0.5 1 1",
        "set/lists/train.txt": "./images/train/x/a.png\n/abs/images/train/y/b.png\n",
    }
    loaded = load(tmp_path, files)
    assert {row["split"] for row in loaded.rows.values()} == {"train"}
    assert [len(row["objects"]) for row in loaded.rows.values()] == [0, 1]
    assert any("which is not there" in warning for warning in loaded.manifest.warnings) is warned


def test_what_is_left_out_or_named_twice_is_said(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {
            "data.yaml": "names: [cat, dog]\nnc: 3\ntrain: a/images\nval: a/images\ntest: gone\n",
            "a/images/1.png": png(),
            "b/images/2.png": png(),
        },
    )
    assert [(name, row["split"]) for name, row in loaded.rows.items()] == [("a/images/1.png", "train")]
    assert loaded.manifest.warnings[:4] == (
        "data.yaml: nc is 3, but there are 2 names: the names count",
        "data.yaml: test is 'gone', which is not there: it gives no rows",
        "data.yaml names 1 pictures again: each is kept in its first split",
        "1 pictures, such as b/images/2.png, are in no split of data.yaml: left out",
    )


def test_two_data_yamls_of_one_dataset_give_each_picture_once(tmp_path: Path) -> None:
    files = {"data.yaml": DATA, "custom.yaml": DATA, "images/train/a.png": png(), "images/val/b.png": png()}
    loaded = load(tmp_path, files)
    assert (len(loaded.rows), loaded.faults) == (2, [])
    assert "2 pictures of data.yaml are in another data.yaml: left out here" in loaded.manifest.warnings


def test_what_rounding_alone_puts_outside_is_cut_off(tmp_path: Path) -> None:
    line = "0 0.133333 0.300000 0.266667 0.200000\n0 0.9 0.5 0.4 0.2\n"
    loaded = load(
        tmp_path, {"data.yaml": DATA, "images/train/a.png": png(15, 10), "labels/train/a.txt": line}
    )
    first, second = loaded.rows["images/train/a.png"]["objects"]
    assert first["bbox"] == pytest.approx([0, 2, 4, 2], abs=1e-4)
    assert first["bbox"][0] == 0
    assert second["bbox"] == pytest.approx([10.5, 4, 6, 2]), "that is no rounding: the validator will say so"


def test_an_obj_data_without_its_names_ends_the_import(tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        load(tmp_path, {"obj.data": "train = a.txt\nnames = gone.names\n", "a.txt": "a.png", "a.png": png()})
    assert caught.value.reason == "MALFORMED_ANNOTATIONS"


def test_darknet_as_cvat_exports_it(tmp_path: Path) -> None:
    """Paths begin with a folder that the archive lacks; labels lie beside the pictures."""
    files = {
        "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n",
        "obj.names": "cat\ndog\n",
        "train.txt": "data/obj_train_data/1.png\ndata/obj_train_data/gone.png\n",
        "valid.txt": "data/obj_valid_data/1.png\n",
        "obj_train_data/1.png": png(),
        "obj_train_data/1.txt": "1 0.5 0.5 0.2 0.2\n",
        "obj_valid_data/1.png": png(),
    }
    loaded = load(tmp_path, files)
    found = {
        name: (row["split"], [item["class_name"] for item in row["objects"]])
        for name, row in loaded.rows.items()
    }
    assert found == {"obj_train_data/1.png": ("train", ["dog"]), "obj_valid_data/1.png": ("val", [])}
    assert [(entry.row_id, entry.reason) for entry in loaded.faults] == [("train.txt:2", "IMAGE_MISSING")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: [a\ntrain: x", "MALFORMED_YAML"),
        ("names: &a [x]\nmore: *a\ntrain: images", "MALFORMED_YAML"),
        ("names: cat\ntrain: images", "MALFORMED_ANNOTATIONS"),
        ("names: {x: cat}\ntrain: images", "MALFORMED_ANNOTATIONS"),
        ("names: [cat]\ntrain: {a: b}", "MALFORMED_ANNOTATIONS"),
        ("names: [cat]\nkpt_shape: [3]\ntrain: images", "MALFORMED_ANNOTATIONS"),
        ("names: [cat]\ntrain: nowhere\nval: gone", "MALFORMED_ANNOTATIONS"),
    ],
)
def test_a_data_yaml_that_cannot_be_followed_ends_the_import(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        load(tmp_path, {"data.yaml": text, "pictures/a.png": png()})
    assert caught.value.reason == reason


def test_a_picture_of_a_kind_that_is_refused_is_not_passed_over(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"data.yaml": DATA, "images/train/a.png": png(), "images/train/b.bmp": b"BM"})
    assert loaded.manifest.ledger.by_reason == {"IMAGE_FORMAT_UNSUPPORTED": 1}
