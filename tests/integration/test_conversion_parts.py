"""Conversions in parts on a real Ray and S3: the same dataset however it was made, and only once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.chassis.config import Secret
from finemesh.chassis.objects import read_manifest
from finemesh.chassis.s3 import S3Config, S3ObjectStore
from finemesh.core.errors import NotFoundError
from finemesh.core.spec.data import ConvertOptions, DatasetFormat, DatasetOrigin
from finemesh.data import convert_dataset, iter_ledger, load_manifest, parts
from finemesh.data.images import STILL, Picture
from finemesh.data.rle import from_array
from finemesh.data.rows import make_row, masked_object
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter

from tests.support.conversion_driver import OUTPUT
from tests.support.ray_head import RayHeadProcess
from tests.support.servers import S3Server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
ROWS = 1100  # five row groups


def test_record_of_other_rows_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_masks(tmp_path / "dataset")
    options = ConvertOptions(DatasetFormat.YOLO_SEGMENTATION)
    whole = parts.plan_conversion(tmp_path / "dataset", options)
    parts.convert_part(tmp_path / "dataset", tmp_path / "out", whole, whole.parts[0], lambda *_: None)
    assert parts.missing_parts(tmp_path / "out", whole) == []
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    cut = parts.plan_conversion(tmp_path / "dataset", options)
    assert parts.missing_parts(tmp_path / "out", cut) == list(cut.parts)
    monkeypatch.setattr(parts, "LAYOUT", parts.LAYOUT + 1)
    assert parts.missing_parts(tmp_path / "out", whole) == list(whole.parts)


def write_masks(root: Path) -> None:
    """A canonical dataset of masks; every third picture has the name of another one."""
    with DatasetWriter(DatasetFormat.CANONICAL, FormContext(root)) as writer:
        for number in range(ROWS):
            pixels = np.zeros((12, 16), dtype=np.bool_)
            pixels[2 : 4 + number % 8, 3 : 6 + number % 9] = True
            name = f"{number % 3 or number}/p{number // 3}.jpg"
            picture = Picture(str(number).encode(), "JPEG", 16, 12, STILL, name)
            item = masked_object("1", None if number % 5 else "cat", from_array(pixels))
            writer.take()
            source: Any = {"file": "f", "key": str(number)}
            row = make_row(str(number), source=source, pictures=[picture], objects=[item])
            writer.keep(str(number), [row])
        writer.commit(DatasetOrigin.IMPORT, options={})


async def test_killed_conversion_goes_on_with_the_missing_parts(
    ray_head: RayHeadProcess, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_masks(tmp_path / "dataset")
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    options = ConvertOptions(DatasetFormat.YOLO_SEGMENTATION)
    alone = convert_dataset(tmp_path / "dataset", tmp_path / "alone", options, lambda *_: None)
    told: dict[str, Any] = {
        "endpoint": f"http://{s3_server.endpoint}",
        "access_key": s3_server.access_key,
        "secret_key": s3_server.secret_key,
        "bucket": s3_server.bucket,
    }
    (tmp_path / "s3.json").write_text(json.dumps(told))
    objects = S3ObjectStore(_config(told))
    await objects.ensure_bucket()

    killed = drive(ray_head, tmp_path, die_after=2)
    assert killed.returncode == -9
    with pytest.raises(NotFoundError):
        await read_manifest(objects, OUTPUT)
    done = drive(ray_head, tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert 0 < len(result["made"]) <= 3
    assert result["digest"] == alone.digest

    there = await read_manifest(objects, OUTPUT)
    expected = {shard.path: shard.sha256 for shard in (*alone.shards, *alone.ledger_shards)}
    found = {file.path: file.sha256 for file in there.files if file.path != "manifest.json"}
    assert found == expected
    keys = [stat.key for stat in await objects.list(OUTPUT + "/", limit=10_000)]
    listed = sorted(key.removeprefix(OUTPUT + "/") for key in keys)
    assert listed == sorted([*expected, "manifest.json", "files.json"])
    objects.close()


def _config(told: Any) -> S3Config:
    arguments: Any = {**told, "secret_key": Secret(told["secret_key"])}
    return S3Config(**arguments)


def drive(
    head: RayHeadProcess, folder: Path, die_after: int | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.conversion_driver", head.address]
    command += [str(folder / "s3.json"), str(folder), *([str(die_after)] if die_after is not None else [])]
    environment = {**os.environ, **head.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_parts_make_the_dataset_that_one_part_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and pictures have the same names and contents; the sums and the ledger agree."""
    write_masks(tmp_path / "dataset")
    options = ConvertOptions(DatasetFormat.YOLO_SEGMENTATION)
    whole = convert_dataset(tmp_path / "dataset", tmp_path / "whole", options, lambda *_: None)
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    cut = convert_dataset(tmp_path / "dataset", tmp_path / "cut", options, lambda *_: None)
    assert len(cut.ledger_shards) == 5
    labels = {shard.path: shard.sha256 for shard in whole.shards if shard.path.startswith("labels")}
    assert len(labels) == ROWS
    again = {shard.path: shard.sha256 for shard in cut.shards if shard.path.startswith("labels")}
    assert sorted(again.values()) == sorted(labels.values())
    for name in ("rows", "splits", "classes", "media", "ledger", "warnings", "has_class_names"):
        assert getattr(cut, name) == getattr(whole, name), name
    assert cut.proof is not None
    assert whole.proof is not None
    assert (cut.proof.masks, cut.proof.min_iou) == (whole.proof.masks, 1.0) == (ROWS, 1.0)
    told = [entry.row_id for entry in iter_ledger(tmp_path / "cut")]
    assert told == [str(number) for number in range(ROWS)]
    assert (tmp_path / "cut/data.yaml").read_text() == (tmp_path / "whole/data.yaml").read_text()
    assert load_manifest(tmp_path / "cut") == cut
    assert not (tmp_path / "cut/parts").exists()
