"""What `finemesh runs log-items` reads, and what it says of a file that it cannot use."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import typer
from finemesh.client.cli.evaluations import _read  # pyright: ignore[reportPrivateUsage]


def test_numbers_beside_the_id_are_metrics(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": 1, "accuracy": true, "answer": "x"}\n{"id": "b", "group": "g", "loss": 0.5}\n')
    items = _read(path)
    assert (list(items.ids), list(items.groups), list(items.digests)) == (["1", "b"], ["", "g"], [])
    values = {metric.key: list(metric.values) for metric in items.metrics}
    assert values["accuracy"][0] == 1
    assert math.isnan(values["accuracy"][1])
    assert values["loss"][1] == 0.5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "a", "metrics": {"accuracy": 1}}', "tells no metric: write numbers beside the ids"),
        ("", "tells no metric"),
        ('{"accuracy": 1}', "line 1 is no JSON object with an id"),
        ("[1]", "line 1 is no JSON object with an id"),
    ],
)
def test_a_file_without_items_or_metrics_is_told_what_to_write(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(f"{line}\n" if line else "")
    with pytest.raises(typer.BadParameter, match=told):
        _read(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    with pytest.raises(typer.BadParameter, match="cannot be read"):
        _read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(typer.BadParameter, match="cannot be read"):
        _read(path)
