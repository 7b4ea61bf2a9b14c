"""What a mesh does not do by itself: making the default source, the small base model, and checking a package.

Each runs as a process of its own, so that nothing heavy is imported here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import FinemeshError

VIDEOS: Final = 60
FRAMES_PER_VIDEO: Final = 4
SEED: Final = 7
_TIMEOUT_SECONDS: Final = 600


def make_scenes(target: Path) -> None:
    """Write the default source: photo-like scenes with several objects, a SAM 2 export archive."""
    counts = ["--videos", str(VIDEOS), "--frames", str(FRAMES_PER_VIDEO), "--seed", str(SEED)]
    _run("finemesh.data.scenes", "--out", str(target), *counts)


def build_base_model(dataset: Path, target: Path) -> None:
    """Build the small LLaVA-architecture model, its tokenizer trained on the dataset's texts."""
    _run("finemesh.finetune.tiny", "--family", "llava", "--dataset", str(dataset), "--out", str(target))


def verify_package(archive: Path, base_model: Path) -> dict[str, Any]:
    """Unpack a downloaded package, whose one folder has the archive's name, and replay it in a fresh process.

    Returns the parity report. Raises FinemeshError, reason PROCESS_FAILED, with what the process said.
    """
    with zipfile.ZipFile(archive) as package:
        package.extractall(archive.parent)
    output = _run("finemesh.package.verify", str(archive.with_suffix("")), "--base", str(base_model))
    return json.loads(output)


def _run(module: str, *arguments: str) -> str:
    """Run a module in this Python and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise FinemeshError(
            f"python -m {module} ended with {done.returncode}: {said}", reason="PROCESS_FAILED"
        )
    return done.stdout
