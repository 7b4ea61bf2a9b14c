"""The graph of a model that looks at pictures and does not speak.

Shape legend: B pictures, C, H, W channels, height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from finemesh.package.onnx_graphs.tracing import Graph, Traced
from finemesh.package.shipped.onnx_pixels import prepare

_SAMPLES_PX: Final = ((96, 64), (64, 96))
_MASK: Final = "pixel_mask"


class _Looking(Traced):
    def __init__(self, model: torch.nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, fed: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found = self.model(**fed)
        return tuple(found[name] for name in self.outputs)


def picture_graph(
    model: Any, pixels: Mapping[str, Any], facts: Mapping[str, Any], *, by_bytecode: bool = False
) -> Graph:
    """The whole model: any number of pictures, of any size where its processor keeps their shape.

    Args:
        model: of transformers.
        pixels: the config of its image processor.
        facts: `inputs` and `outputs`, the names of what it takes and gives (`decision_facts`).
        by_bytecode: see `Graph`.
    """
    shapes = [sample_pixels(pixels, size)["pixel_values"].shape[1:] for size in _SAMPLES_PX]
    free = shapes[0] != shapes[1]
    values_BCHW = torch.zeros(2, *shapes[0], dtype=model.dtype)
    fed = {"pixel_values": values_BCHW}
    axes = {"pixel_values": {0: "batch"} | ({2: "height", 3: "width"} if free else {})}
    if _MASK in facts["inputs"]:
        fed[_MASK] = torch.ones(2, *shapes[0][1:], dtype=torch.int64)
        axes[_MASK] = {0: "batch"} | ({1: "height", 2: "width"} if free else {})
    outputs = tuple(facts["outputs"])
    return Graph("model", _Looking(model, outputs), fed, axes, outputs, by_bytecode)


def sample_pixels(pixels: Mapping[str, Any], size_px: tuple[int, int]) -> dict[str, Any]:
    """What a processor makes of some picture of a height and width."""
    return prepare(Image.fromarray(np.zeros((*size_px, 3), np.uint8)), dict(pixels))
