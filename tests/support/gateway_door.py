"""Real gRPC servers in place of the four services, and the door of the gateway before them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import urllib3
from finemesh.chassis.auth import Role, SigningKey
from finemesh.chassis.presign import presign
from finemesh.chassis.reflection import service_names
from finemesh.v1 import (
    dataprep_service_pb2_grpc,
    dataset_pb2,
    export_service_pb2_grpc,
    run_pb2,
    tracking_service_pb2_grpc,
    training_job_pb2,
    training_service_pb2_grpc,
)
from google.api import httpbody_pb2
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_status import rpc_status

from tests.support.servers import PATIENCE_SECONDS, S3Server

BUCKET = "finemesh-gateway"
LIMIT_BYTES = 1 << 20
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Training(training_service_pb2_grpc.TrainingServiceServicer):
    def __init__(self) -> None:
        self._asked = defaultdict[str, threading.Event](threading.Event)

    def GetTrainingJob(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._asked[request.name].set()
        if request.name.endswith("/none"):
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ErrorInfo(reason="TRAINING_JOB_NOT_FOUND", domain="finemesh"))
            status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="no such job", details=[detail])
            context.abort_with_status(rpc_status.to_status(status))
        seen = dict(context.invocation_metadata())
        return training_job_pb2.TrainingJob(name=request.name, display_name=str(seen.get("authorization")))

    def WatchTrainingJob(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        """A job runs once somebody has asked for it."""
        yield training_job_pb2.TrainingJob(name=request.name, state=training_job_pb2.TrainingJob.STATE_QUEUED)
        assert self._asked[request.name].wait(PATIENCE_SECONDS)
        yield training_job_pb2.TrainingJob(
            name=request.name, state=training_job_pb2.TrainingJob.STATE_RUNNING
        )


class DataPrep(dataprep_service_pb2_grpc.DataPrepServiceServicer):
    def UploadArchive(self, request_iterator: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        name, size = "", 0
        for request in request_iterator:
            name = name or request.name
            size += len(request.chunk.data)
        return dataset_pb2.Upload(name=name, size_bytes=size)

    def CreateUpload(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return dataset_pb2.Upload(name=f"{request.parent}/uploads/a", filename=request.upload.filename)

    def CreateDataset(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return request.dataset


class Tracking(tracking_service_pb2_grpc.TrackingServiceServicer):
    def GetRun(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return run_pb2.Run(name=request.name)


class Export(export_service_pb2_grpc.ExportServiceServicer):
    def DownloadExport(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        for _ in range(5):
            yield httpbody_pb2.HttpBody(content_type="application/zip", data=bytes(1 << 20))


@dataclass
class Door:
    """An Envoy with three of the four services behind it; Tracking is away."""

    address: str
    key: SigningKey
    store: S3Server
    health: dict[str, Any]
    access_log: Path
    pool: urllib3.PoolManager
    absent_port: int

    def token(self, **claims: Any) -> str:
        return self.key.mint("tester", Role.ADMIN, ["*"], claims.pop("ttl_seconds", 60), **claims)

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token()}"),)

    def request(self, method: str, path: str, *, token: str | None = None, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {self.token() if token is None else token}"}
        headers |= options.pop("headers", {})
        if token == "":
            del headers["authorization"]
        url = f"http://{self.address}{path}"
        return self.pool.request(method, url, headers=headers, retries=False, **options)

    def presigned(self, method: str, key: str) -> str:
        return presign(
            method,
            f"http://{self.address}",
            f"/{BUCKET}/{key}",
            access_key=self.store.access_key,
            secret_key=self.store.secret_key,
            region="us-east-1",
            expires_seconds=60,
        )


def serve(service: str, add: Any, servicer: Any) -> tuple[grpc.Server, int, Any]:
    server = grpc.server(ThreadPoolExecutor(8))
    add(servicer, server)
    status = health.HealthServicer()
    status.set(service, SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflected = reflection.ReflectionServicer(service_names())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port, status


def serve_tracking(port: int) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(1))
    tracking_service_pb2_grpc.add_TrackingServiceServicer_to_server(cast("Any", Tracking)(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server
