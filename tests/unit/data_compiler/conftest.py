"""What the tests of the data compiler share: the real samples, a small generated archive, and its stages."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finemesh.core.spec.data import ConvertOptions, ImportOptions, InstructionTask, SplitOptions
from finemesh.data import Progress, convert_dataset, import_source, split_dataset
from finemesh.data.scenes import SceneOptions, write_scene_archive

ROOT = Path(__file__).resolve().parents[3]
VIDEOS, FRAMES = 8, 3


def _listen(fraction: float, message: str) -> None:
    assert 0 <= fraction <= 1
    assert message


@pytest.fixture(scope="session")
def silent() -> Progress:
    """Progress that nobody sees, but that must be sound."""
    return _listen


@pytest.fixture(scope="session")
def samples() -> Path:
    folder = ROOT / "../shared/samples"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/samples with real data is not here")
    return folder


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene archive of 8 videos x 3 frames."""
    path = tmp_path_factory.mktemp("scenes") / "scenes.zip"
    write_scene_archive(path, SceneOptions(videos=VIDEOS, frames=FRAMES, seed=3))
    return path


@pytest.fixture(scope="session")
def imported(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "dataset"
    import_source(archive, out, ImportOptions(), _listen)
    return out


@pytest.fixture(scope="session")
def divided(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The imported dataset, split by video."""
    out = tmp_path_factory.mktemp("divided") / "dataset"
    split_dataset(imported, out, SplitOptions(train=0.5, val=0.25, test=0.25), _listen)
    return out


@pytest.fixture(scope="session")
def conversations(divided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One question per visible object."""
    out = tmp_path_factory.mktemp("conversations") / "dataset"
    convert_dataset(divided, out, ConvertOptions(instruction=InstructionTask.CLASSIFY_REGION), _listen)
    return out


EditArchive = Callable[[dict[str, Any]], Path]


@pytest.fixture
def edited(archive: Path, tmp_path: Path) -> EditArchive:
    """A copy of the archive, entries replaced by bytes or a function of their JSON; None removes them."""

    def edit(changes: dict[str, Any]) -> Path:
        path = tmp_path / "edited.zip"
        with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                change = changes.get(name, b"")
                if change is None:
                    continue
                data = old.read(name)
                if callable(change):
                    data = json.dumps(change(json.loads(data))).encode()
                new.writestr(name, change if isinstance(change, bytes) and change else data)
        return path

    return edit
