"""COCO, canonical, COCO: nothing changes, field by field. COCO, YOLO: other readers find the masks."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from finemesh.core.errors import FinemeshError
from finemesh.core.spec.data import ConvertOptions, DatasetFormat, ImportOptions, MaskForm
from finemesh.data import compile_source, convert_dataset, import_source, iter_ledger, iter_rows
from finemesh.data.readers.coco import join
from finemesh.data.readers.coco.boxes import BoxMaker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as typed_coco_mask

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

coco_mask: Any = typed_coco_mask  # its stubs know no polygons

SIDE = st.integers(3, 24)
EXTRA = st.dictionaries(
    st.sampled_from(["license", "date_captured", "attributes", "text", "coco_url", "track_id"]),
    st.none() | st.integers(-9, 9) | st.text(max_size=4) | st.lists(st.booleans(), max_size=2),
    max_size=2,
)
NUMBER = st.integers(0, 20) | st.floats(0, 20, width=32)


@st.composite
def segmentations(draw: st.DrawFn, width: int, height: int) -> Any:
    kind = draw(st.sampled_from(["none", "empty", "polygons", "list", "string"]))
    if kind == "none":
        return None
    if kind == "empty":
        return []
    if kind == "polygons":
        point = st.tuples(st.floats(0, width, width=32), st.floats(0, height, width=32))
        corners = draw(st.lists(st.lists(point, min_size=4, max_size=6), min_size=1, max_size=2))
        return [[number for each in polygon for number in each] for polygon in corners]
    pixels = np.asfortranarray(
        np.array(
            draw(st.lists(st.booleans(), min_size=width * height, max_size=width * height)), np.uint8
        ).reshape(height, width)
    )
    runs = coco_mask.encode(pixels)
    if kind == "string":
        return {"size": [height, width], "counts": runs["counts"].decode()}
    flat = pixels.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}


@st.composite
def coco_files(draw: st.DrawFn) -> dict[str, Any]:
    """A COCO file with gaps in its ids, classes of one name, extra fields, and annotations in any order."""
    categories = [
        {"id": identity, "name": name, **draw(EXTRA)}
        for identity, name in zip((3, 1, 90), draw(st.permutations(["cat", "dog", "cat"])), strict=True)
    ]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 4))):
        width, height = draw(SIDE), draw(SIDE)
        image_id: Any = draw(st.sampled_from([number * 7 + 2, f"im{number}"]))
        images.append(
            {
                "id": image_id,
                "width": width,
                "height": height,
                "file_name": f"f{number}/{number}.png",
                **draw(EXTRA),
            }
        )
        for _ in range(draw(st.integers(0, 3))):
            annotation: dict[str, Any] = {
                "id": len(annotations) * 3 + 5,
                "image_id": image_id,
                "category_id": draw(st.sampled_from([3, 1, 90])),
                "bbox": [draw(NUMBER) for _ in range(4)],
                "area": draw(NUMBER),
                "iscrowd": draw(st.integers(0, 1)),
                **draw(EXTRA),
            }
            if (shape := draw(segmentations(width, height))) is not None:
                annotation["segmentation"] = shape
            if draw(st.booleans()):
                annotation["keypoints"], annotation["num_keypoints"] = [1, 2, 2, 0, 0, 0], 1
            annotations.append(annotation)
        if draw(st.booleans()):
            annotations.append({"id": 1000 + number, "image_id": image_id, "caption": "two cats"})
    return {
        "info": {"year": 2020, **draw(EXTRA)},
        "images": images,
        "annotations": draw(st.permutations(annotations)),
        "licenses": [{"id": 1, "name": "x"}],
        "categories": categories,
    }


def laid_out(root: Path, coco: dict[str, Any], *, reverse: bool = False) -> Path:
    """The file and its pictures; `reverse` writes the tables in the other order."""
    source = root / "source"
    source.mkdir(parents=True)
    items = list(coco.items())
    (source / "instances_all.json").write_text(json.dumps(dict(items[::-1] if reverse else items)))
    for image in coco["images"]:
        path = source / image["file_name"]
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (image["width"], image["height"]), (len(image["file_name"]), 9, 7)).save(path)
    return source


def nothing(share: float, words: str) -> None:
    del share, words


def by_id(items: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {item["id"]: item for item in items}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(coco_files(), st.booleans(), st.booleans())
def test_coco_through_the_canonical_form_is_the_same(coco: dict[str, Any], held: bool, reverse: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if not held:
            patch.setattr(join, "HELD_BYTES", 0)
            patch.setattr(join, "PART_IMAGES_WITH_MASKS", 2)
        root = Path(folder)
        source = laid_out(root, coco, reverse=reverse)
        import_source(source, root / "canonical", ImportOptions(), nothing)
        options = ConvertOptions(DatasetFormat.COCO)
        manifest = convert_dataset(root / "canonical", root / "coco", options, nothing)
        again = json.loads((root / "coco/annotations/instances_all.json").read_bytes())
        assert again["info"] == coco["info"]
        assert again["licenses"] == coco["licenses"]
        assert again["categories"] == coco["categories"]
        assert again["images"] == coco["images"]
        assert [image["id"] for image in again["images"]] == [image["id"] for image in coco["images"]]
        found, expected = by_id(again["annotations"]), by_id(coco["annotations"])
        assert {*found} == {*expected}
        for identity, annotation in expected.items():
            assert {**found[identity], **annotation} == found[identity]
            assert {*found[identity]} - {*annotation} <= {"segmentation"}
        for image in coco["images"]:
            written = root / "coco/images/all" / image["file_name"]
            assert written.read_bytes() == (source / image["file_name"]).read_bytes()
        assert manifest.proof is not None
        assert manifest.proof.below_floor == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(coco_files())
def test_polygons_written_of_masks_are_the_masks(coco: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        options = ConvertOptions(DatasetFormat.COCO, mask_form=MaskForm.POLYGON, min_mask_iou=0.0)
        compile_source(laid_out(root, coco), root / "coco", ImportOptions(), options, nothing)
        again = json.loads((root / "coco/annotations/instances_all.json").read_bytes())
        sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
        found = by_id(again["annotations"])
        for annotation in coco["annotations"]:
            shape = annotation.get("segmentation")
            if isinstance(shape, dict) and annotation["iscrowd"] == 0:
                height, width = sizes[annotation["image_id"]]
                drawn = union(found[annotation["id"]]["segmentation"], height, width)
                assert (drawn == decoded(shape, height, width)).all()


def union(polygons: list[list[float]], height: int, width: int) -> Any:
    drawn = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        drawn |= coco_mask.decode(coco_mask.frPyObjects([polygon], height, width))[:, :, 0]
    return drawn


def decoded(shape: Any, height: int, width: int) -> Any:
    runs = shape if isinstance(shape["counts"], str) else coco_mask.frPyObjects(shape, height, width)
    return coco_mask.decode(runs)


def test_yolo_is_what_its_readers_expect(tmp_path: Path) -> None:
    """A ring, two parts, a crowd, a box alone and a hidden object, drawn again by Pillow."""
    pixels = np.zeros((6, 40, 60), np.uint8)
    pixels[0, 5:25, 5:25], pixels[0, 10:20, 10:20] = 1, 0
    pixels[1, 30:35, 2:9], pixels[1, 30:35, 40:55] = 1, 1
    pixels[2, :, 30:34] = 1
    annotations: list[dict[str, Any]] = [
        {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "bbox": [5, 5, 20, 20], "area": 300},
        {"id": 2, "image_id": 1, "category_id": 3, "iscrowd": 0, "bbox": [2, 30, 53, 5], "area": 110},
        {"id": 3, "image_id": 1, "category_id": 3, "iscrowd": 1, "bbox": [30, 0, 4, 40], "area": 160},
        {"id": 4, "image_id": 1, "category_id": 3, "iscrowd": 0, "bbox": [50, 2, 20, 8], "area": 160},
        {"id": 5, "image_id": 1, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 0, 0], "area": 0},
    ]
    for index in (0, 1, 2, 4):
        runs = coco_mask.encode(np.asfortranarray(pixels[index]))
        annotations[index]["segmentation"] = {"size": [40, 60], "counts": runs["counts"].decode()}
    coco = {
        "images": [{"id": 1, "width": 60, "height": 40, "file_name": "a b/ü.jpeg"}],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "ring"}, {"id": 3, "name": "pair"}, {"id": 5, "name": "unused"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(coco))
    options = ConvertOptions(DatasetFormat.YOLO_SEGMENTATION)
    manifest = compile_source(tmp_path / "c.json", tmp_path / "seg", ImportOptions(), options, nothing)
    assert manifest.proof is not None
    assert (manifest.proof.masks, manifest.proof.min_iou) == (2, 1.0)
    assert "1 crowd regions left out: YOLO has no place for them" in manifest.warnings
    config = yaml.safe_load((tmp_path / "seg/data.yaml").read_text())
    assert config["names"] == {0: "ring", 1: "pair", 2: "unused"}
    lines = (tmp_path / "seg/labels/all/ü.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "1"]
    for line, expected in zip(lines[:2], pixels[:2], strict=True):
        canvas = Image.new("1", (60, 40))
        corners = np.array([float(number) for number in line.split()[1:]]).reshape(-1, 2) * [60, 40]
        ImageDraw.Draw(canvas).polygon(corners.astype(int).reshape(-1).tolist(), fill=1, outline=1)
        drawn = np.asarray(canvas)
        # The bridges have no area, but a pen that draws edges leaves a pixel's width along them.
        assert (drawn >= expected.astype(bool)).all() or (drawn & expected.astype(bool)).sum() > 100
        assert np.logical_xor(drawn, expected).sum() <= 40
    boxes = ConvertOptions(DatasetFormat.YOLO_DETECTION)
    compile_source(tmp_path / "c.json", tmp_path / "box", ImportOptions(), boxes, nothing)
    lines = (tmp_path / "box/labels/all/ü.txt").read_text().splitlines()
    first = [float(number) for number in lines[0].split()]
    assert first == pytest.approx([0, 15 / 60, 15 / 40, 20 / 60, 20 / 40], abs=1e-5)
    clipped = [float(number) for number in lines[2].split()]
    assert clipped == pytest.approx([1, 55 / 60, 6 / 40, 10 / 60, 8 / 40], abs=1e-5)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(coco_files(), st.data())
def test_boxes_in_columns_are_the_boxes_row_by_row(coco: dict[str, Any], data: st.DataObject) -> None:
    """Also where something is wrong: the same labels, the same sums, the same ledger."""
    hostile: Any = st.sampled_from([None, True, "1", -1, 1e20, [], {}, [0, 0, 10**400, 1], 10**400])
    for table in ("images", "annotations"):
        if coco[table] and data.draw(st.booleans()):
            item = data.draw(st.sampled_from(coco[table]))
            item[data.draw(st.sampled_from(sorted(item)))] = data.draw(hostile)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder)
        items = list(coco.items())
        told = dict(items[::-1] if data.draw(st.booleans()) else items)
        (root / "c.json").write_text(json.dumps(told))
        patch.setattr(join, "PART_IMAGES", 2)
        patch.setattr(join, "HELD_BYTES", data.draw(st.sampled_from([0, join.HELD_BYTES])))
        columns = boxes_of(root / "c.json", root / "columns")
        patch.setattr(BoxMaker, "batch", lambda *_: None)
        rows = boxes_of(root / "c.json", root / "rows")
        assert columns == rows


def boxes_of(source: Path, out: Path) -> Any:
    """Labels, sums and ledger of a conversion to boxes, or why there is none."""
    options = ConvertOptions(DatasetFormat.YOLO_DETECTION)
    try:
        manifest = compile_source(source, out, ImportOptions(max_quarantined_fraction=1), options, nothing)
    except FinemeshError as error:
        return error.reason, str(error)
    labels = {path.name: path.read_text() for path in (out / "labels").rglob("*.txt")}
    ledger = [(entry.row_id, entry.reason, entry.children) for entry in iter_ledger(out)]
    told = {**manifest.to_json(), "shards": [], "ledger_shards": [], "digest": ""}
    return labels, sorted(ledger), told, (out / "data.yaml").read_text()


def test_results_become_objects_with_scores(tmp_path: Path) -> None:
    coco = {
        "images": [
            {"id": identity, "width": 8, "height": 6, "file_name": name}
            for identity, name in ((4, "a.png"), (5, "b.png"))
        ],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    results = [
        {"image_id": 4, "category_id": 1, "bbox": [1, 1, 4, 3], "score": 0.25},
        {"image_id": 9, "category_id": 1, "bbox": [1, 1, 4, 3], "score": 0.5},
    ]
    source = tmp_path / "source"
    source.mkdir()
    (source / "instances.json").write_text(json.dumps(coco))
    (source / "results.json").write_text(json.dumps(results))
    manifest = import_source(source, tmp_path / "out", ImportOptions(), nothing)
    rows = list(iter_rows(tmp_path / "out", columns=["row_id", "objects"]))
    assert [[(item["bbox"], item["score"]) for item in row["objects"]] for row in rows] == [
        [([1, 1, 4, 3], 0.25)],
        [],
    ]
    assert manifest.ledger.by_reason == {"UNKNOWN_IMAGE": 1}


def test_mask_that_would_change_is_not_shipped(tmp_path: Path) -> None:
    """A writer that puts corners in the wrong place loses its row, and here there is no other."""
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0, 0] = 1
    shape = {"size": [4, 4], "counts": coco_mask.encode(np.asfortranarray(pixels))["counts"].decode()}
    coco = {
        "images": [{"id": 1, "width": 4, "height": 4, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": shape}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(coco))
    import finemesh.data.writers.yolo as module

    allowed = ImportOptions(max_quarantined_fraction=1)
    with pytest.MonkeyPatch.context() as patch:  # a writer that is wrong
        patch.setattr(module, "_share_texts", lambda side: np.array([b"0.90000 "] * (4 * side + 1)))
        options = ConvertOptions(DatasetFormat.YOLO_SEGMENTATION)
        with pytest.raises(Exception, match="MASK_CHANGED"):
            compile_source(tmp_path / "c.json", tmp_path / "out", allowed, options, nothing)
    assert not (tmp_path / "out").exists()


def test_pictures_travel_byte_for_byte(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, format="JPEG")
    (tmp_path / "s/images").mkdir(parents=True)
    (tmp_path / "s/images/a.jpg").write_bytes(buffer.getvalue())
    coco = {
        "images": [{"id": 1, "width": 8, "height": 6, "file_name": "a.jpg"}],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "s/instances.json").write_text(json.dumps(coco))
    options = ConvertOptions(DatasetFormat.YOLO_DETECTION)
    compile_source(tmp_path / "s", tmp_path / "out", ImportOptions(), options, nothing)
    assert (tmp_path / "out/images/all/a.jpg").read_bytes() == buffer.getvalue()
    assert (tmp_path / "out/labels/all/a.txt").read_text() == ""
