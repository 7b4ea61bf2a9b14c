"""A full disk as an error that says so, whatever raised it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from finemesh.core.errors import UnavailableError


def disk_full(error: Exception, folder: Path) -> UnavailableError | None:
    """The error to tell when `error` came of a full disk below `folder`; None when it did not.

    What writes by itself, as safetensors does, or copies many files, tells it in its message alone.
    """
    for code in (errno.ENOSPC, errno.EDQUOT):
        said = (f"(os error {code})", f"[Errno {code}]")
        if getattr(error, "errno", None) == code or any(each in str(error) for each in said):
            return UnavailableError(
                f"{os.strerror(code)} below {folder} on {os.uname().nodename}: make room there, or set "
                "FINEMESH_DATA_DIR of the agent to a larger disk; a training resumes from its checkpoint",
                reason="DISK_FULL",
            )
    return None
