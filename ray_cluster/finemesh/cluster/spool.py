"""Where the spools of this node are: one per attempt, see `finemesh.client.spool`."""

from __future__ import annotations

from pathlib import Path

from finemesh.client.spool import SUFFIX, SpoolReader, SpoolWriter, parts_of

__all__ = ["SpoolReader", "SpoolWriter", "parts_of", "remove_spool", "spool_path", "spools_of"]


def spool_path(spool_dir: Path, job: str, attempt: int) -> Path:
    """Where an attempt's points are; `job` is a file name, see `attempts.resource_key`."""
    return spool_dir / job / f"{attempt:06d}{SUFFIX}"


def spools_of(spool_dir: Path, job: str) -> list[Path]:
    """The spools of a job that are still there, earliest attempt first, however many files each has."""
    folder = spool_dir / job
    attempts = {path.stem.partition("_")[0] for path in folder.glob(f"*{SUFFIX}")}
    return [folder / f"{attempt}{SUFFIX}" for attempt in sorted(attempts)]


def remove_spool(path: Path) -> None:
    """Remove a spool that is durable elsewhere, and its folder once it is empty."""
    for part in parts_of(path):
        part.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:  # another attempt's spool is still there
        return
