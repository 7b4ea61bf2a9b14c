"""What `finemesh dataset import` reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from finemesh.client.cli.output import progress_bar, size_of
from finemesh.client.connection import Connection
from finemesh.client.transfer import upload_source
from finemesh.v1 import dataset_pb2

_REMOTE = "s3://"


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


def check_source(source: str) -> str:
    """A source that is there, as far as this machine can tell. Raises typer.BadParameter."""
    if not source.startswith(_REMOTE) and not Path(source).exists():
        raise typer.BadParameter(f"{source!r} is no file or folder, and does not begin with {_REMOTE}")
    return source


def origin_of(connection: Connection, source: str) -> dataset_pb2.ImportOrigin:
    """Where a source is to be imported from: an upload, made here, or the object store."""
    if source.startswith(_REMOTE):
        return dataset_pb2.ImportOrigin(source_uri=source)
    return dataset_pb2.ImportOrigin(upload=send(connection, Path(source)))


def title_of(source: str) -> str:
    """The last part of a source's name, for people."""
    if source.startswith(_REMOTE):
        return source.rstrip("/").rsplit("/", 1)[-1]
    return Path(source).resolve().name


def send(connection: Connection, source: Path) -> str:
    """Upload a file or a folder, showing how far it is; the name of the upload."""
    sent, total = 0, size_of(source)
    with progress_bar(f"uploading {source.name}", transfer_bytes=total) as update:

        def on_bytes(count: int) -> None:
            nonlocal sent
            sent += count
            update(min(sent, total), "")  # packed, a folder is a little more

        return upload_source(connection, source, on_bytes)
