"""Where the mesh is and who is asking: from arguments, the environment, a file, or the mesh that runs in this
folder.

The first source that names a value wins, each value by itself:

1. arguments (`--server`, `--project`, `--token-file` of the command line);
2. FINEMESH_SERVER, FINEMESH_PROJECT, FINEMESH_TOKEN or FINEMESH_TOKEN_FILE, FINEMESH_CA_FILE,
   FINEMESH_NATS_URL, FINEMESH_NATS_NKEY_FILE;
3. `[connection]` of $XDG_CONFIG_HOME/finemesh/config.toml (by default ~/.config), with the keys server,
   project, token_file, ca_file, nats_url, nats_nkey_file;
4. `.finemesh/mesh.json` of the current folder, written by `finemesh up`.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

DEFAULT_PROJECT: Final = "demo"
DEFAULT_DATA_DIR: Final = Path(".finemesh")
_KEYS: Final = ("server", "project", "token", "token_file", "ca_file", "nats_url", "nats_nkey_file")


class SettingsError(Exception):
    """The connection is not fully described; the message says what is missing and how to give it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A described connection.

    Attributes:
        server: host:port of the gateway.
        project: id of the project that short ids belong to.
        token: bearer token.
        ca_file: PEM file of the certificate authority; the connection is plain without one, so only use that
            on loopback.
        nats_url: where events come from; empty if unknown.
        nats_nkey_file: file with the nkey seed of a subscriber.
    """

    server: str
    project: str
    token: str = field(repr=False)
    ca_file: str = ""
    nats_url: str = ""
    nats_nkey_file: str = ""


def load_settings(
    *,
    server: str | None = None,
    project: str | None = None,
    token_file: str | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """Collects the settings from all sources. Raises SettingsError if server or token cannot be found."""
    environ = os.environ if environ is None else environ
    arguments = {"server": server, "project": project, "token_file": token_file}
    sources: list[Mapping[str, Any]] = [
        arguments,
        {key: environ.get(f"FINEMESH_{key.upper()}") for key in _KEYS},
        _from_config_file(environ),
        _from_mesh((folder or Path.cwd()) / environ.get("FINEMESH_DATA_DIR", str(DEFAULT_DATA_DIR))),
    ]
    found: dict[str, str] = {}
    for source in sources:
        # A token file of one source must not be overruled by the token of a later one.
        taken = set(found) | ({"token", "token_file"} if found.keys() & {"token", "token_file"} else set())
        found |= {key: str(value) for key, value in source.items() if value and key not in taken}
    if "server" not in found:
        raise SettingsError(
            "no mesh found: run `finemesh up` in this folder, "
            "or name one with --server host:port or FINEMESH_SERVER"
        )
    token = found.get("token") or _read_secret(found.get("token_file", ""))
    if not token:
        raise SettingsError("no token: give --token-file, or set FINEMESH_TOKEN or FINEMESH_TOKEN_FILE")
    return Settings(
        server=found["server"],
        project=found.get("project", DEFAULT_PROJECT),
        token=token,
        ca_file=found.get("ca_file", ""),
        nats_url=found.get("nats_url", ""),
        nats_nkey_file=found.get("nats_nkey_file", ""),
    )


def _from_config_file(environ: Mapping[str, str]) -> dict[str, Any]:
    home = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    path = Path(home) / "finemesh/config.toml"
    try:
        return tomllib.loads(path.read_text()).get("connection", {})
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}; mend or remove it") from error


def _from_mesh(data_dir: Path) -> dict[str, Any]:
    """What `finemesh up` wrote down under "client" for whoever works in this folder."""
    try:
        return json.loads((data_dir / "mesh.json").read_text()).get("client", {})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{data_dir / 'mesh.json'}: {error}; start the mesh again with `finemesh up`"
        ) from error


def _read_secret(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).expanduser().read_text().strip()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
