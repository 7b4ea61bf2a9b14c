"""Importing: real samples, what is quarantined, what ends an import, and that nothing half-made stays."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.errors import AlreadyExistsError, InvalidError, NotFoundError, PreconditionError
from finemesh.core.spec.data import AnnotationFormat, ImportOptions
from finemesh.core.spec.ledger import Disposition
from finemesh.data import Progress, import_source, iter_ledger, iter_rows, load_manifest
from PIL import Image

Edit = Callable[[dict[str, Any]], Path]
ANNOTATIONS = "annotations/scene_0001.json"
FRAME = "frames/scene_0001/00001.jpg"

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(("kind", "objects"), [("manual", 5), ("auto", 9)])
def test_sav_masks_agree_with_the_areas_that_sav_states(
    kind: str, objects: int, samples: Path, tmp_path: Path, silent: Progress
) -> None:
    """masklet_size_abs is the mean area over the frames in which the object is visible."""
    source = samples / f"sav/sav_000001_{kind}.json"
    manifest = import_source(source, tmp_path / "out", ImportOptions(), silent)
    stated = json.loads(source.read_text())["masklet_size_abs"]
    areas: dict[str, list[float]] = {str(index): [] for index in range(objects)}
    for row in iter_rows(tmp_path / "out", columns=["objects"]):
        for item in row["objects"]:
            assert item["visible"] == (item["area"] > 0)
            if item["visible"]:
                areas[item["object_id"]].append(item["area"])
    means = [sum(areas[str(index)]) / len(areas[str(index)]) for index in range(objects)]
    assert means == pytest.approx(stated, rel=1e-4)
    assert (manifest.rows, manifest.videos, manifest.media) == (121, 1, {"rendered": 121})
    assert not manifest.has_class_names
    assert manifest.warnings == (
        "video missing: frames rendered from masks",
        "no class names, so class accuracy cannot be computed",
    )


def test_rendered_frames_show_each_object_in_its_colour(
    samples: Path, tmp_path: Path, silent: Progress
) -> None:
    import numpy as np
    from pycocotools import mask as coco_mask

    import_source(samples / "sav/sav_000001_manual.json", tmp_path / "out", ImportOptions(), silent)
    rows = [row for row in iter_rows(tmp_path / "out") if row["frame_index"] in {0, 60}]
    colours: list[Any] = []
    for row in rows:
        with Image.open(io.BytesIO(row["images"][0]["data"])) as image:
            pixels = np.asarray(image, dtype=np.float64)
        largest = next(item for item in row["objects"] if item["object_id"] == "1")
        mask: Any = {"size": list(pixels.shape[:2]), "counts": largest["rle_counts"]}
        inside = coco_mask.decode(mask) > 0
        colours.append(pixels[inside].mean(axis=0))
        assert np.abs(pixels[inside].mean(axis=0) - pixels[~inside].mean(axis=0)).max() > 60
    assert np.abs(colours[0] - colours[1]).max() < 25


def test_coco_sample_keeps_polygons_runs_and_crowds(samples: Path, tmp_path: Path, silent: Progress) -> None:
    manifest = import_source(samples / "coco_instances", tmp_path / "out", ImportOptions(), silent)
    assert manifest.has_class_names
    assert {item.class_name: item.objects for item in manifest.classes} == {"a": 1, "b": 2}
    rows = {row["row_id"]: row for row in iter_rows(tmp_path / "out")}
    assert sorted(rows) == ["instances_train/5", "instances_val/40"]
    boxed = rows["instances_train/5"]["objects"][0]
    assert (boxed["rle_counts"], boxed["bbox"], boxed["area"]) == (None, [2.0, 2.0, 3.0, 1.0], 3.0)
    polygon, crowd = rows["instances_val/40"]["objects"]
    assert (polygon["area"], polygon["iscrowd"]) == (2.0, False)
    assert (crowd["area"], crowd["iscrowd"]) == (20.0, True)
    assert rows["instances_val/40"]["images"][0]["media"] == "image"
    assert (
        rows["instances_val/40"]["images"][0]["data"]
        == (samples / "coco_instances/images/val/b.jpg").read_bytes()
    )


def test_frames_come_from_the_video(samples: Path, tmp_path: Path, silent: Progress) -> None:
    """A SA-V file next to a real mp4: annotated frame k is frame 4k of the video, as PyAV decodes it."""
    import av

    source = tmp_path / "source"
    source.mkdir()
    (source / "dog.mp4").symlink_to("video/dog.mp4")
    (source / "video").mkdir()
    (source / "video/dog.mp4").write_bytes((samples / "video/01_dog.mp4").read_bytes())
    with av.open(str(samples / "video/01_dog.mp4")) as container:
        frames = [
            frame.to_ndarray(format="rgb24")
            for frame, _ in zip(container.decode(video=0), range(9), strict=False)
        ]
    height, width, _ = frames[0].shape
    empty = {"size": [height, width], "counts": [height * width]}
    annotations = {
        "video_id": "dog",
        "video_height": float(height),
        "video_width": width,
        "video_frame_count": 12.0,
        "masklet_id": [0],
        "masklet": [[empty]] * 3,
    }
    (source / "dog.json").write_text(json.dumps(annotations))
    manifest = import_source(source, tmp_path / "out", ImportOptions(), silent)
    assert manifest.media == {"frame": 3}
    for row in iter_rows(tmp_path / "out"):
        with Image.open(io.BytesIO(row["images"][0]["data"])) as image:
            difference = abs(_array(image) - frames[4 * (row["frame_index"] or 0)].astype(float)).mean()
        assert difference < 3, "JPEG alone changes a frame less than that"


def _array(image: Image.Image) -> Any:
    import numpy as np

    return np.asarray(image.convert("RGB"), dtype=float)


def test_video_that_ends_early_costs_the_missing_frames(
    samples: Path, tmp_path: Path, silent: Progress
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "dog.mp4").write_bytes((samples / "video/01_dog.mp4").read_bytes())
    frames = _frames_of(source / "dog.mp4")
    height, width = frames[1:]
    empty = {"size": [height, width], "counts": [height * width]}
    stream = [
        {"frame_index": index, "results": [{"object_id": 7, "mask": empty}]}
        for index in (0, 1, frames[0] + 5)
    ]
    (source / "dog.jsonl").write_text("\n".join(json.dumps(frame) for frame in stream))
    video = {"video_id": "dog", "width": width, "height": height, "masklets": "dog.jsonl", "video": "dog.mp4"}
    manifest = {"format": "finemesh.sam2-export", "version": 1, "videos": [video]}
    (source / "manifest.json").write_text(json.dumps(manifest))
    imported = import_source(source, tmp_path / "out", ImportOptions(), silent)
    assert (imported.rows, imported.ledger.by_reason) == (2, {"FRAME_MISSING": 1})


def _frames_of(path: Path) -> tuple[int, int, int]:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sum(1 for _ in container.decode(stream)), stream.height, stream.width


def test_generated_archive_imports_whole(imported: Path) -> None:
    manifest = load_manifest(imported)
    assert (manifest.rows, manifest.videos, manifest.media) == (24, 8, {"frame": 24})
    assert manifest.has_class_names
    assert manifest.ledger.check().kept == 24
    assert not manifest.warnings


def test_same_source_gives_the_same_digest(
    archive: Path, imported: Path, tmp_path: Path, silent: Progress
) -> None:
    again = import_source(archive, tmp_path / "out", ImportOptions(), silent)
    assert again.digest == load_manifest(imported).digest
    assert import_source(archive, tmp_path / "other", ImportOptions(seed=1), silent).digest != again.digest


def _wrong_size(value: dict[str, Any]) -> dict[str, Any]:
    value["masklet"][1][0] = {"size": [10, 10], "counts": [100]}
    return value


def _wrong_sum(value: dict[str, Any]) -> dict[str, Any]:
    value["masklet"][1][0]["counts"] = [5, 5]
    return value


def _garbage(value: dict[str, Any]) -> dict[str, Any]:
    value["masklet"][1][0]["counts"] = "\u00e9~~~"
    return value


def _null(value: dict[str, Any]) -> dict[str, Any]:
    value["masklet"][1][0] = None
    return value


def _one_short(value: dict[str, Any]) -> dict[str, Any]:
    value["masklet"][1].pop()
    return value


def _same_ids(value: dict[str, Any]) -> dict[str, Any]:
    value["masklet_id"][1] = value["masklet_id"][0]
    return value


def _png(size: tuple[int, int], name: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, name)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changes", "reason", "field", "rows"),
    [
        pytest.param(
            {ANNOTATIONS: _wrong_size}, "MASK_SIZE_MISMATCH", "masklet[1][0].size", 1, id="mask size"
        ),
        pytest.param({ANNOTATIONS: _wrong_sum}, "RLE_INVALID", "masklet[1][0].counts", 1, id="sum of runs"),
        pytest.param({ANNOTATIONS: _garbage}, "RLE_INVALID", "masklet[1][0].counts", 1, id="garbage runs"),
        pytest.param({ANNOTATIONS: _null}, "RLE_INVALID", "masklet[1][0]", 1, id="null mask"),
        pytest.param({ANNOTATIONS: _one_short}, "MASK_COUNT_MISMATCH", "masklet[1]", 1, id="mask missing"),
        pytest.param(
            {ANNOTATIONS: _same_ids}, "DUPLICATE_OBJECT_ID", "objects[1].object_id", 3, id="one id twice"
        ),
        pytest.param({FRAME: b"not a picture"}, "IMAGE_FORMAT_UNSUPPORTED", "image", 1, id="no picture"),
        pytest.param({FRAME: _png((320, 240))[:60]}, "IMAGE_UNREADABLE", "image", 1, id="cut picture"),
        pytest.param(
            {FRAME: _png((64, 48))}, "MASK_SIZE_MISMATCH", "masklet[1][0].size", 1, id="picture size"
        ),
        pytest.param({FRAME: _png((9000, 9000))}, "IMAGE_TOO_LARGE", "image", 1, id="image bomb"),
        pytest.param(
            {FRAME: _png((320, 240), "BMP")}, "IMAGE_FORMAT_UNSUPPORTED", "image", 1, id="picture kind"
        ),
        pytest.param({FRAME: None}, "FRAME_MISSING", "image", 1, id="frame missing"),
    ],
)
def test_faulty_row_is_quarantined_and_the_import_goes_on(
    changes: dict[str, Any],
    reason: str,
    field: str,
    rows: int,
    edited: Edit,
    tmp_path: Path,
    silent: Progress,
) -> None:
    manifest = import_source(edited(changes), tmp_path / "out", ImportOptions(), silent)
    assert manifest.ledger.by_reason == {reason: rows}
    assert manifest.ledger.check().kept == 24 - rows
    entries = [item for item in iter_ledger(tmp_path / "out") if item.disposition is Disposition.QUARANTINED]
    assert {(entry.reason, entry.field) for entry in entries} == {(reason, field)}
    assert f"{rows} of 24 rows quarantined: {rows} x {reason}" in manifest.warnings


@pytest.mark.parametrize(
    ("class_name", "reason"),
    [("", "EMPTY_CLASS_NAME"), ("  ", "EMPTY_CLASS_NAME"), ("pear", "UNKNOWN_CLASS")],
)
def test_class_name_that_says_nothing_quarantines(
    class_name: str, reason: str, edited: Edit, tmp_path: Path, silent: Progress
) -> None:
    def rename(manifest: dict[str, Any]) -> dict[str, Any]:
        manifest["videos"][1]["objects"]["0"] = class_name
        return manifest

    manifest = import_source(edited({"manifest.json": rename}), tmp_path / "out", ImportOptions(), silent)
    assert manifest.ledger.by_reason == {reason: 3}


def _without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda value: {name: item for name, item in value.items() if name != key}


@pytest.mark.parametrize(
    ("changes", "reason", "where"),
    [
        pytest.param({ANNOTATIONS: b'{"masklet": [[{"si'}, "MALFORMED_JSON", {"byte": "15"}, id="cut JSON"),
        pytest.param({ANNOTATIONS: b'{"a": \xff}'}, "MALFORMED_JSON", {"byte": "6"}, id="not UTF-8"),
        pytest.param({ANNOTATIONS: b"[" * 200_000}, "MALFORMED_JSON", {}, id="deep JSON"),
        pytest.param({ANNOTATIONS: b"9" * 5000}, "MALFORMED_JSON", {}, id="huge number"),
        pytest.param({ANNOTATIONS: b"3"}, "MALFORMED_ANNOTATIONS", {"field": "the top"}, id="no object"),
        pytest.param(
            {ANNOTATIONS: _without("masklet")},
            "MALFORMED_ANNOTATIONS",
            {"field": "masklet"},
            id="no masklets",
        ),
        pytest.param(
            {ANNOTATIONS: _without("video_width")},
            "MALFORMED_ANNOTATIONS",
            {"field": "video_width"},
            id="no width",
        ),
        pytest.param(
            {ANNOTATIONS: None}, "MALFORMED_ANNOTATIONS", {"field": "videos[1].masklets"}, id="file missing"
        ),
        pytest.param(
            {"manifest.json": lambda value: value | {"version": 9}},
            "MALFORMED_ANNOTATIONS",
            {"field": "version"},
            id="later version",
        ),
    ],
)
def test_faulty_container_ends_the_import_and_leaves_nothing(
    changes: dict[str, Any],
    reason: str,
    where: dict[str, str],
    edited: Edit,
    tmp_path: Path,
    silent: Progress,
) -> None:
    with pytest.raises(InvalidError) as error:
        import_source(edited(changes), tmp_path / "out", ImportOptions(), silent)
    assert error.value.reason == reason
    assert where.items() <= error.value.metadata.items()
    assert error.value.metadata["file"] in error.value.message
    assert not (tmp_path / "out").exists()


def test_too_many_faulty_rows_end_the_import(edited: Edit, tmp_path: Path, silent: Progress) -> None:
    path = edited({ANNOTATIONS: _wrong_size})
    with pytest.raises(InvalidError) as error:
        import_source(path, tmp_path / "out", ImportOptions(max_quarantined_fraction=0.01), silent)
    assert (error.value.reason, error.value.metadata) == ("TOO_MANY_QUARANTINED", {"MASK_SIZE_MISMATCH": "1"})
    assert "the mask is 10 x 10" in error.value.message.partition("The first: ")[2]
    assert not (tmp_path / "out").exists()


def test_source_without_any_row_is_no_dataset(tmp_path: Path, silent: Progress) -> None:
    source = tmp_path / "none.json"
    source.write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(PreconditionError) as error:
        import_source(source, tmp_path / "out", ImportOptions(), silent)
    assert error.value.reason == "EMPTY_DATASET"


def test_a_form_that_no_file_has_is_named(edited: Edit, tmp_path: Path, silent: Progress) -> None:
    with pytest.raises(PreconditionError, match=r"YOLO with data\.yaml") as error:
        import_source(edited({}), tmp_path / "out", ImportOptions(AnnotationFormat.YOLO), silent)
    assert error.value.reason == "EMPTY_DATASET"


def test_a_canonical_dataset_is_no_source(imported: Path, tmp_path: Path, silent: Progress) -> None:
    with pytest.raises(InvalidError, match="canonical form") as error:
        import_source(imported, tmp_path / "out", ImportOptions(), silent)
    assert error.value.reason == "UNSUPPORTED_SOURCE"


def test_coco_beside_sa1b_is_not_passed_over(tmp_path: Path, silent: Progress) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "in/sa_1.json").write_text('{"image": {}, "annotations": []}')
    with pytest.raises(InvalidError, match=r"coco\.json.*sa_1\.json") as error:
        import_source(tmp_path / "in", tmp_path / "out", ImportOptions(), silent)
    assert error.value.reason == "AMBIGUOUS_FORMAT"


def test_unknown_sources_are_named(samples: Path, tmp_path: Path, silent: Progress) -> None:
    with pytest.raises(NotFoundError):
        import_source(tmp_path / "nothing.zip", tmp_path / "out", ImportOptions(), silent)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/model.bin").write_bytes(b"\0" * 16)
    with pytest.raises(InvalidError) as error:
        import_source(tmp_path / "weights", tmp_path / "out", ImportOptions(), silent)
    assert error.value.reason == "UNKNOWN_FORMAT"
    with pytest.raises(InvalidError) as error:
        import_source(samples / "frames/truck.jpg", tmp_path / "out", ImportOptions(), silent)
    assert error.value.reason == "UNSUPPORTED_SOURCE"


def test_two_formats_in_one_source_must_be_told_apart(
    samples: Path, tmp_path: Path, silent: Progress
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("sav/sav_000001_auto.json", "coco_instances/annotations/instances_val.json"):
        (source / Path(name).name).write_bytes((samples / name).read_bytes())
    with pytest.raises(InvalidError) as error:
        import_source(source, tmp_path / "out", ImportOptions(), silent)
    assert error.value.reason == "AMBIGUOUS_FORMAT"
    manifest = import_source(source, tmp_path / "out", ImportOptions(AnnotationFormat.SAV), silent)
    assert manifest.rows == 121


def test_archive_wrapped_in_a_folder_is_recognised(archive: Path, tmp_path: Path, silent: Progress) -> None:
    path = tmp_path / "wrapped.zip"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(f"export/{name}", old.read(name))
        new.writestr("__MACOSX/export/manifest.json", b"litter")
    assert import_source(path, tmp_path / "out", ImportOptions(), silent).rows == 24


def test_output_is_never_written_over(
    imported: Path, archive: Path, tmp_path: Path, silent: Progress
) -> None:
    with pytest.raises(AlreadyExistsError) as error:
        import_source(archive, imported, ImportOptions(), silent)
    assert error.value.reason == "OUTPUT_NOT_EMPTY"
    assert load_manifest(imported).rows == 24


def test_interrupted_import_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    def interrupt(fraction: float, message: str) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt(message)

    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        import_source(archive, out, ImportOptions(), interrupt)
    assert list(out.iterdir()) == []
    with pytest.raises(NotFoundError):
        load_manifest(out)
