"""How model families write a box in text, both ways.

UNIT         LLaVA-1.5: `[0.32, 0.14, 0.89, 0.70]`, x and y of two corners as shares of the picture
(Liu et al. 2023, Improved Baselines with Visual Instruction Tuning, appendix)
THOUSANDTHS  Qwen2-VL: `<|box_start|>(320,140),(890,700)<|box_end|>`, in thousandths of the picture
(Wang et al. 2024, Qwen2-VL, section 2.2)
PIXELS       Qwen2.5-VL: `[320, 140, 890, 700]`, in pixels of the picture that the model sees
(Bai et al. 2025, Qwen2.5-VL, section 2.1)
LOCATIONS    PaliGemma: `<loc0143><loc0327><loc0716><loc0910>`, y before x, in 1024 bins
(Beyer et al. 2024, PaliGemma, section 3.2.4)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

Corners = tuple[float, float, float, float]
"""x and y of the top left corner, then of the bottom right one, in pixels."""

_NUMBER: Final = r"\s*(-?\d+(?:\.\d+)?)\s*"


class BoxConvention(StrEnum):
    UNIT = "unit"
    THOUSANDTHS = "thousandths"
    PIXELS = "pixels"
    LOCATIONS = "locations"


@dataclass(frozen=True, slots=True)
class _Notation:
    """`scale` is what the whole side of a picture counts; 0 stands for its pixels."""

    scale: float
    write: Callable[[Corners], str]
    pattern: re.Pattern[str]
    y_first: bool = False


def _bins(corners: Corners) -> str:
    return "".join(f"<loc{min(max(int(side), 0), 1023):04d}>" for side in corners)


_NOTATIONS: Final = {
    BoxConvention.UNIT: _Notation(
        1.0,
        lambda corners: "[" + ", ".join(f"{side:.2f}" for side in corners) + "]",
        re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]"),
    ),
    BoxConvention.THOUSANDTHS: _Notation(
        1000.0,
        lambda corners: "<|box_start|>({:.0f},{:.0f}),({:.0f},{:.0f})<|box_end|>".format(*corners),
        re.compile(rf"\({_NUMBER},{_NUMBER}\)\s*,\s*\({_NUMBER},{_NUMBER}\)"),
    ),
    BoxConvention.PIXELS: _Notation(
        0.0,
        lambda corners: "[{:.0f}, {:.0f}, {:.0f}, {:.0f}]".format(*corners),
        re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]"),
    ),
    BoxConvention.LOCATIONS: _Notation(1024.0, _bins, re.compile(r"<loc(\d{4})>" * 4), y_first=True),
}


def write_box(bbox: Sequence[float], width: int, height: int, convention: BoxConvention) -> str:
    """The text of a box [x, y, width, height] in pixels of a picture of `width` x `height`, clipped to it."""
    x, y, box_width, box_height = bbox
    left, right = _clipped(x, width), _clipped(x + box_width, width)
    top, bottom = _clipped(y, height), _clipped(y + box_height, height)
    notation = _NOTATIONS[convention]
    across, down = (notation.scale / width, notation.scale / height) if notation.scale else (1.0, 1.0)
    corners = (left * across, top * down, right * across, bottom * down)
    return notation.write(_swapped(corners) if notation.y_first else corners)


def read_box(text: str, width: int, height: int, convention: BoxConvention) -> Corners | None:
    """The first box that `text` holds, in pixels of a picture of `width` x `height`; None without one."""
    return next(read_boxes(text, width, height, convention), None)


def read_boxes(text: str, width: int, height: int, convention: BoxConvention) -> Iterator[Corners]:
    """Every box that `text` holds, in pixels of a picture of `width` x `height`."""
    notation = _NOTATIONS[convention]
    across, down = (width / notation.scale, height / notation.scale) if notation.scale else (1.0, 1.0)
    for found in notation.pattern.finditer(text):
        first, second, third, fourth = (float(number) for number in found.groups())
        corners = (first, second, third, fourth)
        left, top, right, bottom = _swapped(corners) if notation.y_first else corners
        yield left * across, top * down, right * across, bottom * down


def _clipped(value: float, side: int) -> float:
    return min(max(value, 0.0), float(side))


def _swapped(corners: Corners) -> Corners:
    first, second, third, fourth = corners
    return second, first, fourth, third
