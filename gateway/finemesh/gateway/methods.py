"""Which methods stream and which only read, told from the descriptor set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2

from finemesh.core.errors import InvalidError

_NO_SIDE_EFFECTS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


@dataclass(frozen=True, slots=True)
class Methods:
    """Method names of one gRPC service by the way the gateway treats them."""

    streaming: tuple[str, ...]
    """Client or server streams: no overall time limit."""
    reading: tuple[str, ...]
    """Unary calls bound to HTTP GET, or marked NO_SIDE_EFFECTS: safe to send twice."""


def read_methods(descriptor_set_path: Path, services: Sequence[str]) -> dict[str, Methods]:
    """The methods of each of `services` (full names). Raises InvalidError for one that is not described."""
    descriptor_set = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set_path.read_bytes())
    described = {
        f"{file.package}.{service.name}": service for file in descriptor_set.file for service in file.service
    }
    missing = sorted(set(services) - described.keys())
    if missing:
        raise InvalidError(
            f"{descriptor_set_path} does not describe {', '.join(missing)}: regenerate it with `make proto`",
            reason="SERVICE_NOT_DESCRIBED",
        )
    return {name: _sort(described[name]) for name in services}


def _sort(service: descriptor_pb2.ServiceDescriptorProto) -> Methods:
    streaming = [m.name for m in service.method if m.client_streaming or m.server_streaming]
    reading = [m.name for m in service.method if m.name not in streaming and _only_reads(m.options)]
    return Methods(tuple(streaming), tuple(reading))


def _only_reads(options: descriptor_pb2.MethodOptions) -> bool:
    # The stub types extensions by their message, which the runtime's FieldDescriptor does not know.
    binding: http_pb2.HttpRule = options.Extensions[cast("Any", annotations_pb2.http)]
    return options.idempotency_level == _NO_SIDE_EFFECTS or binding.WhichOneof("pattern") == "get"
