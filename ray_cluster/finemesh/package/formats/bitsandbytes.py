"""The whole model with its linear layers quantised by bitsandbytes, for transformers.

8 bits by https://arxiv.org/abs/2208.07339, 4 bits (NF4) by https://arxiv.org/abs/2305.14314; the head, and
what joins vision and language, stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import Tower
from finemesh.package.formats.format import Format, within
from finemesh.package.formats.transformers_runtime import TRANSFORMERS
from finemesh.package.trained import Trained

_RUNTIME: Final = replace(TRANSFORMERS, needs=(*TRANSFORMERS.needs, "accelerate", "bitsandbytes"))
_HEAD: Final = "lm_head"


def _write_int8(trained: Trained, out: Path) -> None:
    _write(trained, out, {"load_in_8bit": True})


def _write_nf4(trained: Trained, out: Path) -> None:
    _write(
        trained,
        out,
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": torch.float32,
        },
    )


def _write(trained: Trained, out: Path, options: dict[str, Any]) -> None:
    """Quantised as it is loaded from the merge, a tensor at a time, and saved."""
    import transformers

    family = trained.family
    kept = [_HEAD, *family.towers.get(Tower.CONNECTOR, ())]
    config = transformers.BitsAndBytesConfig(llm_int8_skip_modules=kept, **options)
    module = getattr(transformers, family.auto_class).from_pretrained(
        trained.merged, dtype=torch.float32, quantization_config=config, device_map={"": "cpu"}
    )
    module.save_pretrained(out)


BNB_INT8: Final = Format(
    format=ExportFormat.BNB_INT8,
    about="a whole model, its linear layers in 8 bits by bitsandbytes",
    library="transformers",
    runtime=_RUNTIME,
    write=_write_int8,
    tolerance=within(0.1, 0.9, 0.05),
)
BNB_NF4: Final = Format(
    format=ExportFormat.BNB_NF4,
    about="a whole model, its linear layers in 4 bits (NF4) by bitsandbytes",
    library="transformers",
    runtime=_RUNTIME,
    write=_write_nf4,
    tolerance=within(0.3, 0.75, 0.1),
)
