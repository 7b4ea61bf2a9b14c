"""GGUF, run by llama.cpp: in 16 bits, and with weights in 8 to 4. With it comes an Ollama Modelfile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.export import ExportFormat, ParityTolerance
from finemesh.package.formats.format import Format, Runtime, within
from finemesh.package.gguf_file import plain_template, unsuitable, write_gguf
from finemesh.package.modelfile import ask_with, write_modelfile
from finemesh.package.shipped.chat_template import compiled
from finemesh.package.trained import Trained

LLAMA_CPP: Final = Runtime(
    name="llama.cpp",
    script="runtime_llama_cpp.py",
    beside=("chat_template.py",),
    needs=("cyllama", "numpy", "pillow", "jinja2", "safetensors"),
)
# `llama_ftype` of llama.h. K-quants come in blocks of so many weights of a row.
_FILE_TYPES: Final = {
    ExportFormat.GGUF_Q8_0: 7,
    ExportFormat.GGUF_Q6_K: 18,
    ExportFormat.GGUF_Q5_K_M: 17,
    ExportFormat.GGUF_Q4_K_M: 15,
    ExportFormat.GGUF_Q4_0: 2,
}
_K_BLOCK: Final = 256
_BLOCK: Final = 32


def _refuse(trained: Trained) -> str:
    return unsuitable(trained.base_model, plain=trained.plain)


def _refuse_rows(block: int) -> Callable[[Trained], str]:
    def refuse(trained: Trained) -> str:
        if why := _refuse(trained):
            return why
        config = json.loads((trained.base_model / "config.json").read_bytes())
        for name in ("hidden_size", "intermediate_size"):
            if config[name] % block:
                return f"its weights come in blocks of {block}, and {name} is {config[name]}"
        return ""

    return refuse


def _write_half(trained: Trained, out: Path) -> None:
    _write(trained, out / "model.gguf", half=True)
    _write_modelfile(trained, out)


def _writer(form: ExportFormat) -> Callable[[Trained, Path], None]:
    """llama.cpp makes it of a file in 32 bits, as it does for everybody."""

    def write(trained: Trained, out: Path) -> None:
        whole = trained.scratch / "whole.gguf"
        if not whole.exists():
            _write(trained, whole, half=False)
        _quantize(whole, out / "model.gguf", _FILE_TYPES[form])
        _write_modelfile(trained, out)

    return write


def _write(trained: Trained, out: Path, *, half: bool) -> None:
    words = _words(trained)
    try:
        write_gguf(trained.merged, words, out, half=half, plain=trained.plain)
    except ValueError as error:
        raise InvalidError.of("export.format", str(error), reason="FORMAT_UNSUITABLE") from error


def _words(trained: Trained) -> Path:
    """A folder with the tokenizer and the template of the training."""
    folder = trained.scratch / "words"
    if not folder.exists():
        trained.model.processor.save_pretrained(folder)
    return folder


def _quantize(source: Path, out: Path, file_type: int) -> None:
    from cyllama.llama import llama_cpp

    parameters: Any = llama_cpp.LlamaModelQuantizeParams()
    parameters.ftype = file_type
    llama_cpp.disable_logging()
    llama_cpp.model_quantize(str(source), str(out), parameters)


def _write_modelfile(trained: Trained, out: Path) -> None:
    tokenizer: Any = trained.model.tokenizer
    special = {
        name: str(text) for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)
    }
    ask = None if trained.plain else ask_with(compiled(plain_template(tokenizer.chat_template)), special)
    context_tokens = trained.model.config.max_position_embeddings
    write_modelfile(out, ask, [tokenizer.eos_token], context_tokens)


def _quantized(form: ExportFormat, words: str, block: int, tolerance: ParityTolerance) -> Format:
    return Format(
        format=form,
        about=f"a whole model as one GGUF file, {words}",
        library="gguf",
        runtime=LLAMA_CPP,
        write=_writer(form),
        refuse=_refuse_rows(block),
        tolerance=tolerance,
    )


GGUF_F16: Final = Format(
    format=ExportFormat.GGUF_F16,
    about="a whole model as one GGUF file, in 16 bits",
    library="gguf",
    runtime=LLAMA_CPP,
    write=_write_half,
    refuse=_refuse,
    tolerance=within(0.01, 0.98, 0.02),
)
# Declared for models that were trained: of small ones, or of few items, quantised weights may fall outside.
GGUF_FORMATS: Final = (
    GGUF_F16,
    _quantized(ExportFormat.GGUF_Q8_0, "with weights in 8 bits", _BLOCK, within(0.1, 0.9, 0.05)),
    _quantized(ExportFormat.GGUF_Q6_K, "with weights in 6 bits", _K_BLOCK, within(0.12, 0.9, 0.05)),
    _quantized(ExportFormat.GGUF_Q5_K_M, "with weights in 5 bits", _K_BLOCK, within(0.18, 0.85, 0.08)),
    _quantized(ExportFormat.GGUF_Q4_K_M, "with weights in 4 bits", _K_BLOCK, within(0.25, 0.8, 0.1)),
    _quantized(ExportFormat.GGUF_Q4_0, "with weights in 4 bits", _BLOCK, within(0.25, 0.8, 0.1)),
)
