"""The gRPC server that every service runs, and the frame of a service's process."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2_grpc

from finemesh.chassis.auth import TokenVerifier
from finemesh.chassis.health import Check, HealthMonitor
from finemesh.chassis.interceptors import CallInterceptor
from finemesh.chassis.logs import configure_logging, get_logger
from finemesh.chassis.reflection import STUB_PACKAGES, add_reflection
from finemesh.chassis.tls import ServerTls
from finemesh.core.errors import FinemeshError, InvalidError, PreconditionError

CONFIG_EXIT_CODE: Final = 2
_HARD_STOP_SECONDS: Final = 10.0
_SWITCH_SECONDS: Final = 0.0005
# A call makes some hundred objects that the collector looks at, and none of them is part of a cycle.
_GARBAGE_AT_ONCE: Final = 50_000

_log = get_logger("finemesh.server")

AddServicer = Callable[[Any, Any], None]
Main = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where and how to listen. Off loopback TLS is required.

    Attributes:
        host: address to listen on.
        port: 0 takes any free one.
        max_message_bytes: largest message, both ways.
        max_concurrent_calls: further calls wait.
        grace_seconds: how long calls in flight may take when the process ends.
        health_interval_seconds: how often SQL, NATS and S3 are looked at.
        tls: certificate of the server; none is plain text, on loopback only.
    """

    host: str = "127.0.0.1"
    port: int = 0
    max_message_bytes: int = 16 << 20
    max_concurrent_calls: int = 1000
    grace_seconds: float = 5.0
    health_interval_seconds: float = 2.0
    tls: ServerTls | None = None

    def __post_init__(self) -> None:
        if self.tls is None and not is_loopback(self.host):
            raise InvalidError(
                f"refusing to listen on {self.host} without TLS: set the certificate and key files, "
                "or listen on 127.0.0.1",
                reason="INSECURE_BIND",
            )


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class GrpcServer:
    """A grpc.aio server with health, reflection, authentication and error mapping.

    server = GrpcServer(config, verifier, checks={"nats": bus.check})
    server.add(training_service_pb2_grpc.add_TrainingServiceServicer_to_server, servicer)
    await server.start()
    await stop.wait()
    await server.stop()
    """

    def __init__(
        self,
        config: ServerConfig,
        verifier: TokenVerifier,
        *,
        checks: Mapping[str, Check] | None = None,
        reflected_packages: Iterable[str] = STUB_PACKAGES,
    ) -> None:
        self.port = 0
        self.services: list[str] = []
        self.health = HealthMonitor(checks or {}, config.health_interval_seconds)
        self._config = config
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(verifier)],
            options=_options(config),
            maximum_concurrent_rpcs=config.max_concurrent_calls,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self._server)
        add_reflection(self._server, reflected_packages)

    @property
    def address(self) -> str:
        """host:port, once started."""
        return f"{self._config.host}:{self.port}"

    def add(self, add_servicer: AddServicer, servicer: Any) -> None:
        """Register `servicer` by its generated `add_…Servicer_to_server`, for calls and for health."""
        add_servicer(servicer, _Registrar(self._server, self.services))

    async def start(self) -> None:
        """Listen. Raises PreconditionError, reason PORT_TAKEN, when the address cannot be bound."""
        config = self._config
        wanted = f"{config.host}:{config.port}"
        try:
            self.port = (
                self._server.add_secure_port(wanted, config.tls.credentials())
                if config.tls
                else self._server.add_insecure_port(wanted)
            )
        except RuntimeError as error:
            raise PreconditionError(
                f"cannot listen on {wanted}: another process may hold the port", reason="PORT_TAKEN"
            ) from error
        await self.health.start(self.services)
        await self._server.start()
        _log.info("listening", address=self.address, services=self.services, tls=config.tls is not None)

    async def stop(self) -> None:
        """Report NOT_SERVING, refuse new calls, and let running ones finish within `grace_seconds`."""
        await self.health.stop()
        await self._server.stop(self._config.grace_seconds)


class _Registrar:
    """Stands in for the server while generated code registers a servicer, to learn the service's name."""

    def __init__(self, server: Any, services: list[str]) -> None:
        self._server = server
        self._services = services

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        handlers = tuple(handlers)
        self._services.extend(handler.service_name() for handler in handlers)
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self._server.add_registered_method_handlers(service, handlers)


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, not a worker
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


async def serve(server: GrpcServer, stop: asyncio.Event, *background: Coroutine[Any, Any, None]) -> None:
    """Serve, with the loops of the service beside, until `stop` is set.

    Raises what ends a loop before that: a service without its loops would look alive and do nothing.
    """
    loops = [asyncio.create_task(loop, name=loop.__qualname__) for loop in background]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await server.start()
        ended, _ = await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
        for task in ended - {stopping}:
            task.result()
            raise FinemeshError(f"the loop {task.get_name()} has ended by itself", reason="LOOP_ENDED")
        await server.stop()
    finally:
        for task in (stopping, *loops):
            task.cancel()
        await asyncio.gather(stopping, *loops, return_exceptions=True)


def run_service(name: str, main: Main, log_level: str = "INFO") -> None:
    """Run `main(stop)` as the process of service `name` and exit; `stop` is set by SIGTERM or SIGINT.

    A second signal, or `main` still running 10 s after the first, cancels it. Exit code 0 if `main` returns,
    2 for a FinemeshError (wrong configuration), 1 for anything else. Does not return.
    """
    configure_logging(name, log_level)
    # The threads of the database take a turn with each statement: none is to wait the usual 5 ms for it.
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what was imported stays
    gc.set_threshold(_GARBAGE_AT_ONCE, 20, 50)
    uvloop.run(_run_and_exit(main))


async def _run_and_exit(main: Main) -> NoReturn:
    """Ends the process itself: once `main` has run its `finally` blocks, nothing that is left may hold it.

    A grpc.aio server that was never stopped does: closing the event loop then waits for its poller forever.
    """
    code = await _exit_code(main)
    logging.shutdown()
    os._exit(code)


async def _exit_code(main: Main) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.create_task(main(stop), name="main")

    def on_signal(number: signal.Signals) -> None:
        _log.info("stopping", signal=number.name)
        if stop.is_set():
            task.cancel()
        stop.set()
        loop.call_later(_HARD_STOP_SECONDS, task.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await asyncio.wait([task])
    if task.cancelled():
        _log.warning("stopped_by_force")
        return 1
    error = task.exception()
    if isinstance(error, FinemeshError):
        _log.error("cannot_run", reason=error.reason, message=str(error), metadata=error.metadata)
        return CONFIG_EXIT_CODE
    if error is not None:
        _log.error("crashed", exc_info=error)
        return 1
    return 0
