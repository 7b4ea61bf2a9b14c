"""How far a package is from the trained model, as tables."""

from __future__ import annotations

from rich.markup import escape

from finemesh.client.cli.context import out
from finemesh.client.cli.output import table
from finemesh.v1 import export_pb2


def print_parity(parity: export_pb2.ParityReport) -> None:
    """All that was compared with its limit, then what differed, item by item; nothing if nothing was."""
    if parity.checks:
        out.print(f"parity over {parity.items} items in {escape(parity.runtime)}", highlight=False)
        out.print(table(("compared", "figure", "value", "limit", ""), [*map(_check, parity.checks)]))
    if parity.HasField("metric"):
        metric = parity.metric
        out.print(
            f"{metric.name}: trained {metric.trained:.3f} [{metric.trained_low:.3f}, "
            f"{metric.trained_high:.3f}], package {metric.package:.3f} [{metric.package_low:.3f}, "
            f"{metric.package_high:.3f}]",
            highlight=False,
            markup=False,
        )
    if parity.differences:
        columns = ("row", "tokens", "inputs differ", "outputs differ", "of their norm", "decisions agree")
        out.print(table(columns, [*map(_difference, parity.differences)]))
    for reason in parity.reasons:
        out.print(f"[red]beyond:[/] {escape(reason)}", highlight=False, soft_wrap=True)


def _check(check: export_pb2.ParityCheck) -> tuple[str, ...]:
    bound = "at most" if check.at_most else "at least"
    return (
        check.kind,
        escape(check.what),
        f"{check.value:.4g}",
        f"{bound} {check.limit:.4g}" if check.HasField("limit") else "",
        "[green]ok[/]" if check.passed else "[red]beyond[/]",
    )


def _difference(item: export_pb2.ParityDifference) -> tuple[str, ...]:
    return (
        escape(item.row_id),
        "equal" if item.tokens_equal else "[red]differ[/]",
        f"{item.input_difference:.3g}",
        f"{item.difference:.3g}",
        f"{item.relative_difference:.1%}",
        f"{item.agreement:.1%}",
    )
