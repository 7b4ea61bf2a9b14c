"""Labels of boxes as text, many at a time: `5 0.250000 0.500000 0.100000 0.200000`."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from finemesh.data.boxes import Numbers

_PLACES: Final = 10 ** np.arange(6, -1, -1)  # of the digits of a share in millionths


def box_lines(
    classes: npt.NDArray[np.int64], near: Numbers, far: Numbers
) -> tuple[bytes, npt.NDArray[np.int64]]:
    """A line for each box: its class, its middle and its sides, with six decimals. `near` and `far`,
    float64[M, 2], are its corners in shares of the picture. With the text comes int64[M + 1], where the line
    of each box begins, and the last one ends.
    """
    shares = np.concatenate([(near + far) / 2, far - near], axis=1)
    digits = np.rint(shares * 1e6).astype(np.int64)[:, :, None] // _PLACES % 10
    written = np.full((len(classes), 4, 9), ord(" "), np.uint8)
    written[:, :, 1] = digits[:, :, 0] + ord("0")
    written[:, :, 2] = ord(".")
    written[:, :, 3:] = digits[:, :, 1:] + ord("0")
    heads = classes.astype(np.bytes_)[:, None].view(np.uint8)  # zeros behind a short number
    ends = np.full((len(classes), 1), ord("\n"), np.uint8)
    lines = np.concatenate([heads, written.reshape(-1, 36), ends], axis=1)
    filled = lines != 0
    return lines[filled].tobytes(), np.concatenate([[0], np.cumsum(filled.sum(axis=1))])
