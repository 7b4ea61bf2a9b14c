"""`finemesh dataset preflight` on a running mesh: what it shows, its files, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.e2e.conftest import RunningMesh
from tests.support.conversations import tiny_model
from tests.support.servers import PATIENCE_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


class Preflights:
    """Someone in the folder of the mesh, with a dataset of questions about pictures and a small LLaVA."""

    def __init__(self, mesh: RunningMesh, base: Path) -> None:
        self.folder = mesh.folder
        self.url = mesh.url
        self.base = base

    def run(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """A `finemesh` command."""
        return self.process([str(Path(sys.executable).with_name("finemesh")), *words], expect)

    def process(self, command: Sequence[str], expect: int = 0) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "COLUMNS": "160", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == expect, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        return done

    def preflight(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run("dataset", "preflight", "pf-items", "--model", str(self.base), *words, expect=expect)

    def json(self, *words: str, expect: int = 0) -> dict[str, Any]:
        """The report at its end: the last line that is printed."""
        return json.loads(self.preflight(*words, "--json", expect=expect).stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def preflights(running_mesh: RunningMesh, tmp_path_factory: pytest.TempPathFactory) -> Preflights:
    made = Preflights(running_mesh, tiny_model(tmp_path_factory.mktemp("preflight") / "base", "llava"))
    scenes = [sys.executable, "-m", "finemesh.data.scenes", "--out", "pf.zip", "--videos", "10"]
    made.process([*scenes, "--frames", "2", "--seed", "3"])
    made.run("dataset", "import", "pf.zip", "--id", "pf-raw")
    made.run("dataset", "split", "pf-raw", "--id", "pf-split")
    made.run("dataset", "convert", "pf-split", "--id", "pf-items", "--instruction", "classify-region")
    return made


class Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_terminal_and_the_page_show_the_same_tokens(preflights: Preflights) -> None:
    said = preflights.preflight("--rows", "2", "--html", "pf.html").stdout
    assert "PASSED" in said
    assert "<image x 49>" in said
    assert "</s>]]" in said  # without colour, what carries loss stands in brackets
    page = (preflights.folder / "pf.html").read_text()
    words = Text(page).words
    assert words.count("<image x 49>") == 2
    assert "</s>" in words
    assert "Preflight: passed" in words


def test_the_report_counts_every_row_of_every_split(preflights: Preflights) -> None:
    dataset = json.loads(preflights.run("dataset", "show", "pf-items", "--json").stdout)
    report = preflights.json("--rows", "1")
    result = report["result"]
    rows = {each["split"]: int(each["rows"]) for each in dataset["summary"]["splits"]}
    splits = {each["split"]: each for each in result["splits"]}
    assert {name: int(each["rows"]) for name, each in splits.items()} == rows
    for each in splits.values():
        assert int(each["placeholders"]) == int(each["features"]) == 49 * int(each["images"])
    assert result["model"]["task"] == "VISION_LANGUAGE"
    stored = urllib3.request("GET", report["jsonUrl"], retries=False, timeout=PATIENCE_SECONDS)
    assert stored.status == 200
    assert stored.json() == result
    page = urllib3.request("GET", report["htmlUrl"], retries=False, timeout=PATIENCE_SECONDS)
    assert page.headers["content-type"].startswith("text/html")
    token = (preflights.folder / ".finemesh" / "secrets" / "admin.token").read_text().strip()
    listed = urllib3.request(
        "GET",
        f"{preflights.url}/v1/{dataset['name']}/preflightReports",
        headers={"authorization": f"Bearer {token}"},
        retries=False,
        timeout=PATIENCE_SECONDS,
    ).json()
    [told] = [each for each in listed["preflightReports"] if each["name"] == report["name"]]
    assert told["result"]["splits"] == result["splits"]
    assert "shown" not in told["result"]


def test_what_training_would_refuse_ends_with_exit_code_1(preflights: Preflights) -> None:
    refused = preflights.json("-o", "sequence.max_tokens=30", expect=1)
    assert refused["result"]["verdict"] == "VERDICT_FAILED"
    assert "ROW_TOO_LONG" in {each["reason"] for each in refused["result"]["problems"]}
    missing = preflights.run(
        "dataset", "preflight", "pf-items", "--model", "/nowhere/llava", "--json", expect=1
    )
    failed = json.loads(missing.stdout.splitlines()[-1])
    assert failed["error"]["details"][0]["reason"] == "BASE_MODEL_NOT_FOUND"
    nameless = preflights.run("dataset", "preflight", "pf-items", expect=2)
    assert "base_model" in nameless.stderr
    silent = preflights.run("dataset", "preflight", "pf-split", "--model", str(preflights.base), expect=1)
    assert "convert it with an instruction task first" in silent.stderr.replace("\n", " ")
