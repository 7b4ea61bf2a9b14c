"""Figures as people read them."""

from __future__ import annotations

import math


def size(size_bytes: float) -> str:
    value = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def measured(key: str, value: float, digits: int = 6) -> str:
    """A value of a metric with so many digits; of one whose name ends in bytes, with the unit of its size."""
    name = key.removesuffix("_per_second")
    if not name.endswith("bytes") or not math.isfinite(value):
        return f"{value:.{digits}g}"
    rate = "/s" if name != key else ""
    return f"{'-' if value < 0 else ''}{size(abs(value))}{rate}"
