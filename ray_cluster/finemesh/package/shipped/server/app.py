"""The application of a package: the model is loaded while it already answers whether it is ready.

Under a limit of the body, of the tokens of an answer, and of the requests that wait: beyond them a request is
refused at once, with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .chat import Card, Chat
from .errors import Refusal, add_handlers
from .measures import Measures
from .pictures import Decide, Eye
from .seam import SPEAKS

_log: Final = logging.getLogger("serve")
_OWN: Final = frozenset({"/healthz", "/readyz", "/metrics"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost, and how many may come at once.

    Attributes:
        body_bytes: of a request.
        answer_tokens: of an answer.
        batch: requests that are run together.
        waiting: requests that wait.
    """

    body_bytes: int = 32 << 20
    answer_tokens: int = 1024
    batch: int = 16
    waiting: int = 64


class Served:
    """The model of a package, once it is loaded."""

    def __init__(self, load: Callable[[], Any], decide: Decide, package: Path, limits: Limits) -> None:
        self.load = load
        self.decide = decide
        self.limits = limits
        self.measures = Measures()
        content = (package / "manifest.json").read_bytes()
        self.facts: dict[str, Any] = json.loads(content)
        self.card = Card(
            name=served_name(self.facts),
            fingerprint=f"fp_{hashlib.sha256(content).hexdigest()[:12]}",
            created=int((package / "manifest.json").stat().st_mtime),
        )
        self.model: Chat | Eye | None = None

    async def begin(self, app: FastAPI) -> None:
        """Load the model and add its routes. A model that does not load ends the server."""
        try:
            runner = await asyncio.to_thread(self.load)
            limits = self.limits
            room = {"max_batch": limits.batch, "max_waiting": limits.waiting}
            if runner.task in SPEAKS:
                model = Chat(runner, self.card, self.measures, max_tokens=limits.answer_tokens, **room)
            else:
                model = Eye(runner, self.decide, self.facts["decisions"], self.measures, **room)
            app.include_router(model.routes())
            self.model = model
            self.measures.ready.set(1)
            _log.info("ready: %s", self.card.name)
        except Exception:
            _log.exception("the model does not load")
            os.kill(os.getpid(), signal.SIGTERM)


def served_name(facts: dict[str, Any]) -> str:
    """What callers call the model: the last part of the name of what it was trained as."""
    source = str(facts["lineage"].get("training_job") or facts["base_model"]["name"])
    return source.rstrip("/").rpartition("/")[2] or "model"


def create_app(load: Callable[[], Any], decide: Decide, package: Path, limits: Limits) -> FastAPI:
    """The application of a package. `load` makes its runner, in a thread, once the application starts."""
    served = Served(load, decide, package, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        loading = asyncio.create_task(served.begin(app))
        yield
        await loading
        if served.model:
            await asyncio.to_thread(served.model.close)

    app = FastAPI(title=served.card.name, lifespan=lifespan, docs_url=None, redoc_url=None)
    add_handlers(app)

    @app.get("/healthz")
    async def alive() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        _check_ready(served)
        return {"status": "ready", "model": served.card.name}

    @app.get("/metrics")
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        content = generate_latest(served.measures.registry)
        return PlainTextResponse(content, media_type=CONTENT_TYPE_LATEST)

    app.add_middleware(Gate, served=served)
    return app


def _check_ready(served: Served) -> None:
    if served.model is None:
        message = "the model is being loaded: try again in a second"
        raise Refusal(message, status=503, code="not_ready")


class Gate:
    """Stands before every route: counts, and refuses what comes too early or is too large."""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        self._app = app
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OWN:
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            try:
                _check_ready(self._served)
                body = self._within_limit(Request(scope), receive)
                await self._app(scope, body, sending)
            except Refusal as refusal:
                await refusal.response()(scope, receive, sending)
        finally:
            # A path that nobody serves is not kept: strangers could ask for endless ones.
            path = getattr(scope.get("route"), "path", "other")
            self._served.measures.requests.labels(path, str(status)).inc()
            self._served.measures.seconds.labels(path).observe(time.perf_counter() - began)

    def _within_limit(self, request: Request, receive: Receive) -> Receive:
        """The body, as long as it is no larger than allowed, whatever its header says."""
        most, seen = self._served.limits.body_bytes, 0
        message = f"the body is larger than the {most} bytes that are taken: send less"
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > most:
            raise Refusal(message, status=413, code="body_too_large")

        async def receiving() -> Message:
            nonlocal seen
            part = await receive()
            seen += len(part.get("body", b""))
            if seen > most:
                raise HTTPException(413, message)  # others that come up while a body is read are hidden
            return part

        return receiving


def main(make: Callable[[Path, str | None], Any], decide: Decide, package: Path) -> None:
    """Serve a package from the command line."""
    limits = Limits()
    parser = argparse.ArgumentParser(description="Serve the model of this package over HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 to be reached from other machines")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--base", help="folder or hub id of the base model of an adapter")
    parser.add_argument("--max-body-bytes", type=int, default=limits.body_bytes)
    parser.add_argument("--max-tokens", type=int, default=limits.answer_tokens, help="of an answer")
    parser.add_argument("--max-batch", type=int, default=limits.batch, help="requests run together")
    parser.add_argument("--max-waiting", type=int, default=limits.waiting, help="requests that may wait")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    limits = Limits(given.max_body_bytes, given.max_tokens, given.max_batch, given.max_waiting)
    app = create_app(lambda: make(package, given.base), decide, package, limits)
    config = uvicorn.Config(
        app, host=given.host, port=given.port, access_log=False, log_config=None, timeout_graceful_shutdown=30
    )
    uvicorn.Server(config).run()
