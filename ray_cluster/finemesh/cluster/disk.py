"""A full disk as an error that says so, whatever raised it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from finemesh.core.errors import UnavailableError


def disk_full(error: Exception, folder: Path) -> UnavailableError | None:
    """The error to tell when `error` came of a full disk below `folder`; None when it did not.

    Libraries that write by themselves, as safetensors does, tell it in their messages alone.
    """
    for code in (errno.ENOSPC, errno.EDQUOT):
        if getattr(error, "errno", None) == code or f"(os error {code})" in str(error):
            return UnavailableError(
                f"{os.strerror(code)} below {folder} on {os.uname().nodename}: make room there, or set "
                "FINEMESH_DATA_DIR of the agent to a larger disk; the job resumes from its last checkpoint",
                reason="DISK_FULL",
            )
    return None
