"""Files made to do harm, in every format: of the wrong kind, without end, pictures that claim to be huge. An
import ends in a dataset or in an error of ours, soon, and in little memory.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any, Final

import pytest
from finemesh.core.spec.data import AnnotationFormat, DatasetManifest, ImportOptions
from finemesh.data import import_source, iter_rows
from finemesh.data.readers import READERS
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile_sources import ROWS, SLOW, SOUND, outcome, picture, png

file_names = st.sampled_from(
    ["a.json", "a.jsonl", "a.csv", "a.txt", "a.xml", "a.parquet", "data.yaml", "a.png", "labels/a.txt"]
    + ["manifest.json", "metadata.jsonl", "metadata.csv", "Annotations/a.xml", "annotations.xml", "a.mp4"]
)  # fmt: skip
file_contents = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(ROWS).map(lambda row: json.dumps(row).encode()),
    st.sampled_from(list(SOUND.values())).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [b"", b"[]", b"{}", b"null", b"PAR1PAR1", png(60_000, 60_000), b"names: [a]\n", b"0 .5 .5 .1 .1"]
    ),
    st.just(b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><annotation>&d;</annotation>'),
    st.just(b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>'),
)


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=15, deadline=SLOW)
@given(files=st.dictionaries(file_names, file_contents, min_size=1, max_size=4), named=st.booleans())
def test_any_files_in_every_format(kind: AnnotationFormat, files: dict[str, bytes], named: bool) -> None:
    outcome(files, kind if named else None)


ENDLESS: Final = {
    "a.json": b'["' + b'\\"' * 60_000,  # took a minute, when each quote was tried anew
    "a.jsonl": b'{"text":"' + b"x" * (17 << 20),
    "annotations.xml": b'<annotations><image name="' + b"x" * (17 << 20),  # took half a minute
    "a.xml": b"<annotation>" + b"<object>" * (1 << 18),
    "a.csv": b"prompt,completion\n" + b'"' * (4 << 20),
    "a.tsv": b"prompt\tcompletion" + b"\t" * (2 << 20),
    "a.parquet": b"PAR1" + bytes(4 << 20) + b"\xff\xff\xff\x00PAR1",
    "data.yaml": b"names: " + b"[" * (1 << 20),
    "metadata.csv": b"file_name\n" + b"x" * (4 << 20),
}  # fmt: skip


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ENDLESS)
def test_what_does_not_end_is_left_soon(name: str) -> None:
    made = outcome({name: ENDLESS[name]}, None)
    assert isinstance(made, str) or made.ledger.kept == 0


MASK_OF: Final = {"size": [1, 1], "counts": [1]}
HUGE: Final = [
    ((60_000, 60_000), {"size": [60_000, 60_000], "counts": [60_000**2]}, "IMAGE_TOO_LARGE"),
    ((10**9, 10**9), MASK_OF, "IMAGE_TOO_LARGE"),
    ((70_000, 10), [], "IMAGE_TOO_LARGE"),  # no JPEG is so wide, were it rendered
    ((1, 60_000_000), [], "IMAGE_TOO_LARGE"),
    ((20, 10), {"size": [60_000, 60_000], "counts": [60_000**2]}, "MASK_SIZE_MISMATCH"),
    ((20, 10), {"size": [10, 20], "counts": [0] * 1_000_000}, "RLE_INVALID"),
    ((20, 10), {"size": [10, 20], "counts": "0" * 1_000_000}, "RLE_INVALID"),
    ((20, 10), {"size": [10, 20], "counts": "o" * 20 + "0"}, "RLE_INVALID"),
    ((20, 10), [[1e14, 1e14, -1e14, 1, 1, 1]], "POLYGON_INVALID"),
    ((1, 60_000_000), [[0, 0, 0.5, 60_000_000, 1, 1]], "POLYGON_INVALID"),  # pycocotools ended the process
    ((4_000, 4_000), [[0, 0, 4_000, 4_000] * 1_000], "POLYGON_INVALID"),
]


@pytest.mark.parametrize(("size", "segmentation", "reason"), HUGE)
def test_annotation_that_claims_too_much_is_set_aside(
    size: tuple[int, int], segmentation: Any, reason: str
) -> None:
    coco = json.loads(json.dumps(SOUND[AnnotationFormat.COCO]))
    coco["images"].append({"id": 2, "width": size[0], "height": size[1]})
    box = {"id": 2, "image_id": 2, "category_id": 1, "bbox": [0, 0, 1, 1]}
    coco["annotations"].append(box | {"segmentation": segmentation})
    made = outcome({"a.json": json.dumps(coco).encode()}, None)
    assert isinstance(made, DatasetManifest)
    assert made.ledger.kept == 1
    assert made.ledger.by_reason == {reason: 1}


def test_formula_stays_text() -> None:
    """Nothing is computed, and nothing is escaped: what writes a table for people has to."""
    cells = ["=1+1", "+SUM(A1:A9)", "-2+3", "@now", "=cmd|' /C calc'!A0", "\t=1", "\r=1"]
    lines = ["prompt,completion", *(f'"{cell}",answer' for cell in cells)]
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "a.csv", Path(folder) / "out"
        source.write_text("\n".join(lines), newline="")
        import_source(source, out, ImportOptions(), lambda _fraction, _message: None)
        said = ["".join(part["text"] for part in row["messages"][0]["content"]) for row in iter_rows(out)]
    assert said == cells


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (png(60_000, 60_000), "IMAGE_TOO_LARGE"),
        (png(2**31 - 1, 2**31 - 1), "IMAGE_TOO_LARGE"),
        (png(20, 10, zlib.compress(b"")), "IMAGE_UNREADABLE"),
    ],
)
def test_picture_that_claims_too_much_is_set_aside(bomb: bytes, reason: str) -> None:
    """Its neighbour is kept."""
    coco = json.loads(json.dumps(SOUND[AnnotationFormat.COCO]))
    coco["images"].append({"id": 2, "width": 20, "height": 10, "file_name": "b.png"})
    files = {"a.json": json.dumps(coco).encode(), "a.png": bomb, "b.png": picture(20, 10)}
    made = outcome(files, None)
    assert isinstance(made, DatasetManifest)
    assert made.ledger.kept == 1
    assert made.ledger.by_reason == {reason: 1}
