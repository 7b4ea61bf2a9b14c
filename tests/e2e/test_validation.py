"""`finemesh dataset validate` on a running mesh: thresholds, the page, tokens, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from tests.e2e.conftest import RunningMesh

pytestmark = pytest.mark.e2e


@dataclass(frozen=True, slots=True)
class Commands:
    """Someone in the folder of the mesh, with a dataset `va`."""

    folder: Path

    def run(self, *words: str, code: int = 0) -> str:
        command = [str(Path(sys.executable).with_name("finemesh")), *words]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=600, check=False
        )
        output = done.stdout + done.stderr
        assert done.returncode == code, output
        return output


@pytest.fixture(scope="module")
def commands(running_mesh: RunningMesh) -> Commands:
    made = Commands(running_mesh.folder)
    scenes = ["-m", "finemesh.data.scenes", "--out", "va.zip", "--videos", "6", "--frames", "2"]
    subprocess.run([sys.executable, *scenes], cwd=made.folder, check=True, timeout=600)
    made.run("dataset", "import", "va.zip", "--id", "va")
    return made


def test_thresholds_decide_and_the_page_is_kept(commands: Commands) -> None:
    output = commands.run("dataset", "validate", "va", "--strict", "--min-rows", "13", "--html", "va.html")
    assert "TOO_FEW_ROWS" in output
    assert "pairs of pictures" in output
    page = (commands.folder / "va.html").read_text()
    assert "Validation: passed with warnings" in page
    assert "12 of at least 13" in page


def test_texts_are_measured_with_a_tokenizer_of_the_cluster(commands: Commands) -> None:
    commands.run("dataset", "convert", "va", "--id", "vai", "--instruction", "classify-region")
    Tokenizer(WordLevel({"?": 0}, unk_token="?")).save(str(commands.folder / "tokenizer.json"))
    said = ("--tokenizer", str(commands.folder), "--max-tokens", "1")
    assert "in the longest row; 0 rows would be cut" in commands.run("dataset", "validate", "vai", *said)
    refused = commands.run("dataset", "validate", "vai", "--tokenizer", "/not/there", code=1)
    assert "there is no such folder" in refused
    assert "verdict" not in refused


def test_a_limit_without_a_tokenizer_is_refused(commands: Commands) -> None:
    assert "needs a tokenizer" in commands.run("dataset", "validate", "va", "--max-tokens", "9", code=2)
