"""A program that logs: `python -m tests.support.tracking_logger SPOOL RUN RECORD FIRST_STEP`.

It appends two metrics a step to the spool, as the worker of a job does, and notes in RECORD, after each call
has come back, what it logged: the client's own record, a line of JSON `[step, key, value]` per point. SIGUSR1
sets its clock back by an hour.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from finemesh.client import spool
from finemesh.client.spool import SpoolWriter

_STEP_SECONDS = 0.002
_HOUR_NS = 3600 * 10**9


def values_of(step: int) -> dict[str, float]:
    """What is logged at a step; some of it is not finite."""
    odd = {11: float("nan"), 13: float("inf")}.get(step % 17, 1 / (1 + step))
    return {"train/loss": odd, "train/speed": float(step)}


def main() -> None:
    path, run, record, first = sys.argv[1:]
    back = 0

    def set_back(*_: Any) -> None:
        nonlocal back
        back += _HOUR_NS

    signal.signal(signal.SIGUSR1, set_back)
    real = time.time_ns
    spool.time.time_ns = lambda: real() - back
    writer = SpoolWriter(Path(path), run, 1, 10**9)
    notes = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for step in range(int(first), 10**9):
        values = values_of(step)
        writer.append(step, values)
        lines = [json.dumps([step, key, repr(value)]) for key, value in values.items()]
        os.write(notes, "".join(f"{line}\n" for line in lines).encode())
        time.sleep(_STEP_SECONDS)


if __name__ == "__main__":
    main()
