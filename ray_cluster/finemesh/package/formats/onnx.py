"""ONNX, run by onnxruntime: in full and half precision, and with weights in 8 or 4 bits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torch

from finemesh.core.spec.export import ExportFormat, ParityTolerance
from finemesh.package.formats.format import Format, Runtime
from finemesh.package.onnx_graphs.quantized import write_dynamic, write_four_bits, write_static
from finemesh.package.onnx_graphs.suitable import refuse_onnx
from finemesh.package.onnx_graphs.tracing import OPSET
from finemesh.package.onnx_graphs.whole import files_of, whole_graphs, write_graphs
from finemesh.package.trained import Trained

ONNXRUNTIME: Final = Runtime(
    name="onnxruntime",
    script="runtime_onnx.py",
    beside=("chat_template.py", "onnx_pixels.py", "onnx_words.py"),
    needs=("onnxruntime", "numpy", "pillow", "tokenizers", "jinja2", "safetensors"),
)


def _write_whole(trained: Trained, out: Path) -> None:
    for path in files_of(whole_graphs(trained)):
        os.link(path, out / path.name)


def _write_half(trained: Trained, out: Path) -> None:
    write_graphs(trained, out, torch.float16)


ONNX: Final = Format(
    format=ExportFormat.ONNX,
    about=f"a whole model as ONNX graphs of opset {OPSET}, in 32 bits",
    library="onnx",
    runtime=ONNXRUNTIME,
    write=_write_whole,
    refuse=refuse_onnx,
)
ONNX_FP16: Final = Format(
    format=ExportFormat.ONNX_FP16,
    about=f"a whole model as ONNX graphs of opset {OPSET}, in 16 bits",
    library="onnx",
    runtime=ONNXRUNTIME,
    write=_write_half,
    refuse=refuse_onnx,
    tolerance=ParityTolerance(
        max_difference=None, max_relative_difference=0.01, min_agreement=0.98, max_metric_loss=0.02
    ),
)


def _refuse_pictures(trained: Trained) -> str:
    if not trained.speaks:
        return "4 bits are for the matrices of language models: take ONNX_INT8 or ONNX_INT8_STATIC"
    return refuse_onnx(trained)


_EIGHT_BITS: Final = ParityTolerance(
    max_difference=None, max_relative_difference=0.1, min_agreement=0.9, max_metric_loss=0.05
)
_FOUR_BITS: Final = ParityTolerance(
    max_difference=None, max_relative_difference=0.3, min_agreement=0.75, max_metric_loss=0.1
)
ONNX_INT8: Final = Format(
    format=ExportFormat.ONNX_INT8,
    about=f"a whole model as ONNX graphs of opset {OPSET}, with matrices in 8 bits",
    library="onnx",
    runtime=ONNXRUNTIME,
    write=write_dynamic,
    refuse=refuse_onnx,
    tolerance=_EIGHT_BITS,
)
ONNX_INT8_STATIC: Final = Format(
    format=ExportFormat.ONNX_INT8_STATIC,
    about=f"a whole model as ONNX graphs of opset {OPSET}, in 8 bits by scales of its training data",
    library="onnx",
    runtime=ONNXRUNTIME,
    write=write_static,
    refuse=refuse_onnx,
    tolerance=_EIGHT_BITS,
)
ONNX_INT4: Final = Format(
    format=ExportFormat.ONNX_INT4,
    about=f"a whole model as ONNX graphs of opset {OPSET}, with matrices in 4 bits",
    library="onnx",
    runtime=ONNXRUNTIME,
    write=write_four_bits,
    refuse=_refuse_pictures,
    tolerance=_FOUR_BITS,
)
