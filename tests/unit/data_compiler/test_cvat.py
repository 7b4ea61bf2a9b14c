"""CVAT: shapes of pictures, tracks of videos, its masks, and where frames come from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import AnnotationFormat
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from tests.support.sources import Loaded, load, png

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH, HEIGHT = 100, 50
SIZE = "<original_size><width>100</width><height>50</height></original_size>"
LABELS = "<labels><label><name>car</name><color>#ff0000</color><type>any</type></label></labels>"


def document(*elements: str, task: str = f"<id>1</id><size>2</size>{LABELS}{SIZE}") -> str:
    meta = f"<meta><task>{task}</task></meta>"
    return f"<annotations><version>1.1</version>{meta}{''.join(elements)}</annotations>"


def image(*shapes: str, name: str = "a.png", number: int = 0, more: str = "") -> str:
    return f'<image id="{number}" name="{name}" width="100" height="50" {more}>{"".join(shapes)}</image>'


def imported(folder: Path, *shapes: str) -> Loaded:
    return load(folder, {"annotations.xml": document(image(*shapes)), "images/a.png": png()})


def decoded(item: Any) -> Any:
    return coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": item["rle_counts"]}) > 0  # pyright: ignore[reportArgumentType]


def test_boxes_and_outlines_are_those_of_the_file(tmp_path: Path) -> None:
    box = (
        '<box label="car" source="manual" occluded="1" xtl="10.5" ytl="5" xbr="30.5" ybr="25" z_order="2"'
        ' group_id="4"><attribute name="colour">red</attribute></box>'
    )
    outline = '<polygon label="tree" occluded="0" points="10,10;60,12;55,40"/>'
    loaded = imported(tmp_path, box, outline)
    (row,) = loaded.rows.values()
    car, tree = row["objects"]
    assert (car["class_name"], car["bbox"]) == ("car", [10.5, 5, 20, 20])
    assert json.loads(car["attributes"]) == {
        "source": "manual",
        "occluded": True,
        "z_order": "2",
        "group_id": "4",
        "attributes": {"colour": "red"},
    }
    assert tree["polygons"] == [[10, 10, 60, 12, 55, 40]]
    canvas = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(canvas).polygon([(10, 10), (60, 12), (55, 40)], fill=1)
    drawn = np.asarray(canvas)
    assert (decoded(tree) & drawn).sum() / (decoded(tree) | drawn).sum() > 0.9  # PIL fills the outline too
    meta = loaded.manifest.header["cvat"]["annotations.xml"]["task"]
    assert meta["labels"]["label"] == {"name": "car", "color": "#ff0000", "type": "any"}
    assert loaded.manifest.options["format"] == AnnotationFormat.CVAT


def test_a_turned_box_turns_about_its_centre(tmp_path: Path) -> None:
    box = '<box label="car" xtl="20" ytl="10" xbr="60" ybr="30" rotation="90"/>'
    (row,) = imported(tmp_path, box).rows.values()
    assert row["objects"][0]["bbox"] == pytest.approx([30, 0, 20, 40])
    assert json.loads(row["objects"][0]["attributes"])["xtl"] == "20"


def test_masks_are_runs_by_rows_within_their_box(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[7:19, 20:51] = random.random((12, 31)) < 0.5
    flat = pixels[7:19, 20:51].ravel().tolist()
    runs: list[int] = [0]
    value = False
    for each in flat:
        if each == value:
            runs[-1] += 1
        else:
            runs.append(1)
            value = each
    rle = ", ".join(map(str, runs))
    mask = f'<mask label="car" rle="{rle}" left="20" top="7" width="31" height="12"/>'
    (row,) = imported(tmp_path, mask).rows.values()
    assert (decoded(row["objects"][0]) == pixels).all()


def test_the_mask_of_the_documentation_is_a_disc(tmp_path: Path) -> None:
    """13 x 15 pixels at 707, 888 there; read by columns it would be no disc."""
    rle = "3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, 5, 3"
    (row,) = imported(
        tmp_path, f'<mask label="car" rle="{rle}" left="7" top="8" width="13" height="15"/>'
    ).rows.values()
    disc = decoded(row["objects"][0])[8:23, 7:20]
    assert disc.sum() == row["objects"][0]["area"] == sum(int(run) for run in rle.split(", ")[1::2])
    x, y = np.meshgrid(np.arange(13) - 6, np.arange(15) - 7)
    ellipse = (x / 6.5) ** 2 + (y / 7.5) ** 2 <= 1
    assert (disc & ellipse).sum() / (disc | ellipse).sum() > 0.85
    assert (disc.T.copy().reshape(15, 13) & ellipse).sum() / (disc | ellipse).sum() < 0.85


def test_shapes_without_a_place_of_their_own_are_kept_in_attributes_and_said(tmp_path: Path) -> None:
    corners = "".join(
        f'x{corner}="{10 + i}" y{corner}="{5 + i}" '
        for i, corner in enumerate(f"{side}{face}" for face in "12" for side in ("tl", "bl", "tr", "br"))
    )
    loaded = imported(
        tmp_path,
        '<ellipse label="egg" cx="50" cy="25" rx="30" ry="10"/>',
        f'<cuboid label="box" {corners}/>',
        '<polyline label="road" points="1,2;30,40"/>',
        '<points label="eyes" points="1,2;3,4"/>',
        '<skeleton label="man"><points label="hand" points="9,8" outside="0" occluded="1"/>'
        '<points label="foot" points="1,1" outside="1" occluded="0"/></skeleton>',
        '<tag label="street"/>',
    )
    (row,) = loaded.rows.values()
    egg, box, road, eyes, man = row["objects"]
    assert (egg["bbox"], json.loads(egg["attributes"])["rx"]) == ([20, 15, 60, 20], "30")
    canvas = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(canvas).ellipse([20, 15, 79, 34], fill=1)
    drawn = np.asarray(canvas)
    assert (decoded(egg) & drawn).sum() / (decoded(egg) | drawn).sum() > 0.97
    assert (box["bbox"], json.loads(box["attributes"])["xbr2"]) == ([10, 5, 7, 7], "17")
    assert json.loads(road["attributes"])["points"] == "1,2;30,40"
    assert eyes["keypoints"] == [1, 2, 2, 3, 4, 2]
    assert (man["keypoints"], json.loads(man["attributes"])["parts"]) == (
        [9, 8, 1, 1, 1, 0],
        ["hand", "foot"],
    )
    assert row["class_name"] == "street"
    assert (
        sum(
            word in warning
            for warning in loaded.manifest.warnings
            for word in ("cuboid", "polyline", "ellipse")
        )
        == 3
    )


def track(number: int, *boxes: tuple[int, int, int], label: str = "car") -> str:
    inner = "".join(
        f'<box frame="{frame}" keyframe="{key}" outside="{outside}" occluded="0" xtl="{frame}" ytl="1"'
        f' xbr="{frame + 9}" ybr="9" z_order="0"/>'
        for frame, key, outside in boxes
    )
    return f'<track id="{number}" label="{label}" source="manual">{inner}</track>'


def test_tracks_are_rows_by_frame_as_given(tmp_path: Path) -> None:
    text = document(
        track(0, (0, 1, 0), (1, 0, 0), (2, 1, 1)),
        track(1, (2, 1, 0), label="bus"),
        task=f"<id>1</id><size>9</size><mode>interpolation</mode><source>v.mp4</source>{SIZE}",
    )
    frames = {f"images/frame_{index:06d}.PNG": png(value=50 * index) for index in range(4)}
    loaded = load(tmp_path, {"annotations.xml": text, **frames})
    found = {
        row["frame_index"]: [(item["object_id"], item["bbox"][0], item["visible"]) for item in row["objects"]]
        for row in loaded.rows.values()
    }
    stated: dict[int, list[Any]] = {}
    for element in ET.fromstring(text).iter("track"):
        for box in element:
            shown = (element.get("id"), float(box.get("xtl", "")), box.get("outside") == "0")
            stated.setdefault(int(box.get("frame", "")), []).append(shown)
    assert found == stated
    assert list(loaded.rows) == [f"annotations/{index:06d}" for index in range(3)]
    middle = loaded.rows["annotations/000001"]
    assert json.loads(middle["objects"][0]["attributes"])["keyframe"] is False
    with Image.open(io.BytesIO(middle["images"][0]["data"])) as shown:
        assert shown.getchannel(0).getpixel((0, 0)) == 50
    assert (loaded.manifest.videos, loaded.manifest.media) == (1, {"frame": 3})


def test_frames_come_from_the_video_that_was_uploaded(samples: Path, tmp_path: Path) -> None:
    import av

    with av.open(str(samples / "video/01_dog.mp4")) as container:
        frames = [
            frame.to_ndarray(format="rgb24")
            for frame, _ in zip(container.decode(video=0), range(6), strict=False)
        ]
    height, width, _ = frames[0].shape
    size = f"<original_size><width>{width}</width><height>{height}</height></original_size>"
    text = document(track(0, (5, 1, 0)), task=f"<id>1</id><source>dog.mp4</source>{size}")
    loaded = load(tmp_path, {"a.xml": text, "dog.mp4": (samples / "video/01_dog.mp4").read_bytes()})
    (row,) = loaded.rows.values()
    with Image.open(io.BytesIO(row["images"][0]["data"])) as shown:
        assert np.abs(np.asarray(shown, dtype=float) - frames[5]).mean() < 3, "JPEG alone changes it less"


def test_pictures_of_a_video_without_numbers_count_in_their_order_if_all_are_there(tmp_path: Path) -> None:
    text = document(track(0, (1, 1, 0)))
    loaded = load(tmp_path / "1", {"annotations.xml": text, "b.png": png(value=9), "a.png": png(value=3)})
    (row,) = loaded.rows.values()
    with Image.open(io.BytesIO(row["images"][0]["data"])) as shown:
        assert shown.getchannel(0).getpixel((0, 0)) == 9
    with pytest.raises(InvalidError) as caught:
        load(tmp_path / "2", {"annotations.xml": text, "a.png": png()})
    assert caught.value.reason == "MALFORMED_ANNOTATIONS"
    loaded = load(tmp_path / "3", {"annotations.xml": text})
    assert loaded.manifest.media == {"rendered": 1}


def test_subsets_and_folders_tell_the_split_and_which_picture(tmp_path: Path) -> None:
    text = document(
        image(name="a.png", more='subset="Train"'),
        image(name="a.png", more='subset="mine"'),  # a project's export counts each subset from 0
        image(name="val/b.png", number=2),
    )
    pictures = {name: png() for name in ("images/Train/a.png", "images/mine/a.png", "images/val/b.png")}
    rows = load(tmp_path, {"annotations.xml": text, **pictures}).rows.values()
    assert [row["split"] for row in rows] == ["train", "", "val"]
    assert [row["images"][0]["name"] for row in rows] == list(pictures)
    assert [json.loads(row["attributes"] or "{}") for row in rows] == [{}, {"subset": "mine"}, {}]


def test_every_file_of_many_is_read(tmp_path: Path) -> None:
    files = {f"task_{number}/annotations.xml": document(image()) for number in range(40)}
    loaded = load(tmp_path, {**files, "a.png": png(), "zz.xml": "<other/>"})
    assert sorted(loaded.rows) == sorted(f"task_{number}/annotations/0" for number in range(40))
    assert "zz.xml was not read: of another form" in loaded.manifest.warnings


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<box label="car" xtl="9" ytl="1" xbr="5" ybr="9"/>', "BBOX_INVALID"),
        ('<box label="car" xtl="9" ytl="1" xbr="inf" ybr="9"/>', "COORDINATE_INVALID"),
        ('<box label="car" xtl="9"/>', "COORDINATE_INVALID"),
        ('<box xtl="1" ytl="1" xbr="5" ybr="9"/>', "EMPTY_CLASS_NAME"),
        ('<polygon label="car" points="1,1;2,2"/>', "POLYGON_INVALID"),
        ('<polygon label="car" points="1;2"/>', "COORDINATE_INVALID"),
        ('<ellipse label="car" cx="1" cy="1" rx="-1" ry="1"/>', "BBOX_INVALID"),
        ('<mask label="car" rle="1,2" left="0" top="0" width="2" height="2"/>', "RLE_INVALID"),
        ('<mask label="car" rle="1,x" left="0" top="0" width="2" height="2"/>', "RLE_INVALID"),
        ('<mask label="car" rle="4" left="99" top="0" width="2" height="2"/>', "RLE_INVALID"),
        ('<sphere label="car"/>', "UNKNOWN_SHAPE"),
    ],
)
def test_a_faulty_shape_puts_its_picture_aside(shape: str, reason: str, tmp_path: Path) -> None:
    text = document(image(), image(shape, number=1))
    loaded = load(tmp_path, {"annotations.xml": text, "images/a.png": png()})
    assert [(entry.row_id, entry.reason) for entry in loaded.faults] == [("annotations/1", reason)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (document(image())[:-5], "MALFORMED_XML"),
        ('<!DOCTYPE a [<!ENTITY b "b">]>' + document(image()), "MALFORMED_XML"),
        (document(image("<box>" * 99 + "</box>" * 99)), "MALFORMED_XML"),
        (document(track(0, (0, 1, 0)).replace('frame="0"', 'frame="-1"')), "MALFORMED_ANNOTATIONS"),
        (document(track(0, (0, 1, 0)), task=SIZE.replace("50", "x")), "MALFORMED_ANNOTATIONS"),
    ],
)
def test_a_file_that_cannot_be_followed_ends_the_import(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        load(tmp_path, {"annotations.xml": text, "images/a.png": png()})
    assert caught.value.reason == reason
