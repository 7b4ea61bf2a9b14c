"""Sources of any shape: an import ends in a dataset whose ledger balances, or in an error of ours."""

from __future__ import annotations

import io
import json
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.core.spec.data import AnnotationFormat, ImportOptions
from finemesh.data import import_source, iter_ledger, verify_dataset
from finemesh.data.scenes import SceneOptions, write_scene_archive
from finemesh.data.sources.zips import open_archive
from hypothesis import given, settings
from hypothesis import strategies as st

names = st.lists(
    st.sampled_from(["..", ".", "", "a", "b.json", "/", "\\", "C:", "\0", "é", "x" * 300, " "]),
    min_size=1,
    max_size=5,
).map("/".join)
modes = st.sampled_from([0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFBLK])


@given(st.lists(st.tuples(names, modes, st.binary(max_size=20)), max_size=6))
def test_accepted_names_stay_inside(entries: list[tuple[str, int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for index, (name, mode, data) in enumerate(entries):
                info = zipfile.ZipInfo(f"{index}")
                info.external_attr = mode << 16
                archive.writestr(info, data)
                archive.filelist[-1].filename = name
        try:
            opened, accepted = open_archive(path, ImportOptions())
        except InvalidError as error:
            assert error.reason.startswith("ARCHIVE_")
            return
        opened.close()
        for name, entry in accepted.items():
            target = (Path("/root/inside") / PurePosixPath(name)).resolve()
            assert target.is_relative_to("/root/inside")
            assert target != Path("/root/inside")
            assert stat.S_IFMT(entry.external_attr >> 16) in {0, stat.S_IFREG}


def _archive_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenes.zip"
        write_scene_archive(path, SceneOptions(videos=2, frames=2, seed=1))
        return path.read_bytes()


WHOLE = _archive_bytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_damaged_archive_ends_in_a_dataset_or_in_our_error(damage: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for position, value in damage:
        data[position] = value
    _import(bytes(data), "source.zip")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(WHOLE)))
def test_cut_archive_ends_in_our_error(length: int) -> None:
    _import(WHOLE[:length], "source.zip")


def _import(data: bytes, name: str, options: ImportOptions | None = None) -> str:
    """Import `data`; the reason of the error, or "" for a dataset, which must be whole."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / name, Path(folder) / "out"
        source.write_bytes(data)
        try:
            manifest = import_source(
                source, out, options or ImportOptions(), lambda _fraction, _message: None
            )
        except FinemeshError as error:
            assert not out.exists()
            return error.reason
        verify_dataset(out)
        assert manifest.ledger.check().inputs == sum(1 for _ in iter_ledger(out))
        return ""


keys = st.sampled_from(
    [
        "masklet",
        "masklet_id",
        "video_id",
        "video_width",
        "video_height",
        "video_frame_count",
        "size",
        "counts",
    ]
    + [
        "images",
        "annotations",
        "categories",
        "id",
        "image_id",
        "category_id",
        "bbox",
        "segmentation",
        "width",
    ]
    + ["height", "name", "iscrowd", "area", "file_name"]
)
scalars = (
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=4) | st.just(10**30)
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None)
@given(json_values, st.sampled_from([AnnotationFormat.SAV, AnnotationFormat.COCO, None]))
def test_any_json_ends_in_a_dataset_or_in_our_error(value: object, kind: AnnotationFormat | None) -> None:
    _import(json.dumps(value).encode(), "source.json", ImportOptions(kind))


def _coco() -> dict[str, Any]:
    return {
        "images": [
            {"id": 1, "width": 20, "height": 10, "file_name": "a.jpg"},
            {"id": 2, "width": 8, "height": 8},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [1, 1, 4, 4],
                "segmentation": [[1, 1, 5, 1, 5, 5]],
            },
            {"id": 2, "image_id": 2, "category_id": 1, "segmentation": {"size": [8, 8], "counts": [4, 60]}},
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }


def _sav() -> dict[str, Any]:
    mask = {"size": [10, 20], "counts": [50, 100, 50]}
    return {
        "video_id": "v",
        "video_width": 20.0,
        "video_height": 10,
        "video_frame_count": 8,
        "masklet_id": [0, 1],
        "masklet": [[mask, mask], [mask, mask]],
    }


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, item in items for deeper in _paths(item, (*path, key)))]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_sound_json_with_one_strange_value(data: st.DataObject) -> None:
    value = data.draw(st.sampled_from([_coco, _sav]))()
    path = data.draw(st.sampled_from(_paths(value)[1:]))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(json_values)
    _import(json.dumps(value).encode(), "source.json")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([_coco, _sav]))
def test_cut_json_is_malformed_at_a_byte(position: int, make: Any) -> None:
    raw = json.dumps(make()).encode()
    kind = AnnotationFormat.COCO if make is _coco else AnnotationFormat.SAV
    cut = raw[: position % len(raw)]
    if cut:
        assert _import(cut, "source.json", ImportOptions(kind)) in {"MALFORMED_JSON", "EMPTY_DATASET"}


def test_the_sources_that_are_varied_here_are_sound() -> None:
    assert _import(WHOLE, "source.zip") == ""
    for make in (_coco, _sav):
        assert _import(json.dumps(make()).encode(), "source.json") == ""
    assert zipfile.is_zipfile(io.BytesIO(WHOLE))
