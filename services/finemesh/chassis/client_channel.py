"""Channels for calls between services: token, trace context, deadline, retries and keepalive on each."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio

from finemesh.chassis.auth import TokenSource
from finemesh.chassis.telemetry import trace_headers
from finemesh.chassis.tls import ClientTls

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
# The largest there is: an evaluation of 200,000 items. Servers take less where they say so.
DEFAULT_MAX_MESSAGE_BYTES: Final = 48 << 20

# https://github.com/grpc/grpc/blob/master/doc/service_config.md. Only UNAVAILABLE is tried again: the server
# did not take the call, or its answer was lost, and creates are idempotent by `request_id`.
_SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def channel(
    target: str,
    token_source: TokenSource | None,
    tls: ClientTls | None = None,
    *,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
) -> grpc.aio.Channel:
    """A channel to `target`. It connects when first used; close it with `await channel.close()`.

    Args:
        target: host:port.
        token_source: gives the bearer token of each call; None for health checks.
        tls: certificates, or None for plain text on loopback.
        timeout_seconds: deadline of calls that set none. Streams have no default deadline.
        max_message_bytes: limit of one message, both ways.
    """
    options = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    interceptors = client_interceptors(token_source, timeout_seconds)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, tls.credentials(), options=options, interceptors=interceptors)


class _CallInterceptor:
    """Adds token and trace context to every call, and a deadline to calls without one."""

    def __init__(self, token_source: TokenSource | None, timeout_seconds: float | None) -> None:
        self._token_source = token_source
        self._timeout_seconds = timeout_seconds

    async def intercept(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], client_call_details: Any, request: Any
    ) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        for key, value in trace_headers().items():
            metadata[key] = value
        if self._token_source is not None and "authorization" not in metadata:
            metadata["authorization"] = f"Bearer {self._token_source()}"
        timeout = client_call_details.timeout
        details = client_call_details._replace(
            metadata=metadata, timeout=self._timeout_seconds if timeout is None else timeout
        )
        return await continuation(details, request)


# grpc.aio takes an interceptor for one kind of call only, told by its base class: hence a class per kind.
_CLASSES: Final[dict[str, Any]] = {
    kind: type(f"_{kind}", (_CallInterceptor, base), {f"intercept_{kind}": _CallInterceptor.intercept})
    for kind, base in {
        "unary_unary": grpc.aio.UnaryUnaryClientInterceptor,
        "unary_stream": grpc.aio.UnaryStreamClientInterceptor,
        "stream_unary": grpc.aio.StreamUnaryClientInterceptor,
        "stream_stream": grpc.aio.StreamStreamClientInterceptor,
    }.items()
}


def client_interceptors(
    token_source: TokenSource | None, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
) -> list[grpc.aio.ClientInterceptor]:
    """One interceptor per kind of call. Calls that stream have no default deadline."""
    return [
        interceptor(token_source, timeout_seconds if kind == "unary_unary" else None)
        for kind, interceptor in _CLASSES.items()
    ]
