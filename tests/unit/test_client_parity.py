"""What `finemesh export show` says of a package's distance from the trained model."""

from __future__ import annotations

from finemesh.client.cli.context import out
from finemesh.client.cli.parity import print_parity
from finemesh.v1 import export_pb2


def test_every_check_and_every_item_is_shown_as_it_is_called() -> None:
    """Names of rows are whatever people call them."""
    parity = export_pb2.ParityReport(items=2, runtime="torch 2", reasons=["decisions: [x] is 0.5"])
    parity.checks.add(kind="decisions", what="share that agrees", value=0.5, limit=1.0, passed=False)
    parity.checks.add(kind="raw outputs", what="largest difference", value=2.0, at_most=True, passed=True)
    parity.differences.add(row_id="[red]../r7", tokens_equal=False, difference=float("inf"), agreement=0.5)
    parity.metric.CopyFrom(export_pb2.ParityMetric(name="map", trained=0.9, package=0.25))
    with out.capture() as captured:
        print_parity(parity)
    lines = captured.get().splitlines()
    [decisions] = [line.split() for line in lines if line.strip().startswith("decisions")]
    assert decisions == ["decisions", "share", "that", "agrees", "0.5", "at", "least", "1", "beyond"]
    [item] = [line.split() for line in lines if "r7" in line]
    assert item == ["[red]../r7", "differ", "0", "inf", "0.0%", "50.0%"]
    assert any("map: trained 0.900" in line and "package 0.250" in line for line in lines)
    assert "beyond: decisions: [x] is 0.5" in lines


def test_nothing_is_said_of_what_was_not_compared() -> None:
    with out.capture() as captured:
        print_parity(export_pb2.ParityReport())
    assert captured.get() == ""
