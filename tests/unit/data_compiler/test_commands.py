"""`finemesh compile`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import typer
import yaml
from finemesh.data.commands import register
from typer.testing import CliRunner

COCO = {
    "images": [{"id": 1, "width": 8, "height": 4, "file_name": "a.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 1, 4, 2], "area": 8, "iscrowd": 0}
    ],
    "categories": [{"id": 1, "name": "cat"}],
}


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)
    done = CliRunner().invoke(app, ["compile", *arguments])
    return done.exit_code, done.output


def test_coco_becomes_yolo_without_a_mesh(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(COCO))
    code, told = run(str(tmp_path / "c.json"), str(tmp_path / "out"), "--to", "yolo-detection")
    assert (code, "1 in = 1 kept" in told) == (0, True)
    assert (tmp_path / "out/labels/all/a.txt").read_text() == "0 0.500000 0.500000 0.500000 0.500000\n"
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text())["names"] == {0: "cat"}
    code, told = run(str(tmp_path / "c.json"), str(tmp_path / "json"), "--to", "coco", "--json")
    assert json.loads(told)["rows"] == 1


def test_errors_say_what_is_wrong_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(COCO)[:-9])
    code, told = run(str(tmp_path / "c.json"), str(tmp_path / "out"), "--to", "yolo-detection")
    assert (code, "MALFORMED_JSON" in told) == (1, True)
    assert not (tmp_path / "out").exists()
    code, told = run(str(tmp_path / "c.json"), str(tmp_path / "out"), "--to", "yolo")
    assert (code, "yolo-detection" in told) == (2, True)
    code, told = run(str(tmp_path / "c.json"), str(tmp_path / "out"), "--to", "template")
    assert (code, "INVALID_OPTIONS" in told) == (1, True)
