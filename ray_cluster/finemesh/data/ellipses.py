"""Shapes that are turned: boxes and ellipses, in pixels, as boxes and masks."""

from __future__ import annotations

import math

import numpy as np

from finemesh.data.rle import Mask, from_window


def turned_box(x: float, y: float, width: float, height: float, degrees: float) -> list[float]:
    """The corners `[x0, y0, ..., x3, y3]` of a box that is turned clockwise about its top left corner
    `x`, `y`, from that corner on.
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    right, down = (width * cosine, width * sine), (-height * sine, height * cosine)
    corners = [(0.0, 0.0), right, (right[0] + down[0], right[1] + down[1]), down]
    return [side for dx, dy in corners for side in (x + dx, y + dy)]


def ellipse_box(x: float, y: float, rx: float, ry: float, degrees: float) -> list[float]:
    """`[x, y, width, height]` of the tightest box around an ellipse with its centre at `x`, `y`, whose radii
    are turned clockwise.
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width = math.hypot(rx * cosine, ry * sine)
    half_height = math.hypot(rx * sine, ry * cosine)
    return [x - half_width, y - half_height, 2 * half_width, 2 * half_height]


def ellipse_mask(x: float, y: float, rx: float, ry: float, degrees: float, size: tuple[int, int]) -> Mask:
    """The pixels of a picture of `size` (width, height) whose centres lie in that ellipse."""
    width, height = size
    left, top, box_width, box_height = ellipse_box(x, y, rx, ry, degrees)
    columns = np.arange(max(0, math.floor(left)), min(width, math.ceil(left + box_width)))
    rows = np.arange(max(0, math.floor(top)), min(height, math.ceil(top + box_height)))
    if not (rx > 0 and ry > 0 and columns.size and rows.size):
        return from_window(np.zeros((0, 0), dtype=np.bool_), 0, 0, size)
    dx, dy = columns[None, :] + 0.5 - x, rows[:, None] + 0.5 - y
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, across = (dx * cosine + dy * sine) / rx, (dy * cosine - dx * sine) / ry
    return from_window(along**2 + across**2 <= 1, int(columns[0]), int(rows[0]), size)
