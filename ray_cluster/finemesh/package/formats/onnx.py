"""ONNX, run by onnxruntime: in full and half precision, and with weights in 8 or 4 bits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from finemesh.core.spec.export import ExportFormat, ParityTolerance
from finemesh.package.formats.format import Format, Runtime, within
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


def _onnx(
    form: ExportFormat,
    words: str,
    write: Callable[[Trained, Path], None],
    tolerance: ParityTolerance,
) -> Format:
    return Format(
        format=form,
        about=f"a whole model as ONNX graphs of opset {OPSET}, {words}",
        library="onnx",
        runtime=ONNXRUNTIME,
        write=write,
        refuse=refuse_onnx,
        tolerance=tolerance,
    )


ONNX_FORMATS: Final = (
    _onnx(ExportFormat.ONNX, "in 32 bits", _write_whole, ParityTolerance()),
    _onnx(ExportFormat.ONNX_FP16, "in 16 bits", _write_half, within(0.01, 0.98, 0.02)),
    _onnx(ExportFormat.ONNX_INT8, "with matrices in 8 bits", write_dynamic, within(0.1, 0.9, 0.05)),
    _onnx(
        ExportFormat.ONNX_INT8_STATIC,
        "in 8 bits by scales of its training data",
        write_static,
        within(0.1, 0.9, 0.05),
    ),
    _onnx(
        ExportFormat.ONNX_INT4,
        "with matrices in 4 bits",
        write_four_bits,
        within(0.3, 0.75, 0.1),
    ),
)
