"""Validation finds what was planted, and shows it in JSON, Markdown and HTML."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from finemesh.core.spec.data import (
    ClassCount,
    DatasetFormat,
    DatasetOrigin,
    ValidateOptions,
    ValidationLevel,
    ValidationStatus,
)
from finemesh.data import Progress, iter_rows, validate_dataset
from finemesh.data.rows import make_message, text_part
from finemesh.data.schema import Row
from finemesh.data.validation.classes import check_classes
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter
from PIL import Image

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
    [finding] = [finding for finding in report.findings if finding.id == kind]
    assert finding.row_id == spoilt["row_id"]
    assert finding.evidence
    assert finding.remedy


def _write(rows: list[Row], out: Path) -> None:
    with DatasetWriter(DatasetFormat.CANONICAL, FormContext(out)) as writer:
        for index, row in enumerate(rows):
            writer.take()
            writer.keep(str(index), [row])
        writer.commit(DatasetOrigin.IMPORT, options={})


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


def test_examples_are_capped_but_all_are_counted(imported: Path, tmp_path: Path, silent: Progress) -> None:
    rows = list(iter_rows(imported))
    for row in rows:
        row["images"][0]["sha256"] = "0" * 64
    _write(rows, tmp_path / "out")
    report = validate_dataset(tmp_path / "out", dataclasses.replace(STRICT, max_examples=2), silent)
    assert report.counts["IMAGE_HASH_MISMATCH"] == 24
    assert sum(finding.id == "IMAGE_HASH_MISMATCH" for finding in report.findings) == 2
