"""One mesh that `finemesh up` runs, for every end-to-end test that neither measures nor kills its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from finemesh.embedded.state import MeshRecord, State, read_record

from tests.support.servers import PATIENCE_SECONDS, ServerProcess, executable, wait_until


@dataclass(frozen=True)
class RunningMesh:
    """Where it is.

    Attributes:
        folder: where `finemesh up` was typed; its `.finemesh` is the mesh's data directory.
        url: the gateway.
        ports: every port by name.
    """

    folder: Path
    url: str
    ports: Mapping[str, int]

    @property
    def data(self) -> Path:
        return self.folder / ".finemesh"


@pytest.fixture(scope="session")
def running_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh in a folder of its own, ready. Tests use ids, or projects, of their own."""
    folder = tmp_path_factory.mktemp("mesh")
    command = [executable("finemesh"), "up", "--import-source", "lake/open"]
    mesh = ServerProcess(command, folder, folder / "up.log")
    mesh.start()
    found: list[MeshRecord] = []

    def ready() -> bool:
        mesh.require_running()
        record = read_record(folder / ".finemesh")
        if record is not None and record.state is State.READY:
            found.append(record)
        return bool(found)

    try:
        wait_until(ready, "finemesh up", 2 * PATIENCE_SECONDS)
        yield RunningMesh(folder, found[0].url, found[0].ports)
    finally:
        mesh.stop()
