"""Faults as OpenAI writes them: https://platform.openai.com/docs/guides/error-codes."""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

_log: Final = logging.getLogger("serve")


class Refusal(Exception):  # noqa: N818  it is an answer
    """A request that is not carried out.

    Attributes:
        message: what is wrong, and what to do.
        status: of HTTP.
        code: for programs.
        param: the field that is at fault, where it is one.
    """

    def __init__(self, message: str, *, status: int = 400, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.param = message, status, code, param

    def body(self) -> dict[str, Any]:
        """The error object, also the last event of a stream that breaks off."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        later = {"Retry-After": "1"} if self.status in {429, 503} else None
        return JSONResponse(self.body(), self.status, headers=later)


def unexpected(error: BaseException) -> Refusal:
    """A fault of ours: its traceback is in the log, under an id that the caller is told."""
    fault = secrets.token_hex(6)
    _log.error("fault %s", fault, exc_info=error)
    message = f"this server failed; its log says why under {fault}"
    return Refusal(message, status=500, code="internal_error")


def add_handlers(app: FastAPI) -> None:
    """Have every fault of a request answered by an error object."""

    @app.exception_handler(Refusal)
    async def refused(_request: Request, error: Refusal) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            message = f"the body is no JSON: {first['ctx']['error']}, at character {first['loc'][-1]}"
            return Refusal(message, code="invalid_json").response()
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        unknown = first["type"] == "extra_forbidden"
        fault = "this server does not know it: leave it out" if unknown else first["msg"]
        code = "unsupported_parameter" if unknown else "invalid_value"
        message = f"{where or 'the body'}: {fault}{more}"
        return Refusal(message, code=code, param=where or None).response()

    @app.exception_handler(HTTPException)
    async def refused_by_route(_request: Request, error: HTTPException) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        codes = {404: "not_found", 405: "method_not_allowed", 400: "invalid_value", 413: "body_too_large"}
        code = codes.get(error.status_code, "refused")
        return Refusal(str(error.detail), status=error.status_code, code=code).response()

    @app.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        response = unexpected(error).response()
        # Starlette raises the fault again, and the server closes the connection for it: callers have to know.
        response.headers["Connection"] = "close"
        return response
