"""Annotations of any shape: each form's import ends in a dataset whose ledger balances, or in an error of
ours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.spec.data import AnnotationFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sources import Files, outcome, png

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
        "SegmentationObject/a.png": png(12, 8, "L"),
        "ImageSets/Main/train.txt": "a\nc\n",
    }


SOUND: dict[AnnotationFormat, Make] = {AnnotationFormat.YOLO: _yolo, AnnotationFormat.VOC: _voc}
TEXTS = [name for name, make in SOUND.items() if any(isinstance(value, str) for value in make().values())]
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
    assert _outcome(SOUND[form](), form) == ""


@pytest.mark.parametrize("form", TEXTS)
@settings(max_examples=40, deadline=None)
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
