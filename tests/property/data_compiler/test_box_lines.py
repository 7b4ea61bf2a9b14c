"""Labels of boxes against the arithmetic of the format, number by number."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from finemesh.data.writers.box_lines import box_lines
from hypothesis import given
from hypothesis import strategies as st

share = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.9999996, 5e-7])
boxes = st.lists(st.tuples(st.integers(0, 12_345), share, share, share, share), max_size=20)


@given(boxes)
def test_lines_hold_class_middle_and_sides_to_the_sixth_decimal(boxes: list[tuple[int, ...]]) -> None:
    classes = np.array([box[0] for box in boxes], np.int64)
    corners = np.array([box[1:] for box in boxes], np.float64).reshape(-1, 2, 2)
    near, far = corners.min(axis=1), corners.max(axis=1)
    text, begins = box_lines(classes, near, far)
    lines = [text[begin:end].decode() for begin, end in pairwise(begins.tolist())]
    assert "".join(lines).encode() == text
    for line, number, (x0, y0), (x1, y1) in zip(lines, classes, near, far, strict=True):
        head, *written = line.removesuffix("\n").split(" ")
        expected = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
        assert head == str(number)
        for word, value in zip(written, expected, strict=True):
            assert len(word) == len("0.000000")
            assert abs(float(word) - value) <= 0.5e-6 + 1e-12
