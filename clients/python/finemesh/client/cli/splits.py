"""What `finemesh dataset split` reads, and how splits are shown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import typer
from rich.markup import escape
from rich.table import Table

from finemesh.client.cli.output import choice, table
from finemesh.v1 import dataset_pb2

_ORDER: Final = ("train", "val", "test", "gap", "")
_MOST: Final = 100  # classes that are shown


def parse_ratios(ratios: str) -> tuple[float, float, float]:
    """Shares of train, val and test. Raises typer.BadParameter."""
    try:
        train, validation, test = (float(part) for part in ratios.split(","))
    except ValueError as error:
        raise typer.BadParameter("write three numbers, e.g. 0.6,0.1,0.3", param_hint="--ratios") from error
    return train, validation, test


def choose_strategy(word: str, choices: dict[str, Any], group_by: str, assign: Path | None) -> Any:
    """The strategy of a word; of `auto` the one that the other options are for."""
    if word == "auto" and group_by:
        return choices["grouped"]
    if word == "auto" and assign is not None:
        return choices["predefined"]
    return choice(word, choices, "--strategy")


def read_assignments(path: Path) -> dict[str, str]:
    """The split of each name in a file.

    JSON is an object of name to split, or of split to a list of names; everything else is CSV (or TSV, by
    its suffix) of two columns, name and split, perhaps with a header that ends in `split`.

    Raises typer.BadParameter, saying where it goes wrong.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(f"{path} cannot be read: {error}") from error
    pairs = _from_json(text, path) if path.suffix.lower() == ".json" else _from_csv(text, path)
    found: dict[str, str] = {}
    for name, split, where in pairs:
        if found.setdefault(name, split) != split:
            raise _bad(f"{where}: {name!r} is in {found[name]} and in {split}: keep one")
    if not found:
        raise _bad(f"{path} names nothing: leave --assign out to take the splits that the source names")
    return found


def _from_json(text: str, path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _bad(f"{path}: write an object of names and splits")
    for key, item in cast("dict[str, object]", value).items():
        if isinstance(item, str):
            yield key, item, str(path)
        elif isinstance(item, list) and all(isinstance(name, str) for name in cast("list[object]", item)):
            yield from ((name, key, str(path)) for name in cast("list[str]", item))
        else:
            raise _bad(f"{path}: {key!r} is neither a split nor a list of names")


def _from_csv(text: str, path: Path) -> Iterator[tuple[str, str, str]]:
    reader = csv.reader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        for line, cells in enumerate(reader, start=1):
            if not cells or (line == 1 and cells[-1].strip().lower() == "split"):
                continue
            if len(cells) != 2:
                raise _bad(f"{path}, line {line}: {len(cells)} columns instead of name and split")
            yield cells[0], cells[1].strip(), f"{path}, line {line}"
    except csv.Error as error:
        raise _bad(f"{path}, line {reader.line_num}: {error}") from error


def _bad(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="--assign")


def leakage_text(summary: dataset_pb2.DatasetSummary) -> str:
    """The leakage and what it is made of; empty for a dataset that was never split."""
    if not summary.HasField("leakage_shares"):
        return ""
    shares = summary.leakage_shares
    similar = f"{shares.by_similar:.4f}" if shares.HasField("by_similar") else "not compared"
    parts = f"by video {shares.by_video:.4f}, same picture {shares.by_image:.4f}, similar picture {similar}"
    return f"{summary.leakage:.4f} ({parts})"


def class_table(counts: Iterable[dataset_pb2.ClassSplitCount]) -> Table | None:
    """Objects and rows of each class and split, and the share that the split has of the class; None without
    classes. Classes of whole rows stand apart from classes of objects.
    """
    classes: dict[tuple[str, bool], dict[str, tuple[int, int]]] = {}
    for each in counts:
        whole = not each.objects
        classes.setdefault((each.class_name, whole), {})[each.split] = (each.objects, each.rows)
    if not classes:
        return None
    splits = [split for split in _ORDER if any(split in row for row in classes.values())]
    largest = sorted(classes, key=lambda name: (-_total(classes[name], 0), -_total(classes[name], 1), name))
    rows = [_class_row(name, classes[name], splits) for name in largest[:_MOST]]
    title = f"the {_MOST} largest of {len(classes)} classes; --json has all" if len(classes) > _MOST else ""
    return table(("class", "objects in rows", *(split or "no split" for split in splits)), rows, title=title)


def _class_row(
    name: tuple[str, bool], row: Mapping[str, tuple[int, int]], splits: Sequence[str]
) -> list[str]:
    class_name, whole = name
    total = (_total(row, 0), _total(row, 1))
    shown = [escape(class_name), _amount(total, whole=whole)]
    for split in splits:
        part = row.get(split, (0, 0))
        shown.append(f"{_amount(part, whole=whole)}  {part[whole] / total[whole]:.1%}")
    return shown


def _total(row: Mapping[str, tuple[int, int]], part: int) -> int:
    return sum(pair[part] for pair in row.values())


def _amount(pair: tuple[int, int], *, whole: bool) -> str:
    objects, rows = pair
    return f"{rows} rows" if whole else f"{objects} in {rows}"
