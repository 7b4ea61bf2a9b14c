"""Annotations of any shape: each form's import ends in a dataset whose ledger balances, or in an error of
ours.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.spec.data import AnnotationFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sources import Files, load, outcome, png

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PNG = png(12, 8)
Make = Callable[[], dict[str, Any]]


def _yolo() -> dict[str, Any]:
    return {
        "data.yaml": "names: [cat, dog]\nnc: 2\ntrain: images\nval: ../valid/images\n",
        "images/a.png": PNG,
        "images/b.png": PNG,
        "labels/a.txt": "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.9 0.1 0.5 0.9\n",
        "labels/gone.txt": "0 0.5 0.5 0.2 0.2\n",
    }


def _voc() -> dict[str, Any]:
    box = "<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>5</xmax><ymax>4</ymax></bndbox>"
    shown = f"<object><name>cat</name><difficult>0</difficult>{box}</object>"
    size = "<size><width>12</width><height>8</height><depth>3</depth></size>"
    return {
        "Annotations/a.xml": f"<annotation><filename>a.png</filename>{size}{shown}</annotation>",
        "Annotations/b.xml": f"<annotation>{shown}</annotation>",
        "JPEGImages/a.png": PNG,
        "JPEGImages/b.png": PNG,
        "SegmentationObject/a.png": png(12, 8, "L", 1),
        "ImageSets/Main/train.txt": "a\nc\n",
    }


def _label_studio() -> dict[str, Any]:
    sides = {"original_width": 12, "original_height": 8}
    place = {"x": 10, "y": 10, "width": 50, "height": 50}
    items = [
        {"id": "a", "type": "rectanglelabels", "value": {**place, "rotation": 9, "rectanglelabels": ["cat"]}},
        {"id": "b", "type": "polygonlabels", "value": {"points": [[1, 1], [90, 9], [50, 80]]}},
        {"id": "c", "type": "ellipselabels", "value": {**place, "radiusX": 20, "radiusY": 30}},
        {"id": "d", "type": "keypointlabels", "value": place},
        {"id": "e", "type": "brushlabels", "value": {"rle": [0, 0, 1, 128, 57, 27, 255, 1, 127, 255]}},
        {"id": "a", "type": "choices", "from_name": "colour", "value": {"choices": ["red"]}},
        {"id": "f", "type": "choices", "from_name": "place", "value": {"choices": ["street"]}},
        {"id": "g", "type": "textarea", "value": {"text": ["a cat"]}},
    ]
    result = [{**item, **sides} for item in items]
    guess = {"id": 3, "score": 0.5, "result": result[:1]}
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/1/a.png"}, "annotations": [{"id": 2, "result": result}]},
        {"id": 2, "data": {"image": "a.png"}, "annotations": [], "predictions": [guess]},
    ]
    return {"export.json": tasks, "a.png": PNG}


def _cvat() -> dict[str, Any]:
    size = "<original_size><width>12</width><height>8</height></original_size>"
    meta = f"<meta><task><id>1</id><size>3</size>{size}</task></meta>"
    shapes = (
        '<box label="cat" xtl="1" ytl="1" xbr="5" ybr="4" rotation="9"><attribute name="a"/></box>'
        '<polygon label="cat" points="1,1;9,2;5,7"/><points label="cat" points="1,1;2,2"/>'
        '<ellipse label="cat" cx="5" cy="4" rx="3" ry="2"/><tag label="street"/>'
        '<mask label="cat" rle="1, 3, 2" left="2" top="3" width="3" height="2"/>'
        '<skeleton label="cat"><points label="eye" points="1,1" outside="0"/></skeleton>'
    )
    box = '<box frame="2" xtl="1" ytl="1" xbr="5" ybr="4" outside="0" keyframe="1"/>'
    image = f'<image id="0" name="frame_000000.png" width="12" height="8">{shapes}</image>'
    track = f'<track id="0" label="cat">{box}</track>'
    text = f"<annotations><version>1.1</version>{meta}{image}{track}</annotations>"
    return {"annotations.xml": text, "frame_000000.png": PNG, "frame_000002.png": PNG}


def _mask(index: int = 3) -> dict[str, Any]:
    return {"size": [8, 12], "counts": [10, index, 86 - index]}


def _sa1b() -> dict[str, Any]:
    annotation = {"id": 1, "segmentation": _mask(), "bbox": [1, 2, 1, 3], "area": 3, "predicted_iou": 0.9}
    image = {"image_id": 1, "width": 12, "height": 8, "file_name": "a.png"}
    return {
        "sa_1.json": {"image": image, "annotations": [annotation, {**annotation, "id": 2}]},
        "sa_2.json": json.dumps({"image": image, "annotations": []}),
        "a.png": PNG,
    }


def _mask_stream() -> dict[str, Any]:
    frames = [
        {"frame_index": index, "results": [{"object_id": 1, "mask": _mask(index + 1)}]} for index in range(2)
    ]
    return {"dog.json": frames, "dog/0.png": PNG, "dog/1.png": PNG}


def _image_folder() -> dict[str, Any]:
    objects = {"bbox": [[1, 1, 3, 3]], "categories": ["cat"], "area": [9]}
    record = {"file_name": "b.png", "text": "two", "label": "cat", "objects": objects, "more": [1, {"a": 2}]}
    return {
        "train/metadata.jsonl": json.dumps(record),
        "val/metadata.csv": 'file_name,text,more\na.png,one,"[1, 2]"\n',
        "train/b.png": PNG,
        "val/a.png": PNG,
    }


SOUND: dict[AnnotationFormat, Make] = {
    AnnotationFormat.YOLO: _yolo,
    AnnotationFormat.VOC: _voc,
    AnnotationFormat.LABEL_STUDIO: _label_studio,
    AnnotationFormat.CVAT: _cvat,
    AnnotationFormat.SA1B: _sa1b,
    AnnotationFormat.MASK_STREAM: _mask_stream,
    AnnotationFormat.IMAGE_FOLDER: _image_folder,
}
TEXTS = [form for form, make in SOUND.items() if any(isinstance(value, str) for value in make().values())]
JSON = [
    form for form, make in SOUND.items() if any(isinstance(value, list | dict) for value in make().values())
]
_words = [
    "-1",
    "1e309",
    "nan",
    "99999999999999999999",
    "",
    "<",
    "&a",
    "*a",
    "[",
    "{",
    "../..",
    "\0",
    "\n",
    "é",
]
splices = st.tuples(
    st.integers(0, 10_000),
    st.integers(0, 6),
    st.sampled_from(_words) | st.text(max_size=3) | st.just("0" * 30),
)


def _outcome(files: Files, form: AnnotationFormat) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return outcome(Path(folder), files, form)


@pytest.mark.parametrize("form", SOUND)
def test_the_sources_that_are_varied_here_are_sound(form: AnnotationFormat) -> None:
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(Path(folder), SOUND[form](), form=form)
    assert len(loaded.rows) == 2
    assert {entry.reason for entry in loaded.faults} <= {"IMAGE_MISSING", "ANNOTATION_MISSING"}


@pytest.mark.parametrize("form", SOUND)
def test_each_form_is_detected(form: AnnotationFormat) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert load(Path(folder), SOUND[form]()).manifest.options["format"] == form


@pytest.mark.parametrize("form", TEXTS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_texts_with_something_strange_put_in(form: AnnotationFormat, data: st.DataObject) -> None:
    files = SOUND[form]()
    name = data.draw(st.sampled_from([name for name, value in files.items() if isinstance(value, str)]))
    for position, length, word in data.draw(st.lists(splices, min_size=1, max_size=3)):
        text = files[name]
        at = position % (len(text) + 1)
        files[name] = text[:at] + word + text[at + length :]
    if data.draw(st.booleans()):
        del files[data.draw(st.sampled_from(sorted(files)))]
    _outcome(files, form)


_strange = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.sampled_from([10**30, -1, 1e308, float("nan"), "", " ", "../a.png", "\ud800", "x" * 2000])
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, item in items for deeper in _paths(item, (*path, key)))]


@pytest.mark.parametrize("form", JSON)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_json_with_a_strange_value(form: AnnotationFormat, data: st.DataObject) -> None:
    files = SOUND[form]()
    name = next(name for name, value in files.items() if isinstance(value, list | dict))
    path = data.draw(st.sampled_from(_paths(files[name], (name,))))
    holder: Any = files
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(_strange)
    if data.draw(st.booleans()):
        raw = json.dumps(files[name]).encode()
        files[name] = raw[: data.draw(st.integers(1, len(raw)))]
    _outcome(files, form)


@pytest.mark.parametrize("form", JSON)
@pytest.mark.parametrize("depth", [900, 990, 5000])
def test_json_that_is_nested_deeply(form: AnnotationFormat, depth: int) -> None:
    files = SOUND[form]()
    name = next(name for name, value in files.items() if isinstance(value, list | dict))
    text = json.dumps(files[name])
    for mark in ('"data": {', '"value": {', '"image": {', "{"):
        if mark in text:
            deep = text.replace(mark, mark + '"deep": ' + "[" * depth + "]" * depth + ", ", 1)
            _outcome({**files, name: deep}, form)
