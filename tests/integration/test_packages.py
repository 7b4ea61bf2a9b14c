"""Both wheels, built; the client alone, in a fresh environment; the documents, against the code."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
from finemesh.client.cli.app import app

from tests.support.servers import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

ROOT: Final = Path(__file__).resolve().parents[2]
HEAVY: Final = ("torch", "ray", "transformers", "numpy", "pyarrow", "sqlalchemy", "duckdb", "minio")
DOCUMENTS: Final = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")]
    if path.is_file()
)


def _run(*command: str | Path, cwd: Path = ROOT) -> str:
    # Nothing of this environment may help the fresh one.
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels by distribution."""
    out = tmp_path_factory.mktemp("wheels")
    for project in ("clients/python", "."):
        _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, project)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


@pytest.fixture(scope="module")
def fresh(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that holds the client and what it asks for, nothing else."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    options = ("--quiet", "--disable-pip-version-check", "--constraint", ROOT / "constraints.txt")
    _run(python, "-m", "pip", "install", *options, wheels["finemesh_client"])
    return python.parent


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_each_module_is_in_one_wheel(wheels: dict[str, Path]) -> None:
    client, full = _names(wheels["finemesh_client"]), _names(wheels["finemesh"])
    shipped = {name for name in client | full if name.startswith("finemesh/")}
    sources = [ROOT / each for each in ("services", "ray_cluster", "gateway", "clients/python")]
    tracked = _run("git", "ls-files", *sources).split()
    expected = {name[name.index("finemesh/") :] for name in tracked if "/finemesh/" in name}
    assert shipped == expected, "the wheels and the tree hold different files"
    assert not {name for name in client & full if name.startswith("finemesh/")}
    for name in (
        "finemesh/gateway/finemesh.binpb",
        "finemesh/gateway/health.lua",
        "finemesh/gateway/downloads.lua",
    ):
        assert name in full
    assert any("migrations/versions" in name for name in full)


def test_the_client_alone_is_light_and_works(fresh: Path) -> None:
    assert "dataset" in _run(fresh / "finemesh", "--help")
    script = "import finemesh.client, finemesh.v1.training_service_pb2_grpc, finemesh.events.v1.event_pb2"
    _run(fresh / "python", "-c", script)
    installed = {
        line.split("==")[0].lower() for line in _run(fresh / "python", "-m", "pip", "freeze").split()
    }
    assert not installed & set(HEAVY)


def test_the_client_says_what_is_missing(fresh: Path, tmp_path: Path) -> None:
    """Without a mesh in the folder: one readable block and the documented exit code."""
    environ = {"PATH": str(fresh), "HOME": str(tmp_path)}
    done = subprocess.run(
        [fresh / "finemesh", "dataset", "list"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 5
    assert "finemesh up" in done.stderr
    assert "Traceback" not in done.stderr


# The documents


def _shell_lines() -> Iterator[tuple[str, str]]:
    """Every command line of the documents, with its document; continued lines are joined."""
    for path in DOCUMENTS:
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.split(r"&&|\|", re.sub(r"\s#\s.*$", "", line)):
                    if command.strip() and not command.startswith("#"):
                        yield path.relative_to(ROOT).as_posix(), command.strip()


@pytest.mark.parametrize(("document", "command"), list(_shell_lines()))
def test_a_documented_command_exists(document: str, command: str) -> None:
    words = re.findall(r"'[^']*'|\S+", command)
    program = words[0].rsplit("/", 1)[-1]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), document
    elif program == "finemesh":
        _check_finemesh(words[1:])
    elif program == "python" and words[1:2] == ["-m"]:
        assert importlib.util.find_spec(words[2]), document
    elif program == "python" and len(words) > 1:
        assert (ROOT / words[1]).is_file(), document


def _check_finemesh(words: list[str]) -> None:
    """Every noun, verb and option of a command line is known to the command tree."""
    command: Any = _commands()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.split("=")[0] for word in words if word.startswith("-")}
    assert used <= known | {"--json", "--server", "--project", "--token-file", "--help"}


@cache
def _commands() -> Any:
    """The whole command line, with what the full distribution adds to it."""
    for plugin in entry_points(group="finemesh.commands"):
        plugin.load()(app)
    return typer.main.get_command(app)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{target} is not there"
