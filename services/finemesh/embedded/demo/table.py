"""The demo's findings as a table for people."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from finemesh.embedded.demo.facts import Findings, Scores


def show(findings: Findings, console: Console) -> None:
    """Print everything that was found."""
    parts = [_facts(findings), _stages(findings)]
    parts += [Text(f"note: {note}", "yellow") for note in findings.notes]
    parts += [Text(f"not as promised: {failure}", "bold red") for failure in findings.failures]
    if not findings.failures:
        parts.append(Text("everything is as promised", "bold green"))
    console.print(Group(*parts), soft_wrap=False)


def _facts(findings: Findings) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = [("task", findings.task), ("base model", findings.base_model)]
    rows += [(f"ledger, {stage}", ledger) for stage, ledger in findings.ledgers.items()]
    rows += [("splits", findings.splits), ("validation", findings.validation)]
    rows += [(f"loss, {run}", f"{first:.3f} → {last:.3f}") for run, (first, last) in findings.losses.items()]
    rows += [("killed", findings.killed), ("comparison", findings.verdict)]
    rows += _score_rows(findings.scores) if findings.scores else []
    rows += [(f"parity, {form}", parity) for form, parity in findings.parity.items()]
    rows += [("events seen", _events(findings)), ("package", findings.package)]
    for name, value in rows:
        if value:
            table.add_row(name, escape(value))
    return table


def _score_rows(scores: Scores) -> list[tuple[str, str]]:
    return [
        ("held-out accuracy", f"{scores.trained} on {scores.items} items, 95% interval over videos"),
        ("  untrained model", str(scores.untrained)),
        ("  majority class", f"{scores.majority:.3f}"),
        ("  blank images", str(scores.blanked)),
    ]


def _events(findings: Findings) -> str:
    kinds = ", ".join(f"{fact} {count}" for fact, count in sorted(findings.events.items()))
    return f"{sum(findings.events.values())}: {kinds}" if kinds else ""


def _stages(findings: Findings) -> Table:
    table = Table("stage", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("seconds", justify="right")
    table.add_column("peak memory, MB", justify="right")
    for stage in findings.stages:
        table.add_row(stage.name, f"{stage.seconds:.1f}", f"{stage.peak_memory_bytes / 1e6:.0f}")
    total = sum(stage.seconds for stage in findings.stages)
    peak = max((stage.peak_memory_bytes for stage in findings.stages), default=0)
    table.add_row("[bold]all[/]", f"[bold]{total:.1f}[/]", f"[bold]{peak / 1e6:.0f}[/]")
    return table
