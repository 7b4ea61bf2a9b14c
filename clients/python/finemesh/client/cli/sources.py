"""What `finemesh dataset import` reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from finemesh.client.cli.output import progress_bar, size_of
from finemesh.client.connection import Connection
from finemesh.client.transfer import upload_source


def parse_columns(words: Iterable[str]) -> dict[str, str]:
    """`["prompt=question"]` -> `{"prompt": "question"}`. Raises typer.BadParameter."""
    columns: dict[str, str] = {}
    for word in words:
        role, equals, column = word.partition("=")
        if not (role and equals and column):
            raise _bad(f"{word!r}: write role=column, e.g. prompt=question")
        if columns.setdefault(role, column) != column:
            raise _bad(f"{role} is said to stand in {columns[role]} and in {column}: keep one")
    return columns


def _bad(problem: str) -> typer.BadParameter:
    return typer.BadParameter(problem, param_hint="--columns")


def send(connection: Connection, source: Path) -> str:
    """Upload a file or a folder, showing how far it is; the name of the upload."""
    sent = 0
    with progress_bar(f"uploading {source.name}", transfer_bytes=size_of(source)) as update:

        def on_bytes(count: int) -> None:
            nonlocal sent
            sent += count
            update(sent, "")

        return upload_source(connection, source, on_bytes)
