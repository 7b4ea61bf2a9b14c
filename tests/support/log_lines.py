"""The log of this process, for tests that read it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Generator
from typing import Any

from finemesh.chassis.logs import configure_logging


@contextlib.contextmanager
def written(service: str = "test", level: str = "DEBUG") -> Generator[io.StringIO]:
    """What is logged meanwhile, from `level` on, as JSON."""
    root = logging.getLogger()
    handlers, before = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging(service, level, stream)
    try:
        yield stream
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(before)


def lines(log: io.StringIO, event: str) -> list[dict[str, Any]]:
    """The lines of one event."""
    return [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == event]
