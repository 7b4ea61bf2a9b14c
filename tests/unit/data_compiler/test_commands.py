"""`finemesh compile`, as it is typed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import typer
import yaml
from finemesh.data.commands import register
from PIL import Image
from typer.testing import CliRunner

COCO: dict[str, Any] = {
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


def test_rows_are_split_anew_and_like_pictures_stay_together(tmp_path: Path) -> None:
    """Twenty pictures, each there twice, and one whose annotation is broken."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(20)]
    images = [{"id": n, "width": 64, "height": 64, "file_name": f"{n}.png"} for n in range(41)]
    for n in range(41):
        Image.fromarray(noise[n // 2 % 20]).resize((64, 64)).save(tmp_path / f"{n}.png")
    boxes = [{**COCO["annotations"][0], "id": n, "image_id": n} for n in range(40)]
    boxes.append({**boxes[0], "id": 40, "image_id": 40, "category_id": 99})
    (tmp_path / "c.json").write_text(json.dumps({**COCO, "images": images, "annotations": boxes}))
    command = [str(tmp_path), str(tmp_path / "out"), "--to", "yolo-detection", "--split", "0.6,0.2,0.2"]
    code, told = run(*command, "--json")
    manifest = json.loads(told)
    assert (code, manifest["ledger"]["inputs"], manifest["ledger"]["quarantined"]) == (0, 41, 1)
    files = {int(path.stem): path.parent.name for path in tmp_path.glob("out/labels/*/*.txt")}
    assert Counter(files.values()) == {"train": 24, "val": 8, "test": 8}
    assert all(files[n] == files[n + 1] for n in range(0, 40, 2))
    assert run(*command[:1], str(tmp_path / "two"), *command[2:-1], "0.6,0.2")[0] == 2


def test_rows_set_aside_are_told_with_their_reasons(tmp_path: Path) -> None:
    """The first five, and how many more there are."""
    images = [{"id": n, "width": 4, "height": 4, "file_name": f"{n}.png"} for n in range(8)]
    boxes = [{**COCO["annotations"][0], "id": n, "image_id": n, "category_id": 99} for n in range(7)]
    (tmp_path / "c.json").write_text(json.dumps({**COCO, "images": images, "annotations": boxes}))
    command = [str(tmp_path / "c.json"), str(tmp_path / "out"), "--to", "canonical", "--max-quarantined", "1"]
    code, told = run(*command)
    assert (code, told.count("category 99 is not listed")) == (0, 5)
    assert "and 2 more" in told


def test_a_table_with_columns_of_its_own_becomes_conversations(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,reply\nWhat?,That.\n")
    command = [str(tmp_path / "t.csv"), str(tmp_path / "out"), "--to", "messages", "--columns"]
    code, told = run(*command, "prompt=question", "--columns", "completion=reply")
    assert (code, "1 in = 1 kept" in told) == (0, True)
    code, told = run(*command, "prompt")
    assert (code, "role=column" in told) == (2, True)


def test_errors_say_what_is_wrong_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(COCO)[:-9])
    code, told = run(str(tmp_path / "c.json"), str(tmp_path / "out"), "--to", "yolo-detection")
    assert (code, "MALFORMED_JSON" in told) == (1, True)
    assert not (tmp_path / "out").exists()
    code, told = run(str(tmp_path / "c.json"), str(tmp_path / "out"), "--to", "yolo")
    assert (code, "yolo-detection" in told) == (2, True)
    code, told = run(str(tmp_path / "c.json"), str(tmp_path / "out"), "--to", "template")
    assert (code, "INVALID_OPTIONS" in told) == (2, True)
    command = [str(tmp_path / "c.json"), str(tmp_path), "--to", "coco"]
    (tmp_path / "c.json").write_text(json.dumps(COCO))
    code, told = run(*command)
    assert (code, "OUTPUT_NOT_EMPTY" in told) == (2, True)
    command[1] = str(tmp_path / "out")
    code, told = run(*command, "--columns", "prompt=q")  # which a file without columns would not heed
    assert (code, "INVALID_COLUMNS" in told) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_video_that_is_none_and_an_export_without_manifest_are_told(tmp_path: Path) -> None:
    source = tmp_path / "dog"
    source.mkdir()
    masks = [[{"size": [4, 6], "counts": "92207"}], [{"size": [4, 6], "counts": "92207"}]]
    sav = {"video_id": "dog", "video_height": 4, "video_width": 6, "masklet": masks, "masklet_id": [0]}
    (source / "dog_manual.json").write_text(json.dumps({**sav, "masklet_num": 1}))
    (source / "dog.mp4").write_bytes(b"no video" * 99)
    code, told = run(str(source), str(tmp_path / "out"), "--to", "coco")
    assert (code, "2 x VIDEO_UNREADABLE" in told) == (1, True), told
    code, told = run(str(source), str(tmp_path / "out"), "--to", "coco", "--format", "sam2")
    assert (code, "MANIFEST_MISSING" in told) == (1, True), told
    assert not (tmp_path / "out").exists()
