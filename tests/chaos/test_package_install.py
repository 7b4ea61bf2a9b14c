"""A package installed into an empty environment as its Dockerfile says, by pip: minutes; for `make soak`."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path

import pytest

from tests.integration.test_package_stranger import ask_as_openai, export
from tests.support.conversations import colour_rows, spec, tiny_model
from tests.support.dockerfile import build
from tests.support.package_server import environ, served

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_a_package_runs_with_nothing_but_its_requirements(rounds: int, tmp_path: Path) -> None:
    if rounds == 1:
        pytest.skip("make soak installs it")
    rows = list(colour_rows({"train": 16, "test": 8}))
    package = export(tmp_path, spec(), tiny_model(tmp_path / "base", "llava"), rows)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    image = build(package, tmp_path / "image", python, install=True)
    done = subprocess.run(
        [python, image.folder / "verify.py"],
        cwd="/",
        env=environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["passed"]
    with served(python, image.folder, *image.entrypoint[2:], **image.variables) as address:
        ask_as_openai(address, package)
