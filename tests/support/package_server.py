"""The server of a package, as whoever unpacked it starts it: one command, a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import PATIENCE_SECONDS


def environ() -> dict[str, str]:
    """Nothing of this environment helps, and nobody else's model is fetched."""
    kept = {name: each for name, each in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def served(python: Path | str, package: Path, *options: str, **variables: str) -> Generator[str]:
    """The address of `serve.py`, run in the package's folder, once its model is loaded."""
    process = subprocess.Popen(
        [python, "serve.py", *options, "--port", "0"],
        cwd=package,
        env=environ() | variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        told: list[str] = []
        for line in process.stderr:  # until it listens, and again until the model is loaded
            told.append(line)
            if "ready: " in line:
                break
        listens = re.search(r"http://[\d.]+(:\d+)", "".join(told))
        assert listens, "".join(told)
        assert "ready: " in told[-1], "".join(told)
        yield f"http://127.0.0.1{listens[1]}"
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)
