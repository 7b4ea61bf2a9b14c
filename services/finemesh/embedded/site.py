"""What a component is, and where the mesh lives that it belongs to."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from finemesh.core.errors import PreconditionError
from finemesh.embedded.config import MeshConfig
from finemesh.embedded.credentials import Credentials
from finemesh.embedded.environment import inherited
from finemesh.embedded.readiness import ReadyCheck

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Component:
    """One process of the mesh.

    Attributes:
        prepare: runs before each start, e.g. to write configuration files.
        clean_up: runs after the component has ended and all its processes are gone.
        ports: what it listens on, by purpose.
        layer: what stands on it is in higher layers, and is stopped before it. All start together: each one
            waits by itself for what it needs, since that may go and come back at any time.
        stop_seconds: how long it may take to end after SIGTERM before SIGKILL.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: ReadyCheck
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    layer: int = 0
    prepare: Callable[[], None] = lambda: None
    clean_up: Callable[[], None] = lambda: None
    stop_seconds: float = 8.0


@dataclass(frozen=True, slots=True)
class Site:
    """Where this mesh lives.

    Attributes:
        data: the data directory, absolute.
        ports: every port of the mesh by name.
        environ: the environment that `up` was started in.
        ray_folder: Ray's folder under a path short enough for its sockets.
    """

    config: MeshConfig
    data: Path
    credentials: Credentials
    ports: Mapping[str, int]
    environ: Mapping[str, str]
    ray_folder: Path

    @property
    def public_url(self) -> str:
        """Where clients reach the gateway."""
        scheme = "https" if self.config.tls else "http"
        return f"{scheme}://{self.config.public_host or self.config.host}:{self.ports['gateway']}"

    def address(self, name: str) -> str:
        """host:port of a component, by the name of its port."""
        return f"{LOOPBACK}:{self.ports[name]}"

    def folder(self, *parts: str) -> Path:
        """A folder under the data directory, for the owner alone; made if missing."""
        path = self.data.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def environment(self, component: str) -> dict[str, str]:
        """What every component starts with."""
        return inherited(self.environ, self.credentials.mesh_id, component)


def executable(name: str) -> str:
    """The path of a program that a wheel put beside this interpreter, or one on the PATH.

    Raises:
        PreconditionError: reason NOT_INSTALLED.
    """
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise PreconditionError(
            f"{name} is not installed: pip install 'finemesh[embedded,cluster]'", reason="NOT_INSTALLED"
        )
    return found


def flags(prefix: str, values: Mapping[str, object]) -> list[str]:
    """`-name=value` or `--name=value` arguments; booleans in lower case, None left out."""
    written = {
        name: str(v).lower() if isinstance(v, bool) else v for name, v in values.items() if v is not None
    }
    return [f"{prefix}{name}={value}" for name, value in written.items()]


def write_private(path: Path, text: str) -> None:
    """Write a file that holds secrets, readable by the owner alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
