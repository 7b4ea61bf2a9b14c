"""Folders of TensorBoard: a folder with event files is a run, named by its path, as TensorBoard has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finemesh.client.event_file import (
    TornFileError,
    hyperparameters_of,
    images_of,
    kind_of,
    read_events,
    scalar_of,
    text_of,
)
from finemesh.client.files import file_name
from finemesh.client.imports.source import Column, Source, SourceFile, counted

_PATTERN = "*tfevents*"


def tensorboard_runs(root: Path) -> Iterator[Source]:
    """The runs at `root`, which is an event file or a folder. Raises FileNotFoundError: there is none."""
    if root.is_file():
        yield _run(root.name, [root])
        return
    folders = sorted({path.parent for path in root.rglob(_PATTERN) if path.is_file()})
    if not folders:
        raise FileNotFoundError(f"{root} holds no event file of TensorBoard (*tfevents*)")
    for folder in folders:
        name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
        yield _run(name, sorted(path for path in folder.glob(_PATTERN) if path.is_file()))


def _run(name: str, files: list[Path]) -> Source:
    source = Source("tensorboard", f"{name} {files[0].name}", name)
    skipped: Counter[str] = Counter()
    for path in files:
        try:
            with path.open("rb") as file:
                for event in read_events(file):
                    for value in event.summary.value:
                        _take(source, event, value, skipped)
        except TornFileError as error:
            source.problems.append(f"{path.name}: {error}; what comes before it was taken")
        except OSError as error:
            source.problems.append(f"{path.name} left out: {error}")
    source.problems += counted(skipped)
    source.original = {
        "run": name,
        "files": {path.name: path.stat().st_size for path in files},
        "hyperparameters": source.params,
    }
    return source


def _take(source: Source, event: Any, value: Any, skipped: Counter[str]) -> None:
    """One value of an event into its place."""
    if hyperparameters := hyperparameters_of(value):
        source.params |= hyperparameters
        return
    number = scalar_of(value)
    if number is not None:
        source.columns.setdefault(value.tag, Column()).add(event.step, number, event.wall_time)
        return
    step = max(event.step, 0)
    base = f"{file_name(value.tag)}/{step:08d}"
    if pictures := images_of(value):
        for index, picture in enumerate(pictures):
            ending = "png" if picture[:4] == b"\x89PNG" else "jpg"
            source.files.append(SourceFile(f"images/{base}-{index}.{ending}", picture, step))
    elif text := text_of(value):
        source.files.append(SourceFile(f"texts/{base}.md", text, step))
    else:
        skipped[f"values of kind {kind_of(value)!r}"] += 1
