"""The gate's own script, in this process: several packages are replayed for the start of one."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from finemesh.package.contents import copy_scripts
from finemesh.package.formats.transformers_runtime import TRANSFORMERS

_NAMES = ("verify", "runtime", "decide", "server")


def replay(package: Path, base: Path | None = None, **limits: float | None) -> dict[str, Any]:
    """The report of `verify.py`, as transformers runs the package; `limits` in place of declared ones."""
    declared = json.loads((package / "manifest.json").read_bytes())["tolerance"]
    with tempfile.TemporaryDirectory() as folder:
        scripts = Path(folder) / "scripts"
        scripts.mkdir()
        copy_scripts(TRANSFORMERS, scripts)
        sys.path.insert(0, str(scripts))
        try:
            script = importlib.import_module("verify")
            with warnings.catch_warnings():  # peft asks transformers by a name that is being renamed
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                return script.verify(package, str(base) if base else None, declared | limits, None, None)
        finally:  # under these names another test may have scripts of its own
            sys.path.remove(str(scripts))
            for name in [each for each in sys.modules if each.partition(".")[0] in _NAMES]:
                del sys.modules[name]
