"""Other services as a test wants them: some methods answered from a script over real gRPC, tokens checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from finemesh.chassis.auth import SigningKey, TokenVerifier
from finemesh.chassis.errors import DETAILS_KEY, to_status
from finemesh.core.errors import FinemeshError
from google.protobuf.message import Message


@dataclass(frozen=True)
class ScriptedMethod:
    """A unary method: what it takes, and the answer, which may be an error to raise."""

    request: type[Message]
    answer: Callable[[Any], Message]


class ScriptedService:
    """A gRPC service on a fixed port; `stop` and `start` again keep it."""

    def __init__(self, port: int, service: str, methods: Mapping[str, ScriptedMethod]) -> None:
        self.port = port
        self.key: SigningKey | None = None
        """When set, callers must show a token that it signed."""
        self._handler = grpc.method_handlers_generic_handler(
            service, {name: self._handle(method) for name, method in methods.items()}
        )
        self._server: Any = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self._handler,))
        self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def _handle(self, method: ScriptedMethod) -> grpc.RpcMethodHandler[Any, Any]:
        def answer(request: Message, context: Any) -> Message:
            try:
                if self.key is not None:
                    metadata = dict(context.invocation_metadata())
                    TokenVerifier.of(self.key).verify_bearer(metadata.get("authorization"))
                return method.answer(request)
            except FinemeshError as error:
                status = to_status(error)
                context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
                code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
                context.abort(code, status.message)
                raise AssertionError("abort raises") from error

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=method.request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
