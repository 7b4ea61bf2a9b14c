"""`write_graph`: a module becomes an ONNX file by `torch.onnx.export(dynamo=True)`.

https://docs.pytorch.org/docs/stable/onnx_export.html
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from finemesh.core.errors import InvalidError

OPSET: Final = 20
INLINE_BYTES: Final = 1 << 20  # larger weights lie beside the graph, which protobuf could not hold past 2 GB
_TELLING_CHARACTERS: Final = 300

Tensors = Mapping[str, torch.Tensor]


class Traced(torch.nn.Module):
    """A module that takes tensors by name and gives the outputs of a graph in their order."""

    def forward(self, fed: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        raise NotImplementedError


@dataclass(frozen=True)
class Graph:
    """What is traced.

    Attributes:
        name: of the file, without suffix.
        module: what computes it.
        fed: example inputs by name; an axis that may vary is larger than 1 here.
        axes: of each input, the axes whose length may vary, by a name that equal lengths share.
        outputs: names, in the order of the module's.
        by_bytecode: read what Python runs, where running it would fix the length of an axis.
    """

    name: str
    module: Traced
    fed: dict[str, torch.Tensor]
    axes: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    by_bytecode: bool = False


def write_graph(graph: Graph, folder: Path) -> Path:
    """Write `<name>.onnx`, and its weights beside it as `<name>.onnx.data` where they are large.

    Raises:
        InvalidError: FORMAT_UNSUITABLE, the exporter does not take the module, or only by fixing an axis
            that has to vary.
    """
    path = folder / f"{graph.name}.onnx"
    names = {name for axes in graph.axes.values() for name in axes.values()}
    # How long a sum of two axes is, the exporter finds out by itself.
    free = {name: torch.export.Dim.DYNAMIC if "+" in name else torch.export.Dim(name) for name in names}
    shapes = {name: {axis: free[dim] for axis, dim in graph.axes[name].items()} for name in graph.fed}
    try:
        with _quietly(), torch.no_grad():
            program: Any = torch.onnx.export(
                _exported(graph, shapes) if graph.by_bytecode else graph.module,
                kwargs={"fed": graph.fed},
                dynamo=True,
                dynamic_shapes={"fed": shapes},
                input_names=[*graph.fed],
                output_names=[*graph.outputs],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # its own errors, and any of what it traces through
        first = str(error.__cause__ or error).strip()[:_TELLING_CHARACTERS]
        raise _unsuitable(f"torch's exporter does not take {graph.name}: {first}") from error
    _check_axes(graph, program.model)
    _forget_sources(program.model)
    program.save(str(path), external_data=_weight_bytes(program.model) > INLINE_BYTES)
    return path


def _exported(graph: Graph, shapes: Any) -> Any:
    fed, dims = {"fed": graph.fed}, {"fed": shapes}
    return torch.export.export(graph.module, (), fed, dynamic_shapes=dims, strict=True)


def _check_axes(graph: Graph, model: Any) -> None:
    """The exporter falls back to fixed lengths where it cannot keep them free, without a word."""
    for value in model.graph.inputs:
        for axis, name in graph.axes[value.name].items():
            if isinstance(value.shape[axis], int):
                raise _unsuitable(f"its {name} would be fixed to {value.shape[axis]}")
            value.shape[axis] = name


def _forget_sources(model: Any) -> None:
    """Nodes come with the lines of source, on this machine, that they were made of."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()


def _unsuitable(why: str) -> InvalidError:
    return InvalidError.of(
        "export.format", f"no ONNX of this model: {why}; export it as MERGED", reason="FORMAT_UNSUITABLE"
    )


def _weight_bytes(model: Any) -> int:
    return sum(each.const_value.nbytes for each in model.graph.initializers.values())


@contextlib.contextmanager
def _quietly() -> Generator[None]:
    """Without the exporter's prints and warnings, and without checks of transformers that no graph can hold:
    they compare shapes, which here come from transformers' own processor.
    """
    before = os.environ.get("TRANSFORMERS_DISABLE_TORCH_CHECK")
    os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if before is None:
            del os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"]
        else:
            os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = before
