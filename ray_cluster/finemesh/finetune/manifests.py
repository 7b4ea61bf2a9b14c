"""`manifest.json` of a folder: facts, and the size and SHA-256 of every other file. It is written last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

MANIFEST: Final = "manifest.json"
_VERSION: Final = 1
_CHUNK_BYTES: Final = 1 << 20


def write_manifest(folder: Path, facts: dict[str, Any]) -> str:
    """Write the manifest of `folder`, with all files synced to disk before it. Returns its SHA-256 in hex."""
    files: list[dict[str, object]] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
        sync(path)
        name = path.relative_to(folder).as_posix()
        files.append({"path": name, "bytes": path.stat().st_size, "sha256": file_digest(path)})
    content = json.dumps(
        {"version": _VERSION, **facts, "files": files}, indent=1, ensure_ascii=False
    ).encode()
    partial = folder.parent / f".{folder.name}.{MANIFEST}"
    partial.write_bytes(content)
    sync(partial)
    partial.replace(folder / MANIFEST)
    return hashlib.sha256(content).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises FileNotFoundError without a manifest, ValueError if it is malformed."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if all(isinstance(each[key], kind) for each in manifest["files"] for key, kind in _FILE_FIELDS):
            return manifest
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{MANIFEST} does not read: {error}") from error
    raise ValueError(f"{MANIFEST} lists files without path, bytes or sha256")


_FILE_FIELDS: Final = (("path", str), ("bytes", int), ("sha256", str))


def wrong_files(folder: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Files that are not as the manifest says: the name, and words that follow it."""
    home = folder.resolve()
    for each in manifest["files"]:
        path = folder / each["path"]
        if not path.resolve().is_relative_to(home) or not path.is_file():
            yield each["path"], "is missing"
        elif path.stat().st_size != each["bytes"] or file_digest(path) != each["sha256"]:
            yield each["path"], "has other bytes than its manifest says"


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Ask the operating system to put a file or folder on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
