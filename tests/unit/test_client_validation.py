"""Words on the command line become thresholds; what is left out stays with the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from finemesh.client.cli import validation
from finemesh.client.cli.app import app
from finemesh.v1 import validation_report_pb2
from typer.testing import CliRunner

Thresholds = validation_report_pb2.ValidationThresholds
Report = validation_report_pb2.ValidationReport


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command asks for; the answer is a report that failed."""
    calls: list[Any] = []

    def run(dataset: str, thresholds: Thresholds, *, strict: bool) -> Report:
        calls.append((dataset, thresholds, strict))
        finding = validation_report_pb2.Finding(id="BOX_OUTSIDE", row_id="a[b]\x1b[2J", evidence="[red]")
        return Report(
            state=Report.STATE_SUCCEEDED,
            verdict=Report.VERDICT_FAILED,
            findings=[finding],
            measures=validation_report_pb2.ValidationMeasures(picture_count=3, similar_pair_count=0),
        )

    monkeypatch.setattr(validation, "_run", run)
    return calls


def test_nothing_said_leaves_all_to_the_server(asked: list[Any]) -> None:
    done = CliRunner().invoke(app, ["dataset", "validate", "items"])
    assert asked == [("items", Thresholds(), False)]
    assert done.exit_code == 1
    assert "a[b]" in done.output
    assert "\x1b[2J" not in done.output
    assert "0 pairs of pictures" in done.output


def test_every_threshold_can_be_said(asked: list[Any]) -> None:
    words = {
        "min-rows": "0",
        "min-class-examples": "3",
        "max-imbalance": "4",
        "min-tail-share": "0.2",
        "max-image-pixels": "1000",
        "max-aspect-ratio": "2",
        "min-box-iou": "0",
        "max-box-overhang": "2.5",
        "max-similar-bits": "0",
        "max-leakage": "0.5",
        "max-quarantined": "1",
        "max-examples": "7",
        "tokenizer": str(Path("some") / "folder"),
        "max-tokens": "512",
    }
    said = [part for name, value in words.items() for part in (f"--{name}", value)]
    CliRunner().invoke(app, ["dataset", "validate", "items", "--strict", *said])
    [(_, thresholds, strict)] = asked
    assert strict
    assert len(thresholds.ListFields()) == len(Thresholds.DESCRIPTOR.fields) == len(words)
