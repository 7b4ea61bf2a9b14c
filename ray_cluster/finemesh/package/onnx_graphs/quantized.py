"""Graphs whose weights are kept in 8 or 4 bits, by onnxruntime's own quantisation
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    8 bits, dynamic    products of matrices; the scale of what comes in is found anew each time
    8 bits, static     products and convolutions; scales are those of items of the training split
    4 bits             weights of products alone, in blocks of 32 with a scale each (MatMulNBits)

Weights of 8 bits use 7 of them: processors without VNNI would overflow otherwise, and results would differ
from machine to machine.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import onnx

from finemesh.core.errors import InvalidError
from finemesh.package.onnx_graphs.calibration import Feeds
from finemesh.package.onnx_graphs.tracing import INLINE_BYTES
from finemesh.package.onnx_graphs.whole import FACTS, files_of, read_facts, whole_graphs, write_facts
from finemesh.package.trained import Trained

_PRODUCTS: Final = ("MatMul", "Gemm")
_BLOCK: Final = 32

Shrink = Callable[[Path, Path, str], None]
"""(a graph in fp32, where it goes, its name) -> writes it."""


def write_dynamic(trained: Trained, out: Path) -> None:
    """8 bits, scales found as it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def shrink(source: Path, target: Path, _name: str) -> None:
        quantize_dynamic(
            _bare(source),
            target,
            op_types_to_quantize=[*_PRODUCTS],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=is_large(source),
        )

    _write(trained, out, "int8, dynamic", shrink)


def write_static(trained: Trained, out: Path) -> None:
    """8 bits, scales by items of the training split."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with Feeds.of(trained) as feeds:

        def shrink(source: Path, target: Path, name: str) -> None:
            quantize_static(
                _bare(source),
                target,
                feeds.reader(name),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*_PRODUCTS, "Conv"],
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                use_external_data_format=is_large(source),
            )

        _write(trained, out, f"int8, static by {feeds.items} items", shrink)


def write_four_bits(trained: Trained, out: Path) -> None:
    """4 bits, weights alone."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    def shrink(source: Path, target: Path, _name: str) -> None:
        quantizer: Any = MatMulNBitsQuantizer(str(source), bits=4, block_size=_BLOCK, is_symmetric=False)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target), is_large(source))

    _write(trained, out, f"int4, weights in blocks of {_BLOCK}", shrink)


def is_large(graph: Path) -> bool:
    """Whether its weights lie beside it."""
    return graph.with_name(f"{graph.name}.data").exists() or graph.stat().st_size > INLINE_BYTES


def _bare(graph: Path) -> Any:
    """A graph without the shapes between its nodes: onnxruntime turns weights around, and then trips over
    what is said of their shape.
    """
    model = onnx.load(str(graph))
    del model.graph.value_info[:]
    return model


def _write(trained: Trained, out: Path, precision: str, shrink: Shrink) -> None:
    whole = whole_graphs(trained)
    facts = read_facts(whole)
    shrunk = False
    for path in files_of(whole):
        if path.suffix == ".onnx" and _has_products(path):
            with _quietly(path.name):
                shrink(path, out / path.name, path.stem)
            shrunk |= _bytes(out / path.name) < _bytes(path)
        elif path.suffix == ".onnx":
            for each in path.parent.glob(f"{path.name}*"):
                shutil.copyfile(each, out / each.name)
        elif path.name != FACTS and path.suffix != ".data":
            shutil.copyfile(path, out / path.name)
    if not shrunk:
        raise InvalidError.of(
            "export.format",
            f"no {precision} of this model: no weights of it would become smaller; export it as ONNX",
            reason="FORMAT_UNSUITABLE",
        )
    write_facts(out, facts | {"precision": precision})


def _has_products(graph: Path) -> bool:
    model = onnx.load(str(graph), load_external_data=False)
    return any(node.op_type in (*_PRODUCTS, "Conv") for node in model.graph.node)


def _bytes(graph: Path) -> int:
    return sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*"))


@contextlib.contextmanager
def _quietly(name: str) -> Generator[None]:
    """Without advice to preprocess graphs, which come optimised. What fails is said to be unsuitable."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        message = f"onnxruntime does not quantise {name} of this model: {error}; export it as ONNX"
        raise InvalidError.of("export.format", message, reason="FORMAT_UNSUITABLE") from error
    finally:
        logger.setLevel(level)
