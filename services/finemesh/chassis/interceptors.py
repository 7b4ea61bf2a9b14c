"""What happens around every call that a server takes: trace, authentication, error mapping, access log."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
from google.rpc import code_pb2

from finemesh.chassis import errors
from finemesh.chassis.auth import TokenVerifier, acting_as
from finemesh.chassis.logs import get_logger
from finemesh.chassis.telemetry import span, trace_from_metadata
from finemesh.core.errors import FinemeshError

AUTHORIZATION: Final = "authorization"

# Health is asked by Envoy and by supervisors that hold no token. Reflection is not exempt: it tells the whole
# interface, so it is a call like any other.
HEALTH_PREFIX: Final = "/grpc.health.v1.Health/"

# Called by the clock, by everything that works: a line for each would be most of the log.
_QUIET: Final = (
    HEALTH_PREFIX,
    "/finemesh.v1.AttemptService/RenewLease",
    "/finemesh.v1.AttemptService/SyncCluster",
)

_HANDLERS: Final[dict[tuple[bool, bool], Callable[..., Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

_log = get_logger("finemesh.rpc")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Runs every method, of whichever of the four kinds, in a span, as the token's principal.

    A FinemeshError becomes its status; any other exception becomes INTERNAL with an opaque id and its
    traceback goes to the log. Cancellation passes through.
    """

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        if handler is None:  # no such method: gRPC answers UNIMPLEMENTED
            return None
        method: str = handler_call_details.method
        behaviours = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
        call: Any = next(filter(None, behaviours))

        async def respond(request: Any, context: Any) -> Any:
            async with self._around(method, context):
                return await call(request, context)

        async def respond_with_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._around(method, context):
                responses = call(request, context)
                if not hasattr(responses, "__aiter__"):  # a handler that uses context.write
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        yield response

        make = _HANDLERS[handler.request_streaming, handler.response_streaming]
        behaviour = respond_with_stream if handler.response_streaming else respond
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _around(self, method: str, context: Any) -> AsyncGenerator[None]:
        started = time.perf_counter()
        # Asked now: a stream cancelled in mid-write ends when gRPC has freed its call; peer() would crash.
        peer = context.peer()
        metadata = dict(context.invocation_metadata() or ())
        outcome = {"code": "CANCELLED"}  # stays so when neither the end nor an error is reached
        with ExitStack() as stack:
            stack.enter_context(span(trace_from_metadata(metadata.items())))
            try:
                if not method.startswith(HEALTH_PREFIX):
                    principal = self._verifier.verify_bearer(metadata.get(AUTHORIZATION))
                    stack.enter_context(acting_as(principal))
                    outcome["subject"] = principal.subject
                yield
                outcome["code"] = _code_name(context)
            except FinemeshError as error:
                outcome |= {"code": errors.code_name(error), "reason": error.reason, "message": error.message}
                await errors.abort(context, error)
            except grpc.aio.AbortError:
                outcome["code"] = _code_name(context)
                raise
            except Exception as error:
                error_id = errors.new_error_id()
                outcome |= {"code": "INTERNAL", "error_id": error_id}
                _log.exception("rpc_failed", method=method, error_id=error_id, kind=type(error).__name__)
                await errors.abort(context, errors.unexpected(error_id))
            finally:
                quiet = method.startswith(_QUIET) and outcome["code"] in {"OK", "CANCELLED"}
                milliseconds = round(1000 * (time.perf_counter() - started), 2)
                write = _log.debug if quiet else _log.info
                write("rpc", method=method, duration_ms=milliseconds, peer=peer, **outcome)


def _code_name(context: Any) -> str:
    code = context.code()  # a number at first, a StatusCode once set
    return code.name if isinstance(code, grpc.StatusCode) else code_pb2.Code.Name(code or 0)
