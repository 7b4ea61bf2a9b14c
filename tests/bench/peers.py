"""Environments of the peers: each set of packages lies in a venv of its own below `FINEMESH_BENCH_CACHE`, by
default ~/.cache/finemesh-bench, and is made when it is not there.
"""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path


def peer_python(name: str, packages: Sequence[str], without: Sequence[str] = ()) -> Path:
    """The Python of the environment `name`, which holds these packages, pinned.

    Packages `without` which they run are taken out again: torchvision and torchaudio of the index need CUDA's
    libraries, and break what imports them beside a torch that has none.

    Raises subprocess.CalledProcessError if pip cannot install them.
    """
    cache = Path(os.environ.get("FINEMESH_BENCH_CACHE", Path.home() / ".cache/finemesh-bench"))
    folder = cache / name
    python, mark = folder / "bin/python", folder / "peers.txt"
    wanted = "\n".join(packages)
    if not mark.is_file() or mark.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        if without:
            subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", *without], check=True)
        mark.write_text(wanted)
    return python
