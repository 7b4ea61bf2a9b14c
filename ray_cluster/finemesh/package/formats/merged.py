"""The whole model as transformers saves it: safetensors in shards, config and generation config."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from finemesh.core.spec.export import ExportFormat
from finemesh.package.formats.format import Format, within
from finemesh.package.formats.transformers_runtime import TRANSFORMERS
from finemesh.package.trained import Trained


def _write(trained: Trained, out: Path) -> None:
    """The files of the merge that other formats start from too, under a second name."""
    for path in trained.merged.iterdir():
        os.link(path, out / path.name)


def _write_in(dtype: torch.dtype) -> Callable[[Trained, Path], None]:
    return lambda trained, out: trained.merge_into(out, dtype)


MERGED: Final = Format(
    format=ExportFormat.MERGED,
    about="a whole model, the fine-tune merged into its base",
    library="transformers",
    runtime=TRANSFORMERS,
    write=_write,
)
# 8 bits of fraction: each of a few dozen layers adds about 0.4% to the outputs' error, none of it one-sided.
MERGED_BF16: Final = Format(
    format=ExportFormat.MERGED_BF16,
    about="a whole model in bfloat16, the fine-tune merged into its base",
    library="transformers",
    runtime=TRANSFORMERS,
    write=_write_in(torch.bfloat16),
    tolerance=within(0.05, 0.95, 0.02),
)
# 11 bits of fraction, an eighth of that.
MERGED_FP16: Final = Format(
    format=ExportFormat.MERGED_FP16,
    about="a whole model in float16, the fine-tune merged into its base",
    library="transformers",
    runtime=TRANSFORMERS,
    write=_write_in(torch.float16),
    tolerance=within(0.01, 0.98, 0.01),
)
