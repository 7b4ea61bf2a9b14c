"""`finemesh tracking rebuild` before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from finemesh.core.errors import NotFoundError
from finemesh.embedded.config import MeshConfig
from finemesh.embedded.rebuilding import rebuild_points


async def test_a_folder_without_a_mesh_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "mistyped"
    with pytest.raises(NotFoundError, match=r"no folder of a mesh.*--data-dir"):
        await rebuild_points(MeshConfig(data_dir=folder, services=False))
    assert not folder.exists()
