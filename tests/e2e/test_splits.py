"""`finemesh dataset split` on a running mesh: every strategy, what it prints, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import RunningMesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


class Splits:
    """Someone in the folder of the mesh, with a dataset of 10 videos of 2 frames."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scenes = ["-m", "finemesh.data.scenes", "--out", "sp.zip", "--videos", "10", "--frames", "2"]
        subprocess.run([sys.executable, *scenes], cwd=folder, check=True, timeout=600)
        self.run("dataset", "import", "sp.zip", "--id", "sp-raw")

    def run(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "COLUMNS": "160", "LC_ALL": "C.UTF-8"}
        command = [str(Path(sys.executable).with_name("finemesh")), *words]
        done = subprocess.run(
            command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == expect, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        return done

    def summary(self, new_id: str, *words: str) -> dict[str, Any]:
        self.run("dataset", "split", "sp-raw", "--id", new_id, *words)
        return json.loads(self.run("dataset", "show", new_id, "--json").stdout)["summary"]


@pytest.fixture(scope="module")
def splits(running_mesh: RunningMesh) -> Splits:
    return Splits(running_mesh.folder)


def rows(summary: dict[str, Any]) -> dict[str, int]:
    return {each["split"]: int(each["rows"]) for each in summary["splits"]}


def test_a_stratified_split_shows_its_classes_and_its_leakage(splits: Splits) -> None:
    summary = splits.summary("sp-classes", "--strategy", "stratified", "--max-similar-bits", "6")
    assert rows(summary) == {"train": 12, "val": 2, "test": 6}
    assert summary["leakageShares"] == {"bySimilar": 0}
    per_class = Counter[str]()
    for each in summary["classSplits"]:
        per_class[each["className"]] += int(each["objects"])
    assert per_class == {each["className"]: int(each["objects"]) for each in summary["classes"]}
    said = splits.run("dataset", "show", "sp-classes").stdout
    assert "0.0000 (by video 0.0000, same picture 0.0000, similar picture 0.0000)" in said
    for word in ("objects in rows", "train", "val", "test", *per_class):
        assert word in said


def test_rows_go_where_the_lists_say(splits: Splits) -> None:
    (splits.folder / "sp.csv").write_text("name,split\nscene_0003,val\nscene_0004,test\n*,train\n")
    summary = splits.summary("sp-lists", "--assign", "sp.csv", "--max-similar-bits", "-1")
    assert rows(summary) == {"train": 16, "val": 2, "test": 2}
    assert "bySimilar" not in summary.get("leakageShares", {})
    (splits.folder / "sp.json").write_text('{"train": ["scene_0003", "nobody"]}')
    told = splits.run("dataset", "split", "sp-raw", "--id", "sp-no", "--assign", "sp.json", expect=1).stderr
    assert "1 of 2 listed names stand for no row (nobody)" in told


def test_rows_are_grouped_or_drawn(splits: Splits) -> None:
    grouped = splits.summary("sp-grouped", "--group-by", "video_id", "--ratios", "0.8,0,0.2")
    assert rows(grouped) == {"train": 16, "test": 4}
    drawn = splits.summary("sp-random", "--strategy", "random", "--seed", "5", "--max-similar-bits", "-1")
    assert rows(drawn) == {"train": 12, "val": 2, "test": 6}
    assert drawn["leakage"] == drawn["leakageShares"]["byVideo"] > 0
    assert any("are of a video that is in train too" in each for each in drawn["warnings"])


def test_options_of_another_strategy_are_refused(splits: Splits) -> None:
    told = splits.run(
        "dataset", "split", "sp-raw", "--strategy", "random", "--group-by", "video_id", expect=2
    ).stderr
    assert "group_key: is of no use to the strategy random" in told
