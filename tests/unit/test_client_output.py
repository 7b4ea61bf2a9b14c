"""Values of metrics as people read them."""

from __future__ import annotations

import math

import pytest
from finemesh.client.figures import measured


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("train/loss", 0.1234567, "0.123457"),
        ("system/machine/network_sent_bytes_per_second", 4_600_000.0, "4.6 MB/s"),
        ("system/memory_bytes", 663_200_000.0, "663.2 MB"),
        ("system/memory_bytes", -1_500.0, "-1.5 KB"),
        ("system/memory_bytes", math.nan, "nan"),
        ("system/memory_bytes", math.inf, "inf"),
        ("val/bytes_per_word", 4_600_000.0, "4.6e+06"),
    ],
)
def test_bytes_have_the_unit_of_their_size(key: str, value: float, text: str) -> None:
    assert measured(key, value) == text
