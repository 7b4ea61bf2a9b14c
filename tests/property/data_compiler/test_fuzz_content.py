"""Files made to do harm, in every format: nested without end, numbers without end, pictures that claim to be
huge. An import ends in a dataset or in an error of ours, soon, and in little memory.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from finemesh.core.errors import FinemeshError
from finemesh.core.spec.data import AnnotationFormat, DatasetManifest, ImportOptions
from finemesh.data import import_source, verify_dataset
from finemesh.data.readers import READERS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

LIMITS: Final = ImportOptions(max_total_bytes=64 << 20, max_files=50, max_quarantined_fraction=1)
SLOW: Final = timedelta(seconds=8)

# Texts of JSON values, each of which has brought some parser down.
HOSTILE: Final = {
    "nested lists": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested, open": b'[{"a":' * 100_000,
    "digits": b"9" * 5_000,
    "fewer digits": b"9" * 4_000,
    "beyond 64 bits": b"9223372036854775808",
    "below 64 bits": b"-9223372036854775809",
    "digits below one": b"0." + b"1" * 5_000,
    "exponent": b"1e999999",
    "long text": b'"' + b"x" * (8 << 20) + b'"',
    "long text, open": b'"' + b"x" * (1 << 20),
    "escapes": b'"' + b"\\u0000\\ud800" * 400 + b'"',
    "not a number": b"NaN",
    "infinite": b"-Infinity",
    "many zeros": b"[" + b"0," * 500_000 + b"0]",
    "not UTF-8": b'"\xff\xfe"',
    "same keys": b"{" + b'"a":1,' * 50_000 + b'"a":1}',
}  # fmt: skip

MASK: Final = {"size": [10, 20], "counts": [50, 100, 50]}
SOUND: Final[dict[AnnotationFormat, dict[str, Any]]] = {
    AnnotationFormat.COCO: {
        "images": [{"id": 1, "width": 20, "height": 10, "file_name": "a.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "segmentation": MASK}
        ],
        "categories": [{"id": 1, "name": "cat"}],
    },
    AnnotationFormat.SAV: {
        "video_id": "v",
        "video_width": 20.0,
        "video_height": 10,
        "video_frame_count": 4,
        "masklet_id": [0],
        "masklet": [[MASK]],
    },
}
ROWS: Final = (
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "image": "a.png"},
    {"instruction": "a", "input": "b", "output": "c"},
    {"prompt": "a", "completion": "b"},
    {"prompt": "a", "chosen": "b", "rejected": "c"},
    {"text": "a"},
)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says it is so large, whatever follows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def outcome(files: Mapping[str, bytes], kind: AnnotationFormat | None) -> DatasetManifest | str:
    """The dataset that files in a folder become, which must be whole; or the reason why not."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        for name, data in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        options = ImportOptions(kind, max_total_bytes=LIMITS.max_total_bytes, max_quarantined_fraction=1)
        try:
            manifest = import_source(source, out, options, lambda _fraction, _message: None)
        except FinemeshError as error:
            assert not out.exists()
            return error.reason
        verify_dataset(out)
        manifest.ledger.check()
        return manifest


def planted(value: dict[str, Any], path: tuple[Any, ...], hostile: bytes) -> bytes:
    """The JSON of `value` with the text `hostile` at `path`."""
    copy = json.loads(json.dumps(value))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = "@here@"
    return json.dumps(copy).encode().replace(b'"@here@"', hostile)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [
        *([path] if path else []),
        *(deeper for key, item in items for deeper in paths(item, (*path, key))),
    ]


hostile_cases = st.sampled_from(list(HOSTILE))


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_json_alone(case: str, suffix: str) -> None:
    assert isinstance(outcome({f"a{suffix}": HOSTILE[case]}, None), str)


@settings(max_examples=40, deadline=SLOW)
@given(st.data(), st.sampled_from(list(SOUND)), hostile_cases)
def test_hostile_value_in_annotations(data: st.DataObject, kind: AnnotationFormat, case: str) -> None:
    path = data.draw(st.sampled_from(paths(SOUND[kind])))
    outcome({"a.json": planted(SOUND[kind], path, HOSTILE[case])}, data.draw(st.sampled_from([kind, None])))


@settings(max_examples=40, deadline=SLOW)
@given(st.data(), st.sampled_from(ROWS), hostile_cases, st.booleans())
def test_hostile_value_in_a_row(data: st.DataObject, row: dict[str, Any], case: str, lines: bool) -> None:
    bad = planted(row, data.draw(st.sampled_from(paths(row))), HOSTILE[case])
    good = json.dumps(row).encode()
    files = {"a.jsonl": b"\n".join([good, bad, good])} if lines else {"a.json": b"[%b,%b]" % (good, bad)}
    outcome(files, None)


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
@settings(max_examples=30, deadline=SLOW)
@given(files=st.dictionaries(file_names, file_contents, min_size=1, max_size=4), named=st.booleans())
def test_any_files_in_every_format(kind: AnnotationFormat, files: dict[str, bytes], named: bool) -> None:
    outcome(files, kind if named else None)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "metadata.jsonl"])
def test_hostile_json_in_every_format(kind: AnnotationFormat, name: str) -> None:
    for case in ("nested lists", "nested, open", "digits", "same keys"):
        assert isinstance(outcome({name: HOSTILE[case]}, kind), str)


def picture(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


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


def test_what_is_varied_here_is_sound() -> None:
    for kind, value in SOUND.items():
        files = {"a.json": json.dumps(value).encode(), "a.png": picture(20, 10)}
        assert isinstance(outcome(files, kind), DatasetManifest)
    assert zipfile.is_zipfile(io.BytesIO(b"PK\x05\x06" + bytes(18)))


@pytest.mark.parametrize("field", ["id", "file_name"])
def test_half_a_character_costs_its_row_only(field: str) -> None:
    coco = json.loads(json.dumps(SOUND[AnnotationFormat.COCO]))
    coco["images"].append(
        {"id": 2, "width": 20, "height": 10, "file_name": "b\ud83d.png"} | {field: "\ud83d"}
    )
    made = outcome({"a.json": json.dumps(coco).encode()}, None)
    assert isinstance(made, DatasetManifest)
    assert made.ledger.by_reason == {"TEXT_INVALID": 1}
