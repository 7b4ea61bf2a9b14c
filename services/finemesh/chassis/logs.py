"""JSON logs on stderr, one object per line: time, level, event, service, trace_id, span_id and own fields.

`get_logger("finemesh.training").info("job_queued", job=name)`; loggers of the standard library end up in the
same stream.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from finemesh.chassis.telemetry import current_trace

# Libraries that say at INFO what only their authors want to know.
_QUIET: Final = ("asyncio", "grpc", "nats", "urllib3", "sqlalchemy.engine", "aiosqlite", "alembic")
_FIRST: Final = ("time", "level", "service", "logger", "event")


def get_logger(name: str, **fields: Any) -> structlog.stdlib.BoundLogger:
    """A logger whose lines all carry `fields`."""
    return structlog.stdlib.get_logger(name, **fields)


def configure_logging(service: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (stderr by default) as JSON. Call once, at start.

    Args:
        service: name that each line carries, e.g. `training`.
        level: lowest level that is written: DEBUG, INFO, WARNING or ERROR.
        stream: where the lines go.
    """

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # All that shapes a line happens in the formatter, so lines of the standard library look like our own.
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            add_service,
            _add_trace,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(default=str),
        ],
    )
    # No line tells of these, and each asks the system: https://docs.python.org/3/howto/logging.html#optimization
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    here = current_trace()
    if here is not None:
        event["trace_id"], event["span_id"] = here.trace_id, here.span_id
    return event


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {**{key: event[key] for key in _FIRST if key in event}, **event}
