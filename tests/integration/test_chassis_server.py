"""A real grpc.aio server and channel of the chassis around a tiny service of all four kinds of methods."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from finemesh.chassis.auth import Role, SigningKey, TokenVerifier, current_principal
from finemesh.chassis.client_channel import channel
from finemesh.chassis.errors import DETAILS_KEY, from_rpc_error
from finemesh.chassis.grpc_server import GrpcServer, ServerConfig
from finemesh.chassis.telemetry import current_trace, span
from finemesh.core.errors import (
    FieldViolation,
    FinemeshError,
    InvalidError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
)
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.log_lines import lines, written
from tests.support.servers import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

SERVICE = "test.Echo"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
KEY = SigningKey.generate()


class Echo:
    """Answers each request with itself. Some requests mean something: see `_answer`."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.stuck = asyncio.Event()

    async def _answer(self, request: bytes) -> bytes:
        match request.split(b" "):
            case [b"boom"]:
                raise ValueError("the secret of the handler")
            case [b"many-wrong"]:
                wrong = [FieldViolation(f"spec.field[{i}]", "ü" * 300) for i in range(200)]
                raise InvalidError("m" * 20_000, violations=wrong, metadata={"key": "v" * 9000})
            case [b"away"]:
                raise UnavailableError("S3 is away: try again", reason="OBJECT_STORE_UNAVAILABLE")
            case [b"trace"]:
                trace = current_trace()
                return trace.trace_id.encode() if trace else b""
            case [b"hang"]:
                self.stuck.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
            case [b"project", project]:
                current_principal().require_project(project.decode())
            case _:
                pass
        return request

    async def unary_unary(self, request: bytes, _context: object) -> bytes:
        return await self._answer(request)

    async def unary_stream(self, request: bytes, _context: object) -> AsyncIterator[bytes]:
        yield b"first"
        if request == b"flood":
            try:
                while True:
                    yield bytes(1 << 20)
            finally:
                self.cancelled.set()
        yield await self._answer(request)

    async def stream_unary(self, requests: AsyncIterator[bytes], _context: object) -> bytes:
        return b",".join([await self._answer(request) async for request in requests])

    async def stream_stream(self, requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self._answer(request)


def add_echo(servicer: Echo, server: Any) -> None:
    """What generated code does, for raw bytes."""
    handlers: dict[str, Any] = {
        kind: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(servicer, kind)) for kind in KINDS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


async def call(
    on: grpc.aio.Channel,
    kind: str,
    request: bytes,
    timeout_seconds: float | None = None,
    heard: asyncio.Event | None = None,
) -> list[bytes]:
    """One request by a method of any kind; the answers. `heard` is set by the first of several."""
    method: Any = getattr(on, kind)(f"/{SERVICE}/{kind}")

    async def requests() -> AsyncIterator[bytes]:
        yield request

    started = method(requests() if kind.startswith("stream") else request, timeout=timeout_seconds)
    if not kind.endswith("stream"):
        return [await started]
    answers: list[bytes] = []
    async for each in started:
        answers.append(each)
        if heard:
            heard.set()
    return answers


async def failure(
    on: grpc.aio.Channel, kind: str, request: bytes, timeout_seconds: float | None = None
) -> FinemeshError:
    """What the server answers. Where a write fails as a call ends, grpc's asyncio client may put a status of
    its own in place of that (https://github.com/grpc/grpc/issues/36066): such a call is made again.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(on, kind, request, timeout_seconds)
            if not kind.startswith("stream") or caught.value.details() != "Internal error from Core":
                return from_rpc_error(caught.value)


def token(*projects: str) -> str:
    return KEY.mint("tester", Role.OPERATOR, projects, ttl_seconds=60)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    with written() as stream:
        yield stream


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def server(log: io.StringIO, echo: Echo) -> AsyncIterator[GrpcServer]:
    server = GrpcServer(ServerConfig(grace_seconds=0.2), TokenVerifier.of(KEY))
    server.add(add_echo, echo)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def anonymous(server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with channel(server.address, None) as made:
        yield made


@pytest.fixture
async def signed_in(server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with channel(server.address, lambda: token("acme")) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
async def test_all_kinds_of_calls_pass(signed_in: grpc.aio.Channel, kind: str) -> None:
    expected = {"unary_stream": [b"first", b"hello"]}.get(kind, [b"hello"])
    assert await call(signed_in, kind, b"hello") == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_without_a_token_nothing_is_done(anonymous: grpc.aio.Channel, kind: str) -> None:
    error = await failure(anonymous, kind, b"hello")
    assert isinstance(error, UnauthenticatedError)
    assert error.reason == "TOKEN_MISSING"
    assert "authorization: Bearer" in str(error)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_project_of_others_is_closed(signed_in: grpc.aio.Channel, kind: str) -> None:
    assert (await call(signed_in, kind, b"project acme"))[-1] == b"project acme"
    error = await failure(signed_in, kind, b"project other")
    assert isinstance(error, PermissionDeniedError)
    assert (error.reason, error.metadata["project"]) == ("PROJECT_DENIED", "other")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_unexpected_shows_an_id_and_nothing_else(
    signed_in: grpc.aio.Channel, kind: str, log: io.StringIO
) -> None:
    error = await failure(signed_in, kind, b"boom")
    assert (type(error), error.reason) == (FinemeshError, "INTERNAL")
    assert "secret" not in str(error)
    [line] = lines(log, "rpc_failed")
    assert line["error_id"] == error.metadata["error_id"]
    assert line["error_id"] in str(error)
    assert "the secret of the handler" in line["exception"]


async def test_an_error_carries_its_details(signed_in: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(signed_in, "unary_unary", b"away")  # the channel tries four times
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers[DETAILS_KEY])  # pyright: ignore[reportArgumentType]
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.code == caught.value.code().value[0] == 14
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.domain, info.reason) == ("finemesh", "OBJECT_STORE_UNAVAILABLE")
    assert retry.retry_delay.seconds > 0


async def test_an_error_too_large_for_a_trailer_is_cut_not_lost(signed_in: grpc.aio.Channel) -> None:
    error = await failure(signed_in, "unary_unary", b"many-wrong")
    assert isinstance(error, InvalidError)
    assert error.violations[0].field == "spec.field[0]"
    assert error.violations[-1].description.startswith("and ")


async def test_a_trace_goes_through(signed_in: grpc.aio.Channel, log: io.StringIO) -> None:
    with span() as here:
        assert await call(signed_in, "unary_unary", b"trace") == [here.trace_id.encode()]
    [line] = [line for line in lines(log, "rpc") if line["method"].endswith("unary_unary")]
    assert (line["trace_id"], line["code"], line["subject"]) == (here.trace_id, "OK", "tester")
    assert line["span_id"] != here.span_id


async def test_a_call_without_a_deadline_gets_one(server: GrpcServer, echo: Echo) -> None:
    async with channel(server.address, lambda: token("acme"), timeout_seconds=0.3) as impatient:
        while not echo.stuck.is_set():  # a busy machine may take longer to bring the call to its handler
            error = await failure(impatient, "unary_unary", b"hang")
            assert isinstance(error, UnavailableError)
            assert error.reason == "DEADLINE_EXCEEDED"
        await echo.cancelled.wait()


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelling_reaches_the_handler(
    signed_in: grpc.aio.Channel, echo: Echo, kind: str, log: io.StringIO
) -> None:
    heard = asyncio.Event()
    task = asyncio.create_task(call(signed_in, kind, b"hang", PATIENCE_SECONDS, heard))
    await echo.stuck.wait()
    if kind == "unary_stream":  # its client loses a cancellation that comes before its first read
        await heard.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await echo.cancelled.wait()
    assert [line["code"] for line in lines(log, "rpc")] == ["CANCELLED"]
    assert lines(log, "rpc_failed") == []


async def test_a_stream_cancelled_in_mid_write_ends_in_order(
    signed_in: grpc.aio.Channel, echo: Echo, log: io.StringIO
) -> None:
    # gRPC frees such a call before the handler's generator is closed: touching it then is a segfault.
    stream: Any = signed_in.unary_stream(f"/{SERVICE}/unary_stream")(b"flood", timeout=PATIENCE_SECONDS)
    assert await stream.read() == b"first"
    assert len(await stream.read()) == 1 << 20
    stream.cancel()
    await asyncio.wait_for(echo.cancelled.wait(), PATIENCE_SECONDS)
    assert await call(signed_in, "unary_unary", b"alive") == [b"alive"]
    assert [line["code"] for line in lines(log, "rpc")] == ["CANCELLED", "OK"]


async def test_health_is_told_by_name_without_a_token(anonymous: grpc.aio.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(anonymous)
    for name in ("", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="no.Such"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_health_follows_the_checks(log: io.StringIO) -> None:
    away = True

    async def check() -> None:
        if away:
            raise UnavailableError("nobody listens at 4222")

    config = ServerConfig(health_interval_seconds=0.02, grace_seconds=0)
    server = GrpcServer(config, TokenVerifier.of(KEY), checks={"nats": check})
    server.add(add_echo, Echo())
    await server.start()
    async with channel(server.address, None) as made:
        health: Any = health_pb2_grpc.HealthStub(made)
        watching = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        statuses = aiter(watching)
        assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        away = False
        assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()
    await server.stop()
    [line] = lines(log, "not_ready")
    assert line["failing"] == {"nats": "UnavailableError: nobody listens at 4222"}
    assert len(lines(log, "ready")) == 1


async def test_reflection_lists_all_services_of_the_mesh(
    signed_in: grpc.aio.Channel, anonymous: grpc.aio.Channel
) -> None:
    async def ask(on: grpc.aio.Channel) -> reflection_pb2.ServerReflectionResponse:
        async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", on))
        return await anext(aiter(stub.ServerReflectionInfo(requests())))

    names = {service.name for service in (await ask(signed_in)).list_services_response.service}
    services = {f"finemesh.v1.{noun}Service" for noun in ("DataPrep", "Training", "Tracking", "Export")}
    assert names >= services | {"grpc.health.v1.Health"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(anonymous)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_a_taken_port_is_said_so(server: GrpcServer) -> None:
    other = GrpcServer(ServerConfig(port=server.port), TokenVerifier.of(KEY))
    with pytest.raises(PreconditionError) as caught:
        await other.start()
    assert caught.value.reason == "PORT_TAKEN"


async def test_calls_in_flight_finish_when_the_server_stops(echo: Echo) -> None:
    server = GrpcServer(ServerConfig(grace_seconds=10), TokenVerifier.of(KEY))
    server.add(add_echo, echo)
    await server.start()
    async with channel(server.address, lambda: token("acme")) as made:
        method: Any = made.stream_stream(f"/{SERVICE}/stream_stream")
        running = method()
        await running.write(b"one")
        assert await running.read() == b"one"
        stopping = asyncio.create_task(server.stop())
        await running.write(b"two")
        assert await running.read() == b"two"
        await running.done_writing()
        assert [each async for each in running] == []
        await stopping


async def test_a_call_waits_for_a_server_that_restarts(server: GrpcServer, echo: Echo) -> None:
    async with channel(server.address, lambda: token("acme")) as made:
        assert await call(made, "unary_unary", b"a") == [b"a"]
        await server.stop()
        again = GrpcServer(ServerConfig(port=server.port, grace_seconds=0), TokenVerifier.of(KEY))
        again.add(add_echo, echo)

        async def restart() -> None:
            await asyncio.sleep(0.1)
            await again.start()

        restarting = asyncio.create_task(restart())
        assert await call(made, "unary_unary", b"b") == [b"b"]
        await restarting
        await again.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "mesh.example"])
def test_it_refuses_to_listen_off_loopback_without_tls(host: str) -> None:
    with pytest.raises(InvalidError) as caught:
        ServerConfig(host=host)
    assert caught.value.reason == "INSECURE_BIND"
    with pytest.raises(InvalidError):
        replace(ServerConfig(), host=host)
