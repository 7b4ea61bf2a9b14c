"""One mesh that `finemesh up` runs, for every end-to-end test that does not kill or measure it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3
from finemesh.client import Connection, load_settings
from finemesh.embedded.state import State, read_record

from tests.support.servers import ServerProcess, executable, wait_until


@dataclass
class Door:
    """The gateway of a running mesh, as a client of any kind sees it.

    Attributes:
        folder: where `finemesh up` was typed; its `.finemesh` is the mesh's data directory.
        connection: gRPC stubs with the administrator's token, for project `demo`.
    """

    folder: Path
    url: str
    connection: Connection

    @property
    def data(self) -> Path:
        return self.folder / ".finemesh"

    def request(self, method: str, path: str, *, token: str | None = None, **options: Any) -> Any:
        """A JSON request; with the administrator's token if none is given, without any if it is empty."""
        bearer = self.connection.settings.token if token is None else token
        return urllib3.request(
            method,
            path if path.startswith("http") else f"{self.url}/v1/projects/demo/{path}",
            headers={"authorization": f"Bearer {bearer}"} if bearer else {},
            retries=False,
            timeout=60,
            **options,
        )


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A mesh in a folder of its own, ready."""
    folder = tmp_path_factory.mktemp("door")
    mesh = ServerProcess([executable("finemesh"), "up"], folder, folder / "up.log")
    mesh.start()

    def ready() -> bool:
        mesh.require_running()
        record = read_record(folder / ".finemesh")
        return record is not None and record.state is State.READY

    try:
        wait_until(ready, "finemesh up", 60)
        url = json.loads((folder / ".finemesh/mesh.json").read_text())["url"]
        with Connection(load_settings(environ={}, folder=folder)) as connection:
            yield Door(folder, url, connection)
    finally:
        mesh.stop()
