"""`finemesh compile`: the data compiler on this machine, without a mesh. It joins the command line by the
group `finemesh.commands`, and is `python -m finemesh.data.commands` too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich import filesize
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from finemesh.core.errors import FinemeshError
from finemesh.core.spec.data import (
    AnnotationFormat,
    ConvertOptions,
    DatasetFormat,
    ImportOptions,
    MaskForm,
    SplitOptions,
)

if TYPE_CHECKING:
    from finemesh.core.spec.data import DatasetManifest

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
_USAGE: Final = {"INVALID_OPTIONS", "INVALID_COLUMNS", "OUTPUT_NOT_EMPTY"}
"""Reasons that say of the command line, not of the source, what is wrong."""
_FIRST_FAULTY: Final = 5
_FORMS: Final = tuple(form.value.replace("_", "-") for form in DatasetFormat)
_FORMATS: Final = tuple(form.value.replace("_", "-") for form in AnnotationFormat)
_MASKS: Final = tuple(form.value.replace("_", "-") for form in MaskForm)

_out: Final = Console()
_err: Final = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("compile")(compile_annotations)


def compile_annotations(
    source: Annotated[Path, typer.Argument(help="Annotations: a folder, an archive or a file.", exists=True)],
    out: Annotated[Path, typer.Argument(help="Folder to write to; empty, or not there yet.")],
    target: Annotated[str, typer.Option("--to", help=" | ".join(_FORMS))],
    source_format: Annotated[str, typer.Option("--format", help="auto | " + " | ".join(_FORMATS))] = "auto",
    masks: Annotated[str, typer.Option(help="Masks in COCO form: " + " | ".join(_MASKS))] = "as-source",
    min_mask_iou: Annotated[
        float, typer.Option(help="Least overlap of a mask with what it comes back as.", min=0, max=1)
    ] = 0.95,
    max_quarantined: Annotated[
        float, typer.Option(help="Fail if a larger share of the rows is faulty, 0 to 1.", min=0, max=1)
    ] = 0.5,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="What stands in which column of a table: role=column, e.g. prompt=question; repeatable."
        ),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="Jinja file, for --to template.", exists=True, dir_okay=False)
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split anew: shares of train, val and test, as 0.8,0.1,0.1.", metavar="SHARES")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the draw, for --split.")] = 0,
    *,
    prove: Annotated[bool, typer.Option(help="Read masks back, draw them again and compare.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Turn annotations into another form on this machine, without a mesh: COCO into YOLO, for example. Faulty
    rows are set aside; the ledger beside the output tells each with its reason. Splits are those of the
    source, or drawn anew, so that videos and similar pictures stay together.
    """
    from finemesh.data import compile_source

    try:
        form = ConvertOptions(
            _chosen(target, DatasetFormat, "--to"),
            template=template.read_text(encoding="utf-8") if template else "",
            mask_form=_chosen(masks, MaskForm, "--masks"),
            prove_masks=prove,
            min_mask_iou=min_mask_iou,
        )
        chosen = None if source_format == "auto" else _chosen(source_format, AnnotationFormat, "--format")
        options = ImportOptions(
            chosen, max_quarantined_fraction=max_quarantined, columns=_columns(columns or ())
        )
        with _progress(hidden=as_json) as progress:
            manifest = compile_source(source, out, options, form, progress, split=_shares(split, seed))
    except FinemeshError as error:
        said = f"[red]error:[/] {escape(error.message)} [dim]({error.reason})[/]"
        _err.print(said, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_USAGE if error.reason in _USAGE else EXIT_FAILED) from None
    if as_json:
        typer.echo(json.dumps(manifest.to_json()))
    else:
        _print(manifest, out)


def _columns(words: Iterable[str]) -> dict[str, str]:
    """The column of each role. Raises typer.BadParameter."""
    pairs = [(role, column) for role, _, column in (word.partition("=") for word in words)]
    if not all(role and column for role, column in pairs):
        raise typer.BadParameter("write role=column, e.g. prompt=question", param_hint="--columns")
    return dict(pairs)


def _shares(words: str, seed: int) -> SplitOptions | None:
    """Raises InvalidError: as SplitOptions. typer.BadParameter."""
    if not words:
        return None
    try:
        train, val, test = (float(word) for word in words.split(","))
    except ValueError as error:
        raise typer.BadParameter("write three numbers, e.g. 0.8,0.1,0.1", param_hint="--split") from error
    return SplitOptions(train=train, val=val, test=test, seed=seed)


@contextmanager
def _progress(*, hidden: bool) -> Generator[Callable[[float, str], None]]:
    bar = (SpinnerColumn(), TextColumn("compiling"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*bar, TextColumn("[dim]{task.fields[note]}"), console=_err, disable=hidden) as shown:
        task = shown.add_task("", total=1.0, note="")

        def update(share: float, words: str) -> None:
            shown.update(task, completed=share, note=escape(words))

        yield update


def _chosen(value: str, kind: Any, name: str) -> Any:
    try:
        return kind(value.replace("-", "_").lower())
    except ValueError:
        known = ", ".join(member.value.replace("_", "-") for member in kind)
        raise typer.BadParameter(f"{value!r} is none of {known}", param_hint=name) from None


def _print(manifest: DatasetManifest, out: Path) -> None:
    ledger = manifest.ledger
    reasons = ", ".join(f"{reason} {count}" for reason, count in ledger.by_reason.items())
    size = filesize.decimal(manifest.total_bytes)
    _out.print(f"{manifest.rows} rows, {size} in {escape(str(out))}", highlight=False, soft_wrap=True)
    _out.print(
        f"ledger: {ledger.inputs} in = {ledger.kept} kept + {ledger.quarantined} quarantined"
        f" + {ledger.dropped} dropped{f' ({reasons})' if reasons else ''}",
        highlight=False,
        soft_wrap=True,
    )
    if manifest.proof is not None and manifest.proof.masks:
        proof = manifest.proof
        _out.print(
            f"masks: {proof.masks} read back, overlap {proof.mean_iou:.4f} on average, {proof.min_iou:.4f} at"
            f" least; {proof.cpu_seconds:.1f} s of CPU",
            highlight=False,
        )
    for warning in manifest.warnings:
        _err.print(f"[yellow]note:[/] {escape(warning)}", highlight=False, soft_wrap=True)
    if ledger.quarantined:
        _print_first_faulty(out)


def _print_first_faulty(out: Path) -> None:
    """The first rows that were set aside, each with its reason; the ledger has them all."""
    import pyarrow.parquet as pq

    faulty = pq.read_table(out / "ledger", filters=[("disposition", "=", "quarantined")])
    for row in faulty.slice(0, _FIRST_FAULTY).to_pylist():
        said = f"{row['row_id']} {row['field']}".rstrip() + f": {row['message']}"
        shown = "".join(each if each.isprintable() else "·" for each in said)  # out of the source
        _err.print(f"  {escape(shown)}", highlight=False, soft_wrap=True)
    if len(faulty) > _FIRST_FAULTY:
        _err.print(f"  and {len(faulty) - _FIRST_FAULTY} more: all are in {out / 'ledger'}", highlight=False)


if __name__ == "__main__":
    typer.run(compile_annotations)
