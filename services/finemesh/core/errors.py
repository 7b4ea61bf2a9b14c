"""The one error tree of Finemesh.

    FinemeshError               reason, metadata, message
    ├── InvalidError            the request is wrong; violations say where       INVALID_ARGUMENT
    ├── NotFoundError           a name that leads nowhere                        NOT_FOUND
    ├── AlreadyExistsError      the name is taken by something else              ALREADY_EXISTS
    ├── PreconditionError       right request, wrong moment or wrong state       FAILED_PRECONDITION
    ├── UnauthenticatedError    no token, or one that does not verify            UNAUTHENTICATED
    ├── PermissionDeniedError   a good token without the right                   PERMISSION_DENIED
    ├── FencedError             an attempt that has lost its lease               ABORTED
    ├── ResourceExhaustedError  a limit or a budget was reached                  RESOURCE_EXHAUSTED
    └── UnavailableError        a dependency is away; trying again may help      UNAVAILABLE

Each error carries a stable machine-readable `reason` (UPPER_SNAKE_CASE) and says in its message what is
wrong, where, and what to do about it. The mapping to gRPC lives in the chassis alone; nothing here knows of a
transport.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request. `field` is the path in the request, e.g. `spec.lora.rank`."""

    field: str
    description: str


class FinemeshError(Exception):
    """Root of everything that Finemesh raises on purpose.

    Attributes:
        reason: stable identifier for programs, e.g. `DATASET_NOT_FOUND`.
        metadata: string facts about this occurrence, e.g. `{"dataset": "projects/a/datasets/b"}`.
        retryable: whether the same request may succeed later without a change.
    """

    default_reason: ClassVar[str] = "UNKNOWN"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, reason: str | None = None, metadata: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata: dict[str, str] = dict(metadata or {})

    def __str__(self) -> str:
        return self.message


class InvalidError(FinemeshError):
    """The request contradicts itself or the contract; `violations` names every wrong field at once."""

    default_reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        *,
        violations: list[FieldViolation] | None = None,
        reason: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.violations: list[FieldViolation] = list(violations or [])

    @classmethod
    def of(cls, field_path: str, description: str, *, reason: str | None = None) -> InvalidError:
        """An error about a single field."""
        return cls(
            f"{field_path}: {description}",
            violations=[FieldViolation(field_path, description)],
            reason=reason,
        )


class NotFoundError(FinemeshError):
    default_reason = "NOT_FOUND"


class AlreadyExistsError(FinemeshError):
    default_reason = "ALREADY_EXISTS"


class PreconditionError(FinemeshError):
    default_reason = "FAILED_PRECONDITION"


class UnauthenticatedError(FinemeshError):
    default_reason = "UNAUTHENTICATED"


class PermissionDeniedError(FinemeshError):
    default_reason = "PERMISSION_DENIED"


class FencedError(FinemeshError):
    """The attempt has been superseded or its lease has run out. It must stop and write nothing more."""

    default_reason = "ATTEMPT_FENCED"


class ResourceExhaustedError(FinemeshError):
    default_reason = "RESOURCE_EXHAUSTED"


class UnavailableError(FinemeshError):
    default_reason = "UNAVAILABLE"
    retryable = True


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An error as state: what a failed job, dataset or export carries. `code` is a google.rpc.Code name."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict[str, str])
