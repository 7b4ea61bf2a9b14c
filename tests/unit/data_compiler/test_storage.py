"""Datasets on disk: shards, checksums, manifests, and the ledger that must balance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from finemesh.core.errors import InvalidError, NotFoundError, PreconditionError
from finemesh.core.spec.data import (
    ConvertOptions,
    DatasetFormat,
    DatasetManifest,
    DatasetOrigin,
    ImportOptions,
    SplitOptions,
    ValidateOptions,
)
from finemesh.core.spec.ledger import Disposition, LedgerEntry, LedgerSummary
from finemesh.data import iter_rows, load_manifest, verify_dataset
from finemesh.data.faults import RowFault
from finemesh.data.schema import ROW_SCHEMA
from finemesh.data.storage import ParquetShards
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter


def test_manifest_survives_json(imported: Path) -> None:
    manifest = load_manifest(imported)
    assert DatasetManifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_shards_have_the_documented_schema(imported: Path) -> None:
    for shard in load_manifest(imported).shards:
        assert pq.read_schema(imported / shard.path).equals(ROW_SCHEMA)
        assert pq.read_metadata(imported / shard.path).num_rows == shard.rows


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_verify_names_the_file_that_differs(damage: str, imported: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(imported, copy)
    path = copy / "shards/part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(PreconditionError) as error:
        verify_dataset(copy)
    assert (error.value.reason, error.value.metadata) == (
        "CHECKSUM_MISMATCH",
        {"file": "shards/part-00000.parquet"},
    )


def test_folder_without_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"digest": "x"}')
    with pytest.raises(InvalidError) as error:
        load_manifest(tmp_path)
    assert error.value.reason == "MALFORMED_MANIFEST"


def test_rows_roll_over_into_further_shards(imported: Path, tmp_path: Path) -> None:
    shards = ParquetShards(tmp_path, "shards/part-", ROW_SCHEMA, shard_bytes=1)
    batches = list(pq.ParquetFile(imported / "shards/part-00000.parquet").iter_batches(10))
    for batch in batches:
        shards.write(batch)
    described = shards.close()
    assert [shard.path for shard in described] == [f"shards/part-{index:05d}.parquet" for index in range(3)]
    assert [shard.rows for shard in described] == [10, 10, 4]


def test_forgotten_input_is_noticed(imported: Path, tmp_path: Path) -> None:
    row = next(iter_rows(imported))
    with DatasetWriter(DatasetFormat.CANONICAL, FormContext(tmp_path / "out")) as writer:
        writer.take(2)
        writer.keep("a", [row])
        with pytest.raises(PreconditionError) as error:
            writer.commit(DatasetOrigin.IMPORT, options={})
    assert error.value.reason == "LEDGER_UNBALANCED"
    assert not (tmp_path / "out").exists()


def test_input_told_twice_is_noticed(imported: Path, tmp_path: Path) -> None:
    row = next(iter_rows(imported))
    with DatasetWriter(DatasetFormat.CANONICAL, FormContext(tmp_path / "out")) as writer:
        writer.take(1)
        writer.keep("a", [row])
        with pytest.raises(PreconditionError, match="two fates"):
            writer.quarantine("a", RowFault("LATE", "too late"))


def test_summary_of_entries_balances() -> None:
    entries = [
        LedgerEntry("a", Disposition.KEPT, children=("a",)),
        LedgerEntry("b", Disposition.QUARANTINED, "BROKEN"),
        LedgerEntry("c", Disposition.DROPPED, "SMALL"),
    ]
    summary = LedgerSummary.of(3, entries).check()
    assert summary == LedgerSummary(3, 1, 1, 1, {"BROKEN": 1, "SMALL": 1})
    assert summary.lost_fraction == pytest.approx(2 / 3)
    assert LedgerSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary
    for wrong in (replace(summary, inputs=4), replace(summary, by_reason={"BROKEN": 1})):
        with pytest.raises(PreconditionError):
            wrong.check()


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (lambda: ImportOptions(max_files=0, max_ratio=0.5), ["options.max_files", "options.max_ratio"]),
        (lambda: ImportOptions(max_quarantined_fraction=float("nan")), ["options.max_quarantined_fraction"]),
        (lambda: SplitOptions(train=0.5), ["options.train"]),
        (lambda: SplitOptions(train=1.5, gap_frames=-1), ["options.train", "options.gap_frames"]),
        (
            lambda: ConvertOptions(image_size_px=4, max_items=-1),
            ["options.image_size_px", "options.max_items"],
        ),
        (
            lambda: ValidateOptions(max_leakage=2, max_imbalance=0),
            ["options.max_leakage", "options.max_imbalance"],
        ),
    ],
)
def test_wrong_options_are_all_named(make: object, fields: list[str]) -> None:
    assert callable(make)
    with pytest.raises(InvalidError) as error:
        make()
    assert [violation.field for violation in error.value.violations] == fields
