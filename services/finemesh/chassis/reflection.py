"""Server reflection over the descriptors of the whole mesh, whichever service is asked."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

# Importing a generated module puts its descriptors into the default pool, which reflection reads.
STUB_PACKAGES: Final = ("finemesh.v1", "finemesh.events.v1")


def service_names(packages: Iterable[str] = STUB_PACKAGES) -> list[str]:
    """Full names of every service that the generated packages define, plus health and reflection, sorted."""
    names = {
        service.full_name
        for descriptor in _descriptors(packages)
        for service in descriptor.services_by_name.values()
    }
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    return sorted(names | {health_name, reflection.SERVICE_NAME})


def add_reflection(server: Any, packages: Iterable[str] = STUB_PACKAGES) -> None:
    """Serve grpc.reflection.v1alpha, the version that the wheel speaks, on a grpc.aio server."""
    servicer = reflection.aio.ReflectionServicer(service_names(packages))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)


def _descriptors(packages: Iterable[str]) -> Iterator[FileDescriptor]:
    for package in packages:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            if module.name.endswith("_pb2"):
                yield importlib.import_module(module.name).DESCRIPTOR
