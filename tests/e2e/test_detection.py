"""A detector through the mesh: boxes of COCO in, a job that finds them out."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finemesh.finetune.tiny import build_tiny

from tests.e2e.conftest import RunningMesh
from tests.support.shapes import shape_rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def as_coco(folder: Path, pictures: int) -> Path:
    """A folder with pictures and their boxes, as COCO writes them."""
    names = {"circle": 1, "square": 2}
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    (folder / "images").mkdir(parents=True)
    for number, row in enumerate(shape_rows({"": pictures}), 1):
        (folder / "images" / f"{number}.png").write_bytes(io.BytesIO(row["images"][0]["data"]).getvalue())
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        for thing in row["objects"]:
            if thing["visible"]:
                found = {"id": len(annotations) + 1, "image_id": number, "bbox": thing["bbox"]}
                found |= {"category_id": names[thing["class_name"]], "area": thing["area"], "iscrowd": 0}
                annotations.append(found)
    categories = [{"id": index, "name": name} for name, index in names.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_a_detector_is_trained_and_tested(running_mesh: RunningMesh, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "finemesh"), *arguments]
        environ = {"HOME": str(running_mesh.folder), "LC_ALL": "C.UTF-8", "COLUMNS": "240"}
        done = subprocess.run(
            command,
            cwd=running_mesh.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        return done.stdout

    model = build_tiny("yolos", tmp_path / "yolos", [], 0)
    run("dataset", "import", str(as_coco(tmp_path / "shapes", 30)), "--id", "shapes", "--wait")
    run("dataset", "split", "shapes", "--id", "shapes-split", "--strategy", "random", "--wait")
    submit = ["train", "submit", "--id", "finds-shapes", "--model", str(model), "--dataset", "shapes-split"]
    submit += ["--task", "detection", "-o", "full={}", "-o", "optimization.max_steps=4", "--wait"]
    run(*submit)
    job = json.loads(run("train", "show", "finds-shapes", "--json"))
    assert (job["state"], job["step"]) == ("STATE_SUCCEEDED", "4")
    measured = run("runs", "show", job["run"].rpartition("/")[2], "--json")
    assert {"test/map", "test/map50", "test/map/circle"} <= set(re.findall(r"test/[\w/]+", measured))
    kept = json.loads(run("runs", "evaluations", "finds-shapes", "--json"))
    assert {each["split"] for each in kept} == {"val", "test"}
    tested = next(each["name"].rpartition("/")[2] for each in kept if each["split"] == "test")
    items = [json.loads(line) for line in run("runs", "items", "finds-shapes", tested).splitlines()]
    assert {"id", "digest", "group", "average_precision"} <= set(items[0])
