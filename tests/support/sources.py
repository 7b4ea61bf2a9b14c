"""Sources of annotations, written for a test and imported."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finemesh.core.errors import FinemeshError
from finemesh.core.spec.data import AnnotationFormat, DatasetManifest, ImportOptions
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.data import import_source, iter_ledger, iter_rows
from finemesh.data.schema import Row
from PIL import Image

Files = Mapping[str, Any]
"""Contents by name: bytes, texts, or values to be written as JSON."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An imported source: rows by id, and the ledger's entries of those that were put aside."""

    manifest: DatasetManifest
    rows: dict[str, Row]
    faults: list[LedgerEntry]


def png(width: int = 100, height: int = 50, mode: str = "RGB", value: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), value).save(buffer, "PNG")
    return buffer.getvalue()


def write_files(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_encoded(content))
    return folder


def _encoded(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content)).encode()


def load(folder: Path, files: Files, *, form: AnnotationFormat | None = None) -> Loaded:
    """Import these files, faulty rows put aside, from and into new folders below `folder`."""
    source = write_files(folder / "source", files)
    options = ImportOptions(form, max_quarantined_fraction=0.95)
    manifest = import_source(source, folder / "out", options, lambda _fraction, _message: None)
    rows = {row["row_id"]: row for row in iter_rows(folder / "out")}
    return Loaded(manifest, rows, [entry for entry in iter_ledger(folder / "out") if entry.reason])


def outcome(folder: Path, files: Files, form: AnnotationFormat) -> str:
    """The reason of the error of ours that the import ends in, or "" for a dataset whose ledger balances. Any
    other exception goes through.
    """
    try:
        loaded = load(folder, files, form=form)
    except FinemeshError as error:
        assert not (folder / "out").exists()
        return error.reason
    assert loaded.manifest.ledger.check().inputs == len(loaded.rows) + len(loaded.faults)
    return ""
