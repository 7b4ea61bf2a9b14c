"""The same pixels in, the same tensor out: preprocessing of ONNX packages against that of transformers."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from typing import Any, Final

import numpy as np
import pytest
from finemesh.package.shipped.onnx_pixels import KNOWN, prepare
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

_DETR: Final = {"size": {"shortest_edge": 48, "longest_edge": 80}}
_SQUARE: Final = {"size": {"height": 33, "width": 47}}
_TILES: Final = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
# Model, name of the processor without its suffix, options.
PROCESSORS: Final = (
    ("blip", "Blip", _SQUARE),
    ("clip", "CLIP", {"size": {"shortest_edge": 40}, "crop_size": {"height": 36, "width": 44}}),
    ("conditional_detr", "ConditionalDetr", _DETR),
    ("convnext", "ConvNext", {"size": {"shortest_edge": 40}}),
    ("convnext", "ConvNext", {"size": {"shortest_edge": 384}}),
    ("detr", "Detr", _DETR),
    ("idefics3", "Idefics3", _TILES),
    ("idefics3", "Idefics3", {**_TILES, "do_image_splitting": False}),
    ("mask2former", "Mask2Former", {**_DETR, "size_divisor": 32}),
    ("rt_detr", "RTDetr", _SQUARE),
    ("segformer", "Segformer", _SQUARE),
    ("siglip", "Siglip", _SQUARE),
    ("smolvlm", "SmolVLM", _TILES),
    ("vit", "ViT", _SQUARE),
    ("yolos", "Yolos", _DETR),
)


@cache
def processor(place: int) -> Any:
    model, name, options = PROCESSORS[place]
    module = import_module(f"transformers.models.{model}.image_processing_pil_{model}")
    return getattr(module, f"{name}ImageProcessorPil")(**options)


@pytest.mark.parametrize("place", range(len(PROCESSORS)), ids=[name for _, name, _ in PROCESSORS])
@settings(max_examples=20)
@given(
    height=st.integers(1, 130), width=st.integers(1, 130), seed=st.integers(0, 99), mode=st.sampled_from("RL")
)
def test_pixels_are_those_of_transformers(place: int, height: int, width: int, seed: int, mode: str) -> None:
    made = processor(place)
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    picture = Image.fromarray(values).convert("L" if mode == "L" else "RGB")
    whole = {"do_pad": False} if "Detr" in type(made).__name__ or "Yolos" in type(made).__name__ else {}
    try:
        expected = made([picture.convert("RGB")], return_tensors="np", **whole)
    except ValueError:  # of a shape that YOLOS cannot take
        return
    config = json.loads(made.to_json_string())
    found = prepare(picture, config)
    np.testing.assert_array_equal(found["pixel_values"], expected["pixel_values"])
    if "pixel_attention_mask" in expected:
        np.testing.assert_array_equal(found["pixel_attention_mask"], expected["pixel_attention_mask"])


def test_each_that_is_known_is_compared() -> None:
    compared = {f"{name}ImageProcessor" for _, name, _ in PROCESSORS}
    assert KNOWN - compared == set()
