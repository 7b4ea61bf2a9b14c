"""Where the spools of this node are: a file per attempt, see `finemesh.client.spool`."""

from __future__ import annotations

from pathlib import Path

from finemesh.client.spool import SUFFIX, SpoolReader, SpoolWriter

__all__ = ["SpoolReader", "SpoolWriter", "remove_spool", "spool_path", "spools_of"]


def spool_path(spool_dir: Path, job: str, attempt: int) -> Path:
    """Where an attempt's points are; `job` is a file name, see `attempts.resource_key`."""
    return spool_dir / job / f"{attempt:06d}{SUFFIX}"


def spools_of(spool_dir: Path, job: str) -> list[Path]:
    """The spools of a job that are still there, earliest attempt first."""
    return sorted((spool_dir / job).glob(f"*{SUFFIX}"))


def remove_spool(path: Path) -> None:
    """Remove a spool that is durable elsewhere, and its folder once it is empty."""
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:  # another attempt's spool is still there
        return
