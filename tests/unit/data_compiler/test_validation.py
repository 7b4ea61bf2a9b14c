"""Validation finds what was planted, and shows it in JSON, Markdown and HTML."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import (
    ClassCount,
    DatasetFormat,
    DatasetOrigin,
    ValidateOptions,
    ValidationLevel,
    ValidationStatus,
)
from finemesh.data import Progress, iter_rows, validate_dataset
from finemesh.data.rle import compress
from finemesh.data.rows import make_message, text_part
from finemesh.data.schema import Row
from finemesh.data.similarity import shrink
from finemesh.data.validation import pictures
from finemesh.data.validation.classes import check_classes
from finemesh.data.validation.rules import RULES
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

ROOT = Path(__file__).resolve().parents[3]
STRICT = ValidateOptions(level=ValidationLevel.STRICT, min_class_examples=1)


def test_generated_data_passes(divided: Path, conversations: Path, silent: Progress) -> None:
    exact = dataclasses.replace(STRICT, max_similar_bits=0)  # small crops of drawn fruit do look alike
    for dataset in (divided, conversations):
        report = validate_dataset(dataset, exact, silent)
        assert report.status is ValidationStatus.PASSED, report.counts


def _png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


def _huge() -> bytes:
    """The header of a PNG of 16 x 10^8 pixels, and nothing else that matters."""
    data = bytearray(_png((1, 1)))
    data[16:24] = struct.pack(">II", 40_000, 40_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def _say(row: dict[str, Any], *turns: tuple[str, str]) -> None:
    row["messages"] = [make_message(role, [text_part(text)]) for role, text in turns]


def _object(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda row: row["objects"][0].update(changes)


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda row: row["images"][0].update(data=b"nothing"), "IMAGE_UNREADABLE"),
        (lambda row: row["images"][0].update(data=row["images"][0]["data"][:-3000]), "IMAGE_TRUNCATED"),
        (lambda row: row["images"][0].update(sha256="0" * 64), "IMAGE_HASH_MISMATCH"),
        (lambda row: row["images"][0].update(width=320, height=20), "ASPECT_RATIO"),
        (lambda row: row["images"][0].update(data=_png((32, 24))), "IMAGE_SIZE_MISMATCH"),
        (_object(rle_counts="1 1"), "RLE_INVALID"),
        (_object(rle_counts="11"), "MASK_SIZE_MISMATCH"),
        (lambda row: row["images"][0].update(data=b""), "IMAGE_MISSING"),
        (lambda row: row.update(images=[]), "IMAGE_MISSING"),
        (lambda row: row["images"][0].update(width=1 << 20, height=1 << 20), "IMAGE_TOO_LARGE"),
        (lambda row: row["images"][0].update(data=_huge()), "IMAGE_TOO_LARGE"),
        (lambda row: row["images"][0].update(format="WEBP"), "IMAGE_FORMAT_MISMATCH"),
        (lambda row: row["images"][0].update(data=_png((320, 240))), "IMAGE_BLANK"),
        (_object(rle_counts=compress(np.array([320 * 240]))), "MASK_EMPTY"),
        (_object(bbox=[5.0, 5.0, 0.0, 9.0]), "BOX_EMPTY"),
        (lambda row: row["objects"].append(dict(row["objects"][0])), "DUPLICATE_OBJECT_ID"),
        (_object(bbox=[float("inf"), 0, 1, 1]), "BOX_INVALID"),
        (_object(bbox=[300.0, 0.0, 90.0, 10.0]), "BOX_OUTSIDE"),
        (_object(bbox=[0.0, 0.0, 1.0, 1.0]), "BOX_MASK_DISAGREE"),
        (lambda row: row["objects"].append(row["objects"][0] | {"object_id": "again"}), "DUPLICATE_OBJECT"),
        (lambda row: _say(row, ("assistant", "plum"), ("user", "what?")), "ROLE_ORDER"),
        (lambda row: _say(row, ("user", "what?"), ("assistant", " ")), "EMPTY_TURN"),
        (lambda row: _say(row, ("user", "what?"), ("assistant", "plum")), "PLACEHOLDER_MISMATCH"),
        (lambda row: _say(row, ("user", "what\ufffd"), ("assistant", "plum")), "SUSPICIOUS_ENCODING"),
    ],
)
def test_planted_fault_is_found(
    plant: Callable[[dict[str, Any]], None], kind: str, imported: Path, tmp_path: Path, silent: Progress
) -> None:
    rows = list(iter_rows(imported))
    spoilt = next(row for row in rows if row["objects"][0]["visible"])
    plant(cast("dict[str, Any]", spoilt))
    _write(rows, tmp_path / "out")
    report = validate_dataset(tmp_path / "out", STRICT, silent)
    assert kind in report.counts
    finding = next(finding for finding in report.findings if finding.id == kind)
    assert finding.row_id == spoilt["row_id"]
    assert finding.evidence
    assert finding.remedy


def _write(rows: list[Row], out: Path, header: dict[str, Any] | None = None) -> None:
    with DatasetWriter(DatasetFormat.CANONICAL, FormContext(out)) as writer:
        for index, row in enumerate(rows):
            writer.take()
            writer.keep(str(index), [row])
        writer.commit(DatasetOrigin.IMPORT, options={}, header=header)


def test_leaking_split_fails(divided: Path, tmp_path: Path, silent: Progress) -> None:
    rows = list(iter_rows(divided))
    leaked = next(row for row in rows if row["split"] == "train")
    rows.append({**leaked, "row_id": "copy", "split": "test"})
    rows.append({**leaked, "row_id": "copy", "split": "test"})
    _write(rows, tmp_path / "out")
    report = validate_dataset(tmp_path / "out", STRICT, silent)
    assert report.status is ValidationStatus.FAILED
    assert {"IMAGE_LEAKAGE", "VIDEO_LEAKAGE", "DUPLICATE_IMAGE", "DUPLICATE_ROW_ID"} <= report.counts.keys()


def test_damaged_file_fails(imported: Path, tmp_path: Path, silent: Progress) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(imported, copy)
    (copy / "ledger/part-00000.parquet").unlink()
    report = validate_dataset(copy, STRICT, silent)
    assert report.status is ValidationStatus.FAILED
    assert report.counts == {"CHECKSUM_MISMATCH": 1}


def test_classes_that_are_rare_unbalanced_or_never_trained() -> None:
    classes = [
        ClassCount("many", 500, 500, {"train": 400, "test": 100}),
        ClassCount("few", 3, 3, {"test": 3}),
    ]
    found = {kind: field for kind, field, _ in check_classes(classes, ValidateOptions())}
    assert found == {"CLASS_RARE": "few", "CLASS_NOT_TRAINED": "few", "CLASS_IMBALANCE": "classes"}


def test_long_tail_and_names_that_differ_in_spelling() -> None:
    counts = {"cat": 900, "dog": 800, "Cow": 9, "cow ": 8, "owl": 7, "bee": 6}
    classes = [ClassCount(name, count, count) for name, count in counts.items()]
    options = ValidateOptions(min_class_examples=0, max_imbalance=1000)
    found = {kind: evidence for kind, _, evidence in check_classes(classes, options)}
    assert found == {
        "CLASS_LONG_TAIL": "the rarer 3 of 6 classes hold 1.2% of the objects",
        "CLASS_NAMES_ALIKE": "'Cow', 'cow '",
    }
    assert not list(check_classes(classes[:1], options))


def test_classes_against_the_list_of_the_source(imported: Path, tmp_path: Path, silent: Progress) -> None:
    rows = list(iter_rows(imported))
    names = {item["class_name"] for row in rows for item in row["objects"]}
    listed = [
        {"id": 1, "name": "unicorn"},
        *({"id": 2, "name": name} for name in sorted(map(str, names))[1:]),
    ]
    header = {"coco": {"a.json": {"categories": listed}}, "yolo": {"b.yaml": {"names": {"0": "griffin"}}}}
    _write(rows, tmp_path / "out", header)
    report = validate_dataset(tmp_path / "out", ValidateOptions(min_rows=25), silent)
    fields = {(finding.id, finding.field) for finding in report.findings}
    assert {("CLASS_UNKNOWN", min(map(str, names))), ("CLASS_UNUSED", "unicorn")} <= fields
    assert {("CLASS_UNUSED", "griffin"), ("TOO_FEW_ROWS", "rows")} <= fields


def test_look_alikes_across_splits_leak(divided: Path, tmp_path: Path, silent: Progress) -> None:
    rows = list(iter_rows(divided))
    original = next(row for row in rows if row["split"] == "train")
    buffer = io.BytesIO()
    Image.open(io.BytesIO(original["images"][0]["data"])).save(buffer, "JPEG", quality=60)
    data = buffer.getvalue()
    image: Any = {**original["images"][0], "data": data, "sha256": hashlib.sha256(data).hexdigest()}
    changes: Any = {"row_id": "copy", "split": "test", "video_id": None, "images": [image]}
    _write([*rows, cast("Row", {**original, **changes})], tmp_path / "out")
    basic = validate_dataset(tmp_path / "out", ValidateOptions(), silent)
    assert "NEAR_LEAKAGE" not in basic.counts
    assert basic.measures.near_pairs is None
    strict = validate_dataset(tmp_path / "out", STRICT, silent)
    assert {"NEAR_LEAKAGE", "NEAR_DUPLICATE_IMAGE"} <= strict.counts.keys()
    assert "IMAGE_LEAKAGE" not in strict.counts
    [twin] = [finding for finding in strict.findings if finding.row_id == "copy" and "NEAR" in finding.id]
    assert original["row_id"] in twin.evidence


def test_a_picture_of_several_conversations_is_decoded_once(
    conversations: Path, tmp_path: Path, silent: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = list(iter_rows(conversations))
    again = [cast("Row", {**row, "row_id": f"{row['row_id']} again"}) for row in rows]
    spoilt: Any = {**rows[0], "row_id": "other", "images": [{**rows[0]["images"][0], "data": b"other"}]}
    _write([*rows, *again, spoilt], tmp_path / "out")
    decoded: list[bytes] = []
    monkeypatch.setattr(pictures, "shrink", lambda data: decoded.append(data) or shrink(data))
    report = validate_dataset(tmp_path / "out", STRICT, silent)
    distinct = {image["sha256"] for row in rows for image in row["images"]}
    assert len(distinct) <= len(decoded) < 1.5 * len(distinct), "threads may meet at one picture"
    assert [finding.row_id for finding in report.findings if finding.id == "IMAGE_HASH_MISMATCH"] == ["other"]


def test_classes_of_whole_rows_count_where_there_are_no_objects(
    imported: Path, tmp_path: Path, silent: Progress
) -> None:
    rows = [cast("Row", {**row, "objects": [], "class_name": "cat"}) for row in iter_rows(imported)]
    rows[0]["class_name"] = "dog"
    _write(rows, tmp_path / "out")
    report = validate_dataset(tmp_path / "out", ValidateOptions(), silent)
    assert {(item.class_name, item.objects) for item in report.classes} == {("cat", 23), ("dog", 1)}
    assert {"CLASS_RARE", "CLASS_IMBALANCE"} <= report.counts.keys()
    assert "NO_CLASS_NAMES" not in report.counts


def test_token_lengths_and_what_would_be_cut(conversations: Path, tmp_path: Path, silent: Progress) -> None:
    words = Tokenizer(WordLevel({"?": 0, "user": 1}, unk_token="?"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    spoken = [" ".join(_turns(row)).split() for row in iter_rows(conversations)]
    limit = sorted(map(len, spoken))[len(spoken) // 2]
    options = ValidateOptions(tokenizer=str(tmp_path), max_tokens=limit)
    report = validate_dataset(conversations, options, silent)
    tokens = report.measures.tokens
    assert tokens is not None
    assert (tokens.rows, tokens.longest) == (len(spoken), max(map(len, spoken)))
    assert tokens.rows_cut == report.counts.get("TOKENS_TRUNCATED", 0) == sum(len(s) > limit for s in spoken)
    assert tokens.tokens_cut == sum(max(len(s) - limit, 0) for s in spoken)
    assert tokens.lengths.total == len(spoken)
    with pytest.raises(InvalidError) as error:
        validate_dataset(conversations, ValidateOptions(tokenizer=str(tmp_path / "none")), silent)
    assert error.value.reason == "TOKENIZER_UNAVAILABLE"


def _turns(row: Row) -> list[str]:
    return [
        f"{turn['role']} " + "".join(part["text"] for part in turn["content"]) for turn in row["messages"]
    ]


def test_a_look_does_not_load_pandas(imported: Path) -> None:
    """Pyarrow would, unasked, which takes longer than all the rest of a small validation."""
    script = f"""
import sys
from pathlib import Path
from finemesh.core.spec.data import ValidateOptions
from finemesh.data import validate_dataset
validate_dataset(Path({str(imported)!r}), ValidateOptions(), lambda fraction, message: None)
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_kind_is_documented() -> None:
    page = (ROOT / "docs/reference/validation.md").read_text()
    for kind, rule in RULES.items():
        assert f"| {kind} | {rule.severity.value} | {rule.title} | {rule.remedy} |" in page


def test_examples_are_capped_but_all_are_counted(imported: Path, tmp_path: Path, silent: Progress) -> None:
    rows = list(iter_rows(imported))
    for row in rows:
        row["images"][0]["sha256"] = "0" * 64
    _write(rows, tmp_path / "out")
    report = validate_dataset(tmp_path / "out", dataclasses.replace(STRICT, max_examples=2), silent)
    assert report.counts["IMAGE_HASH_MISMATCH"] == 24
    assert sum(finding.id == "IMAGE_HASH_MISMATCH" for finding in report.findings) == 2
