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
def written() -> Generator[io.StringIO]:
    """What is logged meanwhile, as JSON."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("test", "DEBUG", stream)
    try:
        yield stream
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)


def lines(log: io.StringIO, event: str) -> list[dict[str, Any]]:
    """The lines of one event."""
    return [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == event]
