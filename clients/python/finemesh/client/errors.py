"""What a refused call says: `google.rpc.Status` with its details, as one exception."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request, by its path."""

    field: str
    description: str


class RpcError(Exception):
    """A call that the mesh refused or could not answer.

    Attributes:
        code: gRPC status code.
        reason: stable identifier, e.g. `DATASET_NOT_FOUND`; empty if the server sent none.
        message: what is wrong, where, and what to do.
        metadata: facts about this occurrence.
        violations: the wrong fields, if the request was at fault.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: dict[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = metadata or {}
        self.violations = violations

    @classmethod
    def of(cls, error: grpc.RpcError) -> RpcError:
        """Reads the details out of what grpc raised."""
        call = cast("grpc.Call", error)
        status = _status_of(call)
        if status is None:
            return cls(call.code(), call.details() or str(call.code()))
        return cls(call.code(), status.message, **_details(status))


def _status_of(call: grpc.Call) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(call)
    except ValueError:  # details that do not belong to this status, as a proxy in between may send
        return None


def _details(status: status_pb2.Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            found |= {"reason": info.reason, "metadata": dict(info.metadata)}
        elif detail.Unpack(bad):
            found["violations"] = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
    return found
