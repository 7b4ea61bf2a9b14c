"""`finemesh export` before it asks the mesh."""

from __future__ import annotations

from pathlib import Path

import pytest
from finemesh.client.cli.app import app
from typer.testing import CliRunner


@pytest.mark.parametrize("name", ["package.tar.gz", "package.tgz", "package.tar.zst"])
def test_an_archive_that_is_not_made_is_refused_and_is_no_folder(tmp_path: Path, name: str) -> None:
    done = CliRunner().invoke(app, ["export", "download", "pkg", str(tmp_path / name)])
    assert (done.exit_code, "archives are .zip or .tar" in " ".join(done.output.split())) == (2, True)
    assert list(tmp_path.iterdir()) == []
