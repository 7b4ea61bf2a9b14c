"""The adapter alone, in peft's layout, to be put on the base model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

from finemesh.core.spec.export import ExportFormat
from finemesh.package.formats.format import Format
from finemesh.package.formats.transformers_runtime import TRANSFORMERS
from finemesh.package.trained import Trained


def _write(trained: Trained, out: Path) -> None:
    for path in (trained.checkpoint / "adapter").iterdir():
        shutil.copyfile(path, out / path.name)


ADAPTER: Final = Format(
    format=ExportFormat.ADAPTER,
    about="a LoRA adapter, to be put on its base model",
    library="peft",
    runtime=replace(TRANSFORMERS, needs=(*TRANSFORMERS.needs, "peft")),
    write=_write,
    needs_base=True,
)
