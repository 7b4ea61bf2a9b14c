"""The generated archive: equal for equal seeds, balanced, and honest about what is visible."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from finemesh.data.scenes import SceneOptions, write_scene_archive
from PIL import Image
from pycocotools import mask as coco_mask

# pycocotools 2.0.11 itself sets off numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_command_writes_the_same_bytes_again(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.zip"
    command = [
        sys.executable,
        "-m",
        "finemesh.data.scenes",
        "--out",
        str(path),
        "--videos",
        "8",
        "--frames",
        "3",
    ]
    subprocess.run([*command, "--seed", "3"], check=True)
    assert path.read_bytes() == archive.read_bytes()
    write_scene_archive(path, SceneOptions(videos=1, frames=1, seed=4))
    assert path.read_bytes() != archive.read_bytes()


def test_classes_are_dealt_evenly(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        manifest = json.loads(opened.read("manifest.json"))
    counts = Counter(name for video in manifest["videos"] for name in video["objects"].values())
    assert set(counts) == set(manifest["classes"])
    assert max(counts.values()) - min(counts.values()) <= 1


def test_masks_do_not_overlap_and_some_objects_are_covered(archive: Path) -> None:
    hidden = 0
    with zipfile.ZipFile(archive) as opened:
        for name in (name for name in opened.namelist() if name.startswith("annotations/")):
            value = json.loads(opened.read(name))
            areas = np.array(
                [[coco_mask.area(mask) for mask in frame] for frame in value["masklet"]], dtype=float
            )
            visible = np.maximum((areas > 0).sum(axis=0), 1)
            assert np.allclose(areas.sum(axis=0) / visible, value["masklet_size_abs"])
            for frame in value["masklet"]:
                stacked = sum(coco_mask.decode(mask).astype(int) for mask in frame)
                assert np.max(stacked) <= 1
            hidden += int((areas < 0.5 * areas.max(axis=0)).sum())
    assert hidden > 0


def test_an_object_differs_from_its_surroundings(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        value = json.loads(opened.read("annotations/scene_0000.json"))
        with Image.open(io.BytesIO(opened.read("frames/scene_0000/00000.jpg"))) as image:
            pixels = np.asarray(image, dtype=float)
    inside = np.any([coco_mask.decode(mask) > 0 for mask in value["masklet"][0]], axis=0)
    saturation = pixels.max(axis=2) - pixels.min(axis=2)
    assert saturation[inside].mean() > 1.5 * saturation[~inside].mean()
