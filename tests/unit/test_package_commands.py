"""`finemesh export evaluate` as it is called: what cannot be is said before a package is run."""

from __future__ import annotations

from pathlib import Path

import typer
from finemesh.package.commands import EXIT_FAILED, evaluate
from typer.testing import CliRunner, Result


def called(*words: str | Path) -> Result:
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_a_page_that_has_no_place_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    for page in (tmp_path / "nowhere" / "choice.html", tmp_path):
        refused = called(tmp_path, "--dataset", tmp_path, "--html", page)
        assert refused.exit_code == 2
        assert "--html" in refused.output
        assert "nowhere" in refused.output or "is a directory" in refused.output


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    refused = called(tmp_path, "--dataset", tmp_path, "--html", tmp_path / f"{'x' * 300}.html")
    assert refused.exit_code == 2
    assert "cannot write" in refused.output
    page = tmp_path / "choice.html"
    assert called(tmp_path, "--dataset", tmp_path, "--html", page).exit_code == EXIT_FAILED
    assert not page.exists()  # nothing was run, so nothing is there


def test_a_folder_that_is_no_package_is_named_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "model[dim]"
    folder.mkdir()
    refused = called(folder, "--dataset", tmp_path)
    assert refused.exit_code == EXIT_FAILED
    assert str(folder) in refused.output
