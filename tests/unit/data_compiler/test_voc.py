"""Pascal VOC: boxes counted from 1, masks per object, splits by list, and XML that nobody vouches for."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from finemesh.core.spec.data import AnnotationFormat
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from tests.support.sources import load, png

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def annotation(*objects: str, size: str = "100 50", filename: str = "a.png", more: str = "") -> str:
    width, height = size.split()
    inner = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{inner}{more}{''.join(objects)}</annotation>"


def thing(name: str = "cat", box: str = "1 1 100 50", more: str = "") -> str:
    edges = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    inner = "".join(f"<{edge}>{value}</{edge}>" for edge, value in edges)
    return f"<object><name>{name}</name><bndbox>{inner}</bndbox>{more}</object>"


def test_a_box_covers_the_pixels_that_it_names(tmp_path: Path) -> None:
    """Drawn by PIL, which counts from 0 and includes both ends, it is the box that the row holds."""
    text = annotation(thing(box="11 6 30 25"), thing("dog", "1 1 100 50"))
    loaded = load(tmp_path, {"Annotations/a.xml": text, "JPEGImages/a.png": png()})
    (row,) = loaded.rows.values()
    for element, item in zip(ET.fromstring(text).iter("object"), row["objects"], strict=True):
        edges = [int(element.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
        canvas = Image.new("1", (100, 50))
        ImageDraw.Draw(canvas).rectangle([edge - 1 for edge in edges], fill=1)
        left, top, right, bottom = canvas.getbbox() or (0, 0, 0, 0)
        assert item["bbox"] == [left, top, right - left, bottom - top]
        assert item["class_name"] == element.findtext("name")
    assert loaded.manifest.options["format"] == AnnotationFormat.VOC


def test_where_a_box_begins_at_0_all_are_edges(tmp_path: Path) -> None:
    """As Roboflow and others write them: its YOLO export of the same boxes has these sizes."""
    files = {
        "a.xml": annotation(thing(box="0 10 20 30")),
        "b.xml": annotation(thing(box="5 6 7 8"), filename="b.png"),
    }
    loaded = load(tmp_path, {**files, "a.png": png(), "b.png": png()})
    assert [row["objects"][0]["bbox"] for row in loaded.rows.values()] == [[0, 10, 20, 20], [5, 6, 2, 2]]
    assert any("edges counted from 0" in warning for warning in loaded.manifest.warnings)


def test_what_voc_says_besides_is_kept(tmp_path: Path) -> None:
    more = "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult><occluded>1</occluded>"
    edges = "<xmin>2</xmin><ymin>3</ymin><xmax>4</xmax><ymax>6</ymax>"
    part = f"<part><name>head</name><bndbox>{edges}</bndbox></part>"
    text = annotation(thing(more=more + part), more="<source><database>VOC</database></source>")
    loaded = load(tmp_path, {"Annotations/a.xml": text, "JPEGImages/a.png": png()})
    (row,) = loaded.rows.values()
    assert json.loads(row["objects"][0]["attributes"]) == {
        "pose": "Left",
        "truncated": True,
        "difficult": False,
        "occluded": True,
        "part": [{"name": "head", "bbox": [1, 2, 3, 4]}],
    }
    assert json.loads(row["attributes"]) == {"source": {"database": "VOC"}}


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_masks_of_objects_come_from_segmentation_object(mode: str, tmp_path: Path) -> None:
    numbers = np.zeros((50, 100), dtype=np.uint8)
    numbers[10:20, 5:30], numbers[20:22, 5:30], numbers[30:45, 60:90] = 1, 255, 2
    image = Image.fromarray(numbers)
    if mode != "L":
        image = image.convert("P")
        image.putdata(numbers.ravel().tolist())
        # As the development kit's VOClabelcolormap begins and ends.
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 756 + [224, 224, 192])
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    text = annotation(thing(box="6 11 30 20"), thing(box="61 31 90 45"), thing(box="1 1 2 2"))
    files = {
        "Annotations/a.xml": text,
        "JPEGImages/a.png": png(),
        "SegmentationObject/a.png": buffer.getvalue(),
    }
    (row,) = load(tmp_path, files).rows.values()
    for number, item in enumerate(row["objects"][:2], start=1):
        decoded = coco_mask.decode({"size": [50, 100], "counts": item["rle_counts"]})  # pyright: ignore[reportArgumentType]
        assert (decoded == (numbers == number)).all()
        assert item["area"] == (numbers == number).sum()
    assert row["objects"][2]["rle_counts"] is None


def test_splits_come_from_lists_and_what_they_name_in_vain_is_put_aside(tmp_path: Path) -> None:
    files = {f"VOC2012/Annotations/{name}.xml": annotation(thing(), filename=f"{name}.png") for name in "abc"}
    pictures = {f"VOC2012/JPEGImages/{name}.png": png() for name in "abcd"}
    lists = {"train": "a\n", "val": "b  1\na\n", "trainval": "a\nb\n", "test": "gone\n"}
    listed = {f"VOC2012/ImageSets/Main/{name}.txt": text for name, text in lists.items()}
    loaded = load(tmp_path, {**files, **pictures, **listed})
    assert [row["split"] for row in loaded.rows.values()] == ["train", "val", ""]
    assert [(entry.row_id, entry.reason) for entry in loaded.faults] == [
        ("VOC2012/Annotations/gone", "ANNOTATION_MISSING")
    ]
    assert (
        "1 pictures, such as VOC2012/JPEGImages/d.png, have no XML file of their name"
        in loaded.manifest.warnings
    )
    assert any("lists 1 of another split, such as a" in warning for warning in loaded.manifest.warnings)


def test_pictures_beside_their_xml_in_a_folder_per_split(tmp_path: Path) -> None:
    """Whatever folder their file names, which is often one of another machine."""
    text = annotation(thing(), filename="/home/me/a.png", size="0 0")
    files = {"valid/a.xml": text, "valid/a.png": png(), "train/a.xml": text, "train/a.png": png()}
    loaded = load(tmp_path, files)
    assert {name: row["split"] for name, row in loaded.rows.items()} == {"train/a": "train", "valid/a": "val"}
    assert {row["images"][0]["name"] for row in loaded.rows.values()} == {"train/a.png", "valid/a.png"}


def test_a_picture_that_may_be_one_of_several_is_not_guessed(tmp_path: Path) -> None:
    files = {
        "xml/a.xml": annotation(thing()),
        "1/a.png": png(),
        "2/a.png": png(),
        "xml/b.xml": annotation(thing(), filename="1/a.png"),
    }
    (fault,) = load(tmp_path, files).faults
    assert (fault.row_id, fault.reason) == ("xml/a", "IMAGE_AMBIGUOUS")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation><object>", "MALFORMED_XML"),
        ('<!DOCTYPE a [<!ENTITY b "b">]><annotation>&b;</annotation>', "MALFORMED_XML"),
        ('<?xml version="1.0" encoding="none"?><annotation/>', "MALFORMED_XML"),
        (annotation(thing(), more="<x>" * 99 + "</x>" * 99), "MALFORMED_XML"),
        ("<other/>", "MALFORMED_ANNOTATIONS"),
        (annotation(thing(box="9 1 4 5")), "BBOX_INVALID"),
        (annotation(thing(box="x 1 4 5")), "COORDINATE_INVALID"),
        (annotation(thing(box="nan 1 4 5")), "COORDINATE_INVALID"),
        (annotation(thing(name=" ")), "EMPTY_CLASS_NAME"),
        (annotation(thing(), size="50 50"), "IMAGE_SIZE_MISMATCH"),
        (annotation(thing(), size="1.5 50"), "MALFORMED_IMAGE"),
        (annotation(thing(), filename="gone.png"), "IMAGE_MISSING"),
    ],
)
def test_a_faulty_file_is_put_aside(text: str, reason: str, tmp_path: Path) -> None:
    sound = annotation(thing())
    loaded = load(
        tmp_path, {"Annotations/a.xml": sound, "Annotations/b.xml": text, "JPEGImages/a.png": png()}
    )
    assert [(entry.row_id, entry.reason) for entry in loaded.faults] == [("Annotations/b", reason)]


def test_more_masks_than_objects_are_a_fault(tmp_path: Path) -> None:
    files = {"Annotations/a.xml": annotation(thing()), "JPEGImages/a.png": png()}
    with_mask = {
        "Annotations/b.xml": annotation(thing(), filename="a.png"),
        "SegmentationObject/b.png": png(mode="L"),
    }
    assert [entry.reason for entry in load(tmp_path, {**files, **with_mask}).faults] == [
        "MASK_COUNT_MISMATCH"
    ]


def test_a_mask_is_never_taken_for_the_picture(tmp_path: Path) -> None:
    files = {"Annotations/a.xml": annotation(thing()), "SegmentationObject/a.png": png(mode="L", value=1)}
    (row,) = load(tmp_path, files).rows.values()
    assert (row["images"][0]["media"], row["objects"][0]["area"]) == ("rendered", 100 * 50)


def test_without_any_picture_the_boxes_are_rendered(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"Annotations/a.xml": annotation(thing(box="11 11 40 40"))})
    (row,) = loaded.rows.values()
    assert row["images"][0]["media"] == "rendered"
    with Image.open(io.BytesIO(row["images"][0]["data"])) as image:
        pixels = np.asarray(image, dtype=float)
    assert np.abs(pixels[15:35, 15:35].mean(axis=(0, 1)) - pixels[:, 50:].mean(axis=(0, 1))).max() > 60
