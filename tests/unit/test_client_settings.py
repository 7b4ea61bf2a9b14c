"""Where the client looks for the mesh, and what the command line makes of words."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import typer
from finemesh.client import RpcError
from finemesh.client.cli import context
from finemesh.client.cli.events import parse_start
from finemesh.client.settings import SettingsError, load_settings
from finemesh.client.transfer import TransferError, _inside
from finemesh.client.watching import wait_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which a mesh has been started, with a config file of the user's beside it."""
    (tmp_path / "mesh.token").write_text("mesh-token\n")
    (tmp_path / "own.token").write_text("own-token\n")
    client = {"server": "mesh:1", "token_file": str(tmp_path / "mesh.token"), "nats_url": "nats://mesh:2"}
    (tmp_path / ".finemesh").mkdir()
    (tmp_path / ".finemesh/mesh.json").write_text(json.dumps({"client": client}))
    return tmp_path


def configure(folder: Path, text: str) -> dict[str, str]:
    """An environment whose config file has `text`."""
    (folder / "config/finemesh").mkdir(parents=True)
    (folder / "config/finemesh/config.toml").write_text(text)
    return {"XDG_CONFIG_HOME": str(folder / "config")}


def test_the_mesh_of_the_folder_is_found(folder: Path) -> None:
    found = load_settings(environ={}, folder=folder)
    assert (found.server, found.token, found.project) == ("mesh:1", "mesh-token", "demo")
    assert found.nats_url == "nats://mesh:2"


def test_arguments_precede_environment_precede_file_precede_mesh(folder: Path) -> None:
    environ = configure(folder, '[connection]\nserver = "file:1"\nproject = "file"\n')
    assert load_settings(environ=environ, folder=folder).server == "file:1"
    environ["FINEMESH_SERVER"] = "environment:1"
    found = load_settings(environ=environ, folder=folder)
    assert (found.server, found.project) == ("environment:1", "file")
    assert load_settings(server="argument:1", environ=environ, folder=folder).server == "argument:1"


def test_a_token_file_given_by_hand_is_not_overruled_by_a_token_of_the_environment(folder: Path) -> None:
    environ = {"FINEMESH_TOKEN": "environment-token"}
    assert load_settings(environ=environ, folder=folder).token == "environment-token"
    found = load_settings(token_file=str(folder / "own.token"), environ=environ, folder=folder)
    assert found.token == "own-token"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="finemesh up"):
        load_settings(environ={"XDG_CONFIG_HOME": str(tmp_path)}, folder=tmp_path)
    with pytest.raises(SettingsError, match="no token"):
        load_settings(server="a:1", environ={"XDG_CONFIG_HOME": str(tmp_path)}, folder=tmp_path)
    with pytest.raises(SettingsError, match="cannot read"):
        load_settings(server="a:1", token_file="/does/not/exist", environ={}, folder=tmp_path)


def test_a_damaged_config_file_is_named(folder: Path) -> None:
    environ = configure(folder, "[connection\n")
    with pytest.raises(SettingsError, match=r"config\.toml"):
        load_settings(environ=environ, folder=folder)


def test_no_secret_is_printed(folder: Path) -> None:
    assert "mesh-token" not in repr(load_settings(environ={}, folder=folder))


def test_the_start_of_a_replay() -> None:
    assert parse_start("now") is None
    assert parse_start("all") == 1
    assert parse_start("42") == 42
    assert parse_start("2026-11-01T12:00:00+01:00") == datetime(2026, 11, 1, 11, tzinfo=UTC)
    ago = parse_start("10m")
    assert isinstance(ago, datetime)
    assert abs(datetime.now(UTC) - ago - timedelta(minutes=10)) < timedelta(minutes=1)
    with pytest.raises(typer.BadParameter):
        parse_start("yesterday")


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "a/../../b"])
def test_a_file_cannot_leave_its_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(TransferError):
        _inside(tmp_path, path)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, context.EXIT_USAGE),
        (grpc.StatusCode.NOT_FOUND, context.EXIT_NOT_FOUND),
        (grpc.StatusCode.PERMISSION_DENIED, context.EXIT_DENIED),
        (grpc.StatusCode.UNAVAILABLE, context.EXIT_UNAVAILABLE),
        (grpc.StatusCode.FAILED_PRECONDITION, context.EXIT_FAILED),
    ],
)
def test_exit_codes(code: grpc.StatusCode, expected: int) -> None:
    assert context.explain(RpcError(code, "so it is", reason="REASON")) == expected


@pytest.mark.parametrize("arguments", [["--json", "runs", "list"], ["runs", "list", "--json"]])
def test_common_options_stand_before_or_after(arguments: list[str], tmp_path: Path) -> None:
    """The command fails for want of a server, not for the place of an option."""
    (tmp_path / "token").write_text("t")
    command = [sys.executable, "-c", "from finemesh.client.cli import main; main()", *arguments]
    options = ["--server", "127.0.0.1:1", "--token-file", str(tmp_path / "token")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == context.EXIT_UNAVAILABLE, done.stderr
    assert "cannot be reached" in done.stderr


def test_a_watch_is_opened_again_when_the_way_breaks() -> None:
    answers = iter([[1, 2], [2, 3]])
    seen: list[int] = []

    def watch():  # noqa: ANN202
        yield from next(answers)
        raise RpcError(grpc.StatusCode.UNAVAILABLE, "restarting")

    assert wait_for(watch, lambda version: version == 3, seen.append) == 3
    assert seen == [1, 2, 2, 3]


def test_a_refusal_ends_a_watch() -> None:
    def watch():  # noqa: ANN202
        raise RpcError(grpc.StatusCode.NOT_FOUND, "gone", reason="DATASET_NOT_FOUND")
        yield

    with pytest.raises(RpcError):
        wait_for(watch, bool)
