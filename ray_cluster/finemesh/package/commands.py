"""`finemesh export evaluate`: packages on this machine compared on a dataset. It joins the command line by
the group `finemesh.commands`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finemesh.core.errors import FinemeshError

if TYPE_CHECKING:  # torch takes its time
    from finemesh.package.evaluating import Evaluation

EXIT_FAILED: Final = 1
_out: Final = Console()
_err: Final = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Add the command to those of `finemesh export`."""
    for group in app.registered_groups:
        if group.typer_instance and group.name == "export":
            group.typer_instance.command("evaluate")(evaluate)


def evaluate(
    packages: Annotated[list[Path], typer.Argument(help="Folders of packages of one task.", exists=True)],
    dataset: Annotated[Path, typer.Option(help="Folder of a canonical dataset.", exists=True)],
    split: Annotated[str, typer.Option(help="Split to ask.")] = "test",
    limit: Annotated[int, typer.Option(help="Ask so many rows at most; 0 asks all.", min=0)] = 0,
    base: Annotated[Path | None, typer.Option(help="Folder of the base model, for adapters.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of an answer at most.", min=1)] = 128,
    page: Annotated[
        Path | None, typer.Option("--html", dir_okay=False, help="Write the table as a page, too.")
    ] = None,
) -> None:
    """Compare size, memory, latency and metrics of packages that were downloaded, each in its own runtime."""
    if page:
        _check_place(page)
    from finemesh.package.evaluating import evaluate_packages
    from finemesh.package.evaluation_page import to_html

    try:
        with _err.status("running the packages"):
            found = evaluate_packages(
                packages, dataset, split, limit=limit, base_model=base, max_tokens=max_tokens
            )
    except FinemeshError as error:
        _err.print(
            f"[red]error:[/] {escape(error.message)} [dim]({error.reason})[/]",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_FAILED) from error
    _out.print(table_of(found))
    if found[0].left_out:
        _out.print(f"{found[0].left_out} rows could not be asked or judged")
    if page:
        page.write_text(to_html(found, str(dataset), split), encoding="utf-8")
        _out.print(f"the same as a page: {escape(str(page))}", highlight=False, soft_wrap=True)


def _check_place(page: Path) -> None:
    """Find out before the packages are run whether a page can be written. Raises typer.BadParameter."""
    if not page.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {page.parent}", param_hint="--html")
    try:
        is_new = not page.exists()
        page.open("a").close()
        if is_new:
            page.unlink()
    except OSError as error:
        raise typer.BadParameter(f"cannot write {page}: {error.strerror}", param_hint="--html") from None


def table_of(found: Sequence[Evaluation]) -> Table:
    """A column for each package: there are more figures than packages, and nothing is cut off."""
    from finemesh.package.evaluation_page import HEAD, metric_names, rows

    names = metric_names(found)
    table = Table("", *(escape(each.package.name) for each in found), box=None, header_style="bold")
    columns = [row[1:] for row in rows(found, names)]
    for name, *figures in zip((*HEAD, *names)[1:], *columns, strict=True):
        table.add_row(name, *(escape(each) for each in figures))
    for column in table.columns:
        column.overflow = "fold"
    return table
