"""Whose fault an error is, which decides whether the same work is tried again.

    USER     the request or its data: another attempt would fail the same way     not tried again
    SYSTEM   a machine, a network, a service: another attempt may well succeed    as often as the job allows
    UNKNOWN  nobody planned for it: maybe a fault that shows every time           once, see `is_hopeless`

The code of an error decides, unless its reason is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from finemesh.core.errors import ErrorRecord


class ErrorClass(StrEnum):
    USER = "USER"
    SYSTEM = "SYSTEM"
    UNKNOWN = "UNKNOWN"


_CODES: Final[Mapping[ErrorClass, frozenset[str]]] = MappingProxyType(
    {
        ErrorClass.USER: frozenset(
            {
                *("INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "ALREADY_EXISTS"),
                *("OUT_OF_RANGE", "PERMISSION_DENIED", "UNIMPLEMENTED"),
            }
        ),
        ErrorClass.SYSTEM: frozenset(
            {
                *("UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"),
                *("CANCELLED", "UNAUTHENTICATED"),
            }
        ),
    }
)
_REASONS: Final[Mapping[str, ErrorClass]] = MappingProxyType(
    {"RUN_TIMEOUT": ErrorClass.USER, "OUT_OF_MEMORY": ErrorClass.USER}
)


def classify(error: ErrorRecord) -> ErrorClass:
    """The class of `error`, by its reason, or else by its code."""
    if error.reason in _REASONS:
        return _REASONS[error.reason]
    return next((kind for kind, codes in _CODES.items() if error.code in codes), ErrorClass.UNKNOWN)


def classed(error: ErrorRecord) -> ErrorRecord:
    """`error` with its class in its metadata, under `class`."""
    return replace(error, metadata={**error.metadata, "class": classify(error)})


def is_hopeless(error: ErrorRecord, before: ErrorRecord | None, *, progressed: bool) -> bool:
    """Whether another attempt is pointless.

    Args:
        error: what ended the attempt.
        before: what ended the one before it, if anything did.
        progressed: whether the attempt saved more than it began with.
    """
    kind = classify(error)
    if kind is ErrorClass.UNKNOWN and not progressed:
        return before is not None and classify(before) is ErrorClass.UNKNOWN
    return kind is ErrorClass.USER
