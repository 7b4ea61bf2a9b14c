"""The whole model as transformers saves it: safetensors in shards, config and generation config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from finemesh.core.spec.export import ExportFormat
from finemesh.package.formats.format import Format
from finemesh.package.formats.transformers_runtime import TRANSFORMERS
from finemesh.package.trained import Trained


def _write(trained: Trained, out: Path) -> None:
    """The files of the merge that other formats start from too, under a second name."""
    for path in trained.merged.iterdir():
        os.link(path, out / path.name)


MERGED: Final = Format(
    format=ExportFormat.MERGED,
    about="a whole model, the fine-tune merged into its base",
    library="transformers",
    runtime=TRANSFORMERS,
    write=_write,
)
