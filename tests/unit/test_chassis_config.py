"""Configuration from the environment, and what it says about a bad one."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from finemesh.chassis.auth import write_private_file
from finemesh.chassis.config import Secret, from_environ
from finemesh.chassis.grpc_server import ServerConfig
from finemesh.core.errors import InvalidError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    url: str = "sqlite://"
    password: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    certificate_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    name: str
    port: int = 50051
    lease_seconds: float = 20.0
    verbose: bool = False
    folder: Path = Path("data")
    colour: Colour = Colour.RED
    level: Literal["INFO", "DEBUG"] = "INFO"
    hosts: tuple[str, ...] = ()
    limit: int | None = None
    store: Store
    tls: Tls | None = None
    server: ServerConfig = field(default_factory=ServerConfig)


LEAST = {"FINEMESH_NAME": "training", "FINEMESH_STORE_PASSWORD": "hunter2"}


def test_what_is_not_set_has_its_default() -> None:
    config = from_environ(Config, LEAST)
    assert config == Config(name="training", store=Store(password=Secret("hunter2")))
    assert from_environ(Config, {**LEAST, "FINEMESH_PORT": " ", "FINEMESH_LIMIT": ""}) == config


def test_every_type_is_read() -> None:
    environ = {
        "FINEMESH_PORT": "1",
        "FINEMESH_LEASE_SECONDS": "0.5",
        "FINEMESH_VERBOSE": "Yes",
        "FINEMESH_FOLDER": "~/x",
        "FINEMESH_COLOUR": "blue",
        "FINEMESH_LEVEL": "DEBUG",
        "FINEMESH_HOSTS": "a, b,",
        "FINEMESH_LIMIT": "7",
        "FINEMESH_STORE_URL": "postgresql://",
        "FINEMESH_TLS_CERTIFICATE_FILE": "/c.pem",
        "FINEMESH_SERVER_PORT": "9",
    }
    config = from_environ(Config, LEAST | environ)
    assert (config.port, config.lease_seconds, config.verbose, config.limit) == (1, 0.5, True, 7)
    assert (config.folder, config.colour, config.level) == (Path.home() / "x", Colour.BLUE, "DEBUG")
    assert (config.hosts, config.store.url, config.server.port) == (("a", "b"), "postgresql://", 9)
    assert config.tls == Tls(certificate_file=Path("/c.pem"))


def test_every_mistake_is_named_at_once_with_its_remedy() -> None:
    environ = {
        "FINEMESH_PORT": "many",
        "FINEMESH_VERBOSE": "maybe",
        "FINEMESH_COLOUR": "green",
        "FINEMESH_LEVEL": "LOUD",
    }
    with pytest.raises(InvalidError) as caught:
        from_environ(Config, environ)
    assert caught.value.reason == "BAD_CONFIG"
    said = {violation.field: violation.description for violation in caught.value.violations}
    assert said == {
        "FINEMESH_NAME": "is not set: set it to a text",
        "FINEMESH_PORT": "is 'many': set it to a whole number",
        "FINEMESH_VERBOSE": "is 'maybe': set it to true or false",
        "FINEMESH_COLOUR": "is 'green': set it to one of red, blue",
        "FINEMESH_LEVEL": "is 'LOUD': set it to one of INFO, DEBUG",
        "FINEMESH_STORE_PASSWORD": "is not set: set it to a secret (or its _FILE)",
    }
    assert all(name in str(caught.value) for name in said)


def test_a_check_of_a_section_names_the_section() -> None:
    with pytest.raises(InvalidError, match="without TLS") as caught:
        from_environ(Config, {**LEAST, "FINEMESH_SERVER_HOST": "0.0.0.0"})
    assert [violation.field for violation in caught.value.violations] == ["FINEMESH_SERVER_*"]


def test_a_secret_may_come_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    write_private_file(path, "from a file")
    environ = {"FINEMESH_NAME": "x", "FINEMESH_STORE_PASSWORD_FILE": str(path)}
    assert from_environ(Config, environ).store.password.reveal() == "from a file"
    path.chmod(0o644)
    with pytest.raises(InvalidError, match="chmod 600"):
        from_environ(Config, environ)


def test_a_secret_is_never_printed() -> None:
    config = from_environ(Config, LEAST)
    assert "hunter2" not in f"{config} {config!r} {config.store.password} {config.store.password!s}"
    assert config.store.password.reveal() == "hunter2"


def test_another_prefix_reads_other_variables() -> None:
    assert from_environ(Tls, {"X_CERTIFICATE_FILE": "a"}, prefix="X_") == Tls(certificate_file=Path("a"))
