"""Errors to google.rpc.Status and back: nothing that a caller needs gets lost on the way."""

from __future__ import annotations

import pytest
from finemesh.chassis import errors
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
from google.rpc import code_pb2, error_details_pb2, status_pb2

CODES: dict[type[FinemeshError], str] = {
    InvalidError: "INVALID_ARGUMENT",
    NotFoundError: "NOT_FOUND",
    AlreadyExistsError: "ALREADY_EXISTS",
    PreconditionError: "FAILED_PRECONDITION",
    UnauthenticatedError: "UNAUTHENTICATED",
    PermissionDeniedError: "PERMISSION_DENIED",
    FencedError: "ABORTED",
    ResourceExhaustedError: "RESOURCE_EXHAUSTED",
    UnavailableError: "UNAVAILABLE",
    FinemeshError: "INTERNAL",
}


def test_every_class_of_the_tree_has_its_code() -> None:
    assert set(FinemeshError.__subclasses__()) | {FinemeshError} == set(CODES)


@pytest.mark.parametrize(("error_class", "code"), CODES.items())
def test_there_and_back(error_class: type[FinemeshError], code: str) -> None:
    error = error_class("what, where, what to do", reason="SOME_REASON", metadata={"dataset": "d"})
    status = errors.to_status(error)
    assert code_pb2.Code.Name(status.code) == errors.code_name(error) == code
    back = errors.from_status(status)
    assert type(back) is error_class
    assert (back.message, back.reason, back.metadata) == (error.message, error.reason, error.metadata)


def test_a_subclass_has_the_code_of_its_parent() -> None:
    class GoneError(NotFoundError):
        pass

    assert errors.code_name(GoneError("gone")) == "NOT_FOUND"


def test_all_wrong_fields_are_named() -> None:
    wrong = [FieldViolation("spec.lora.rank", "must be positive"), FieldViolation("parent", "is empty")]
    status = errors.to_status(InvalidError("two fields are wrong", violations=wrong))
    bad_request = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad_request)
    assert [each.field for each in bad_request.field_violations] == ["spec.lora.rank", "parent"]
    back = errors.from_status(status)
    assert isinstance(back, InvalidError)
    assert back.violations == wrong


def test_only_what_may_pass_asks_for_another_try() -> None:
    for error_class in CODES:
        kinds = [detail.type_url for detail in errors.to_status(error_class("x")).details]
        assert ("type.googleapis.com/google.rpc.RetryInfo" in kinds) == error_class.retryable


@pytest.mark.parametrize("text", ["m" * 50_000, "ü" * 50_000, "🐟" * 50_000, "\ud83d" * 50_000, "\ud83d"])
def test_a_status_always_fits_into_a_trailer(text: str) -> None:
    wrong = [FieldViolation(f"field[{index}]", text) for index in range(100)]
    metadata = {f"key{index}": text for index in range(100)}
    status = errors.to_status(InvalidError(text, violations=wrong, metadata=metadata))
    percent_encoded = 3 * len(status.message.encode())
    base64 = 4 * len(status.SerializeToString()) / 3
    assert percent_encoded + base64 < 8192
    back = errors.from_status(status)
    assert isinstance(back, InvalidError)
    assert back.violations


def test_a_status_of_others_keeps_its_code_as_the_reason() -> None:
    error = errors.from_status(status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message="too late"))
    assert isinstance(error, UnavailableError)
    assert (error.reason, error.message) == ("DEADLINE_EXCEEDED", "too late")
    assert type(errors.from_status(status_pb2.Status(code=code_pb2.DATA_LOSS))) is FinemeshError


def test_an_error_of_a_job_survives_as_state() -> None:
    error = NotFoundError("no such model", reason="MODEL_NOT_FOUND", metadata={"model": "m"})
    record = errors.status_to_record(errors.to_status(error))
    assert record == ErrorRecord("NOT_FOUND", "MODEL_NOT_FOUND", "no such model", {"model": "m"})
    assert errors.status_to_record(errors.record_to_status(record)) == record


def test_the_unexpected_tells_an_id_only() -> None:
    first, second = errors.new_error_id(), errors.new_error_id()
    assert first != second
    error = errors.unexpected(first)
    assert first in error.message
    assert errors.code_name(error) == "INTERNAL"
