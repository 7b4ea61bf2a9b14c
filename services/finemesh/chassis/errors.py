"""The one mapping between `finemesh.core.errors` and `google.rpc.Status`, both ways.

A status carries ErrorInfo (reason, domain, metadata), BadRequest with every wrong field, and RetryInfo when
trying again may help. Shapes: https://google.aip.dev/193. Anything unexpected becomes INTERNAL with an opaque
id.
"""

from __future__ import annotations

import secrets
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from finemesh.core.errors import (
    AlreadyExistsError,
    ErrorRecord,
    FencedError,
    FieldViolation,
    FinemeshError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)

DOMAIN: Final = "finemesh"
DETAILS_KEY: Final = "grpc-status-details-bin"
RETRY_DELAY_SECONDS: Final = 1

# gRPC bounds trailers at 8 KiB, and an error that is too large is replaced by another. The message travels
# percent-encoded (up to 3 times its bytes), the details in base64: 3 * 1024 + 4/3 * 3072 stays below it.
_MAX_MESSAGE_BYTES: Final = 1024
_MAX_DETAILS_BYTES: Final = 3072
_MAX_METADATA_BYTES: Final = 256

_CLASS_CODES: Final[dict[type[FinemeshError], int]] = {
    InvalidError: code_pb2.INVALID_ARGUMENT,
    NotFoundError: code_pb2.NOT_FOUND,
    AlreadyExistsError: code_pb2.ALREADY_EXISTS,
    PreconditionError: code_pb2.FAILED_PRECONDITION,
    UnauthenticatedError: code_pb2.UNAUTHENTICATED,
    PermissionDeniedError: code_pb2.PERMISSION_DENIED,
    FencedError: code_pb2.ABORTED,
    ResourceExhaustedError: code_pb2.RESOURCE_EXHAUSTED,
    UnavailableError: code_pb2.UNAVAILABLE,
}
_CODE_CLASSES: Final[dict[int, type[FinemeshError]]] = {
    **{code: error_class for error_class, code in _CLASS_CODES.items()},
    code_pb2.DEADLINE_EXCEEDED: UnavailableError,
    code_pb2.CANCELLED: UnavailableError,
    code_pb2.OUT_OF_RANGE: InvalidError,
}
_GRPC_CODES: Final[dict[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}

_MessageT = TypeVar("_MessageT", bound=Message)


def to_status(error: FinemeshError) -> status_pb2.Status:
    """`error` as a `google.rpc.Status` that fits into a gRPC trailer."""
    status = status_pb2.Status(code=_code(error), message=_clipped(error.message, _MAX_MESSAGE_BYTES))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    for key, value in list(error.metadata.items())[:8]:
        info.metadata[key] = _clipped(value, _MAX_METADATA_BYTES)
    _attach(status, info)
    if isinstance(error, InvalidError) and error.violations:
        _attach(status, _bad_request(error.violations, _MAX_DETAILS_BYTES - status.ByteSize()))
    if error.retryable:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = RETRY_DELAY_SECONDS
        _attach(status, retry)
    return status


def unexpected(error_id: str) -> FinemeshError:
    """What a caller may know of an exception that nobody planned: an id that leads to the log line."""
    return FinemeshError(
        f"internal error {error_id}: the service's log has the details under this id",
        reason="INTERNAL",
        metadata={"error_id": error_id},
    )


def new_error_id() -> str:
    """An opaque id that joins an INTERNAL error to its traceback in the log."""
    return secrets.token_hex(8)


def code_name(error: FinemeshError) -> str:
    """The google.rpc.Code of `error`, by name."""
    return code_pb2.Code.Name(_code(error))


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: FinemeshError) -> None:
    """End the call with `error`. Does not return: raises grpc.aio.AbortError."""
    status = to_status(error)
    trailers = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(_GRPC_CODES[status.code], status.message, trailers)


def from_status(status: status_pb2.Status) -> FinemeshError:
    """The error that `status` describes. A code without a class of its own becomes FinemeshError itself."""
    info = _detail(status, error_details_pb2.ErrorInfo)
    reason = info.reason if info else code_pb2.Code.Name(status.code)
    metadata = dict(info.metadata) if info else {}
    error_class = _CODE_CLASSES.get(status.code, FinemeshError)
    if not issubclass(error_class, InvalidError):
        return error_class(status.message, reason=reason, metadata=metadata)
    bad_request = _detail(status, error_details_pb2.BadRequest)
    wrong = bad_request.field_violations if bad_request else ()
    violations = [FieldViolation(each.field, each.description) for each in wrong]
    return error_class(status.message, violations=violations, reason=reason, metadata=metadata)


def from_rpc_error(error: grpc.RpcError) -> FinemeshError:
    """The error behind a failed call of ours.

    Proxies and gRPC itself send no details: then the code's name is the reason. A cancelled task is not an
    RpcError in grpc.aio and never comes here.
    """
    call: Any = error
    status = status_pb2.Status(code=call.code().value[0], message=call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                continue
    return from_status(status)


def record_to_status(record: ErrorRecord) -> status_pb2.Status:
    """The `error` field of a resource."""
    status = status_pb2.Status(code=code_pb2.Code.Value(record.code), message=record.message)
    _attach(
        status, error_details_pb2.ErrorInfo(reason=record.reason, domain=DOMAIN, metadata=record.metadata)
    )
    return status


def status_to_record(status: status_pb2.Status) -> ErrorRecord:
    """The inverse of `record_to_status`, for an error that a worker reports."""
    error = from_status(status)
    return ErrorRecord(code_pb2.Code.Name(status.code), error.reason, error.message, error.metadata)


def _code(error: FinemeshError) -> int:
    return next((_CLASS_CODES[c] for c in type(error).__mro__ if c in _CLASS_CODES), code_pb2.INTERNAL)


def _bad_request(violations: list[FieldViolation], room_bytes: int) -> error_details_pb2.BadRequest:
    """As many violations as fit; the last one then says how many were left out."""
    message = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        description = _clipped(violation.description, _MAX_MESSAGE_BYTES)
        message.field_violations.add(field=violation.field, description=description)
        if message.ByteSize() > room_bytes:
            del message.field_violations[-1]
            message.field_violations.add(field="", description=f"and {len(violations) - index} more")
            break
    return message


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)


def _detail(status: status_pb2.Status, kind: type[_MessageT]) -> _MessageT | None:
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None


def _clipped(text: str, limit_bytes: int) -> str:
    """`text`, shortened to at most `limit_bytes` of UTF-8. What UTF-8 cannot hold is written out."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    return encoded[: limit_bytes - 3].decode(errors="ignore") + "…"
