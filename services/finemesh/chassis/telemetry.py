"""Trace context across gRPC and NATS, in the form of W3C Trace Context (https://www.w3.org/TR/trace-context/).

Only the identifiers travel and only the logs carry them. OpenTelemetry is left out: its exporters keep gRPC
calls alive in the background, which crashes children that fork.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

TRACEPARENT: Final = "traceparent"

# version "-" trace-id "-" parent-id "-" flags; later versions may append fields after another hyphen.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where the current work belongs: `trace_id` of 32 and `span_id` of 16 lower-case hexadecimal digits."""

    trace_id: str
    span_id: str
    flags: int = 1

    @classmethod
    def root(cls) -> TraceContext:
        """A fresh trace."""
        return cls(secrets.token_hex(16), secrets.token_hex(8))

    @classmethod
    def parse(cls, header: str) -> TraceContext | None:
        """The context in a `traceparent` header; None if it is malformed, which restarts the trace."""
        match = _TRACEPARENT.fullmatch(header.strip())
        if match is None:
            return None
        version, trace_id, span_id, flags, rest = match.groups()
        malformed = (
            version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16)
        )
        return None if malformed else cls(trace_id, span_id, int(flags, 16))

    def child(self) -> TraceContext:
        """A new span in the same trace."""
        return replace(self, span_id=secrets.token_hex(8))

    def header(self) -> str:
        """The `traceparent` header of this span."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


_current: ContextVar[TraceContext | None] = ContextVar("finemesh_trace", default=None)


def current_trace() -> TraceContext | None:
    """The span that this task works in, if any."""
    return _current.get()


@contextmanager
def span(parent: TraceContext | None = None) -> Generator[TraceContext]:
    """Work in a new span: a child of `parent`, else of the current span, else the root of a new trace."""
    above = parent or _current.get()
    here = above.child() if above else TraceContext.root()
    token = _current.set(here)
    try:
        yield here
    finally:
        _current.reset(token)


def trace_headers() -> dict[str, str]:
    """`{"traceparent": …}` of the current span, or nothing. For NATS headers and for gRPC metadata alike."""
    here = _current.get()
    return {TRACEPARENT: here.header()} if here else {}


def trace_from_headers(headers: Mapping[str, str] | None) -> TraceContext | None:
    """The sender's span out of NATS headers (`Msg.headers` may be None)."""
    return TraceContext.parse((headers or {}).get(TRACEPARENT, ""))


def trace_from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> TraceContext | None:
    """The caller's span out of gRPC metadata."""
    values = (value for key, value in metadata or () if key == TRACEPARENT and isinstance(value, str))
    return TraceContext.parse(next(values, ""))
