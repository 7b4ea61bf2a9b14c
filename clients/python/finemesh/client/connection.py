"""One connection to the mesh, with a typed stub per service."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc

from finemesh.client.errors import RpcError
from finemesh.client.settings import Settings, load_settings
from finemesh.v1.alert_service_pb2_grpc import AlertServiceStub
from finemesh.v1.dataprep_service_pb2_grpc import DataPrepServiceStub
from finemesh.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from finemesh.v1.export_service_pb2_grpc import ExportServiceStub
from finemesh.v1.quota_service_pb2_grpc import QuotaServiceStub
from finemesh.v1.sweep_service_pb2_grpc import SweepServiceStub
from finemesh.v1.tracking_service_pb2_grpc import TrackingServiceStub
from finemesh.v1.training_service_pb2_grpc import TrainingServiceStub
from finemesh.v1.worker_service_pb2_grpc import WorkerServiceStub

# A service that is restarting answers UNAVAILABLE for a moment. Every create carries a request_id, so
# repeating a call is safe.
_RETRY: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "3s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS: Final = (
    ("grpc.service_config", json.dumps(_RETRY)),
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class Connection:
    """Stubs of the services over one channel. Every failed call raises `RpcError`; use it as a context
    manager.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._channel = _open(settings)
        calls = grpc.intercept_channel(self._channel, _Interceptor(settings.token))
        self.dataprep = DataPrepServiceStub(calls)
        self.training = TrainingServiceStub(calls)
        self.quotas = QuotaServiceStub(calls)
        self.sweeps = SweepServiceStub(calls)
        self.workers = WorkerServiceStub(calls)
        self.tracking = TrackingServiceStub(calls)
        self.alerts = AlertServiceStub(calls)
        self.evaluations = EvaluationServiceStub(calls)
        self.export = ExportServiceStub(calls)

    @property
    def parent(self) -> str:
        """`projects/{project}` of the settings."""
        return f"projects/{self.settings.project}"

    def name(self, collection: str, id_or_name: str) -> str:
        """The full name of a resource of this project; a full name passes through."""
        return id_or_name if "/" in id_or_name else f"{self.parent}/{collection}/{id_or_name}"

    def close(self) -> None:
        """Closes the channel; calls that are under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(settings: Settings | None = None) -> Connection:
    """Connects with `settings`, or with what `load_settings` finds. The first call opens the connection."""
    return Connection(settings or load_settings())


def _open(settings: Settings) -> grpc.Channel:
    if not settings.ca_file:
        return grpc.insecure_channel(settings.server, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(Path(settings.ca_file).expanduser().read_bytes())
    return grpc.secure_channel(settings.server, credentials, options=_OPTIONS)


class _Interceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the token, and turns what grpc raises into RpcError."""

    def __init__(self, token: str) -> None:
        self._token = token

    def _call(self, proceed: Any, details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), ("authorization", f"Bearer {self._token}"))
        return proceed(details._replace(metadata=metadata), request)

    def _unary(self, proceed: Any, details: Any, request: Any) -> Any:
        call = self._call(proceed, details, request)
        # The interceptor returns a finished call: reading the error here raises ours in place of grpc's.
        error = call.exception()
        if isinstance(error, grpc.RpcError):
            raise RpcError.of(error) from error
        return call

    def _stream(self, proceed: Any, details: Any, request: Any) -> Any:
        return _Stream(self._call(proceed, details, request))

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._unary(continuation, client_call_details, request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._unary(continuation, client_call_details, request_iterator)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._stream(continuation, client_call_details, request)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._stream(continuation, client_call_details, request_iterator)


class _Stream:
    """A response stream whose errors are RpcError."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise RpcError.of(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
