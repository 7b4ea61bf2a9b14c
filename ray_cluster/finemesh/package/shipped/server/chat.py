"""/v1/chat/completions and /v1/models: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from .answering import Answer, Ended, Event, Wish
from .batching import Batcher, QueueFullError
from .conversation import ChatRequest, unfold
from .errors import Refusal, unexpected
from .measures import Measures
from .seam import Answering, Arrays, OneByOne, Runner


@dataclass(frozen=True, slots=True)
class Card:
    """What answers are signed with: the model's name, a fingerprint of its files, when they were made."""

    name: str
    fingerprint: str
    created: int


class Chat:
    """Answers conversations with one model.

    Args:
        runner: of the model.
        card: of the model.
        measures: are told what was done.
        max_tokens: of an answer.
        max_batch: answers that are written together.
        max_waiting: requests that may wait.
    """

    def __init__(
        self,
        runner: Any,
        card: Card,
        measures: Measures,
        *,
        max_tokens: int,
        max_batch: int,
        max_waiting: int,
    ) -> None:
        self._runner: Runner = runner
        self._answering: Answering | OneByOne = runner if hasattr(runner, "answer") else OneByOne(runner)
        self._card = card
        self._measures = measures
        self._max_tokens = max_tokens
        self._batcher: Batcher[Answer] = Batcher(
            self._run,
            max_batch=min(max_batch, self._answering.most_at_once),
            max_waiting=max_waiting,
            on_batch=measures.batch.observe,
        )
        measures.waiting.set_function(lambda: self._batcher.waiting)

    def close(self) -> None:
        self._batcher.close()

    async def ask(self, request: ChatRequest) -> Answer:
        """Have an answer written. Raises Refusal."""
        if request.temperature and isinstance(self._answering, OneByOne):
            message = "this runtime takes the likeliest token each time: leave temperature out"
            raise Refusal(message, code="unsupported_value", param="temperature")
        inputs = await asyncio.to_thread(self._prepare, request)
        answer = Answer(inputs, self._wish(request, inputs), self._runner.text, self._answering.end_ids)
        try:
            self._batcher.submit(answer)
        except QueueFullError as error:
            self._measures.refused.inc()
            message = "too many requests wait already: try again in a second"
            raise Refusal(message, status=429, code="queue_full") from error
        return answer

    def _prepare(self, request: ChatRequest) -> Arrays:
        messages, images = unfold(request, takes_images=self._runner.task == "VISION_LANGUAGE")
        try:
            return self._runner.prepare(messages, images[0] if images else None)
        except Exception as error:  # a template that raises, or a processor that counts other pictures
            message = f"the model's chat template does not take this conversation: {error}"
            raise Refusal(message, code="invalid_messages", param="messages") from error

    def _wish(self, request: ChatRequest, inputs: Arrays) -> Wish:
        asked, tokens = request.wanted_tokens, inputs["input_ids"].shape[1]
        if asked and asked > self._max_tokens:
            message = f"{asked} tokens are more than the {self._max_tokens} that this server writes at most"
            raise Refusal(message, code="max_tokens_too_large", param="max_tokens")
        context = self._answering.context_tokens or tokens + self._max_tokens
        if tokens + (asked or 1) > context:
            message = f"{tokens} tokens and {asked or 1} to write are more than the {context} of the model"
            raise Refusal(message, code="context_length_exceeded", param="messages")
        return Wish(
            max_tokens=asked or min(self._max_tokens, context - tokens),
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stops=request.stops,
            piecewise=request.stream,
        )

    def _run(self, answers: Sequence[Answer]) -> None:
        wanted = [answer for answer in answers if not answer.cancelled]
        if not wanted:
            return
        with self._measures.model_seconds.time():
            self._answering.answer(
                [answer.inputs for answer in wanted],
                max(answer.wish.max_tokens for answer in wanted),
                lambda index, logits_V: wanted[index].choose(logits_V),
                lambda index, token: wanted[index].take(token),
            )
        for answer in wanted:
            answer.end("stop")  # of a runtime that takes no end token along

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/v1")

        @router.post("/chat/completions")
        async def complete(request: ChatRequest, http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            if request.model and request.model != self._card.name:
                message = f"there is no model {request.model!r} here, only {self._card.name!r}"
                raise Refusal(message, status=404, code="model_not_found", param="model")
            answer = await self.ask(request)
            if request.stream:
                usage = request.stream_options is not None and request.stream_options.include_usage
                return StreamingResponse(self._stream(answer, usage=usage), media_type="text/event-stream")
            event = await _unless_gone(answer, http)
            return JSONResponse(self._whole(answer, event)) if event else Response(status_code=499)

        @router.get("/models")
        async def models() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
            return {"object": "list", "data": [self._model()]}

        @router.get("/models/{name:path}")
        async def model(name: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
            if name != self._card.name:
                raise Refusal(f"there is no model {name!r} here", status=404, code="model_not_found")
            return self._model()

        return router

    def _model(self) -> dict[str, Any]:
        card = self._card
        return {"id": card.name, "object": "model", "created": card.created, "owned_by": "this package"}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": self._card.name,
            "system_fingerprint": self._card.fingerprint,
        }

    def _usage(self, answer: Answer, ended: Ended) -> dict[str, int]:
        self._measures.tokens.labels("prompt").inc(answer.prompt_tokens)
        self._measures.tokens.labels("answer").inc(ended.tokens)
        total = answer.prompt_tokens + ended.tokens
        return {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": ended.tokens,
            "total_tokens": total,
        }

    def _whole(self, answer: Answer, ended: Ended) -> dict[str, Any]:
        message = {"role": "assistant", "content": ended.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ended.finish}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": self._usage(answer, ended),
        }

    async def _stream(self, answer: Answer, *, usage: bool) -> AsyncIterator[str]:
        head = self._head("chat.completion.chunk")

        def chunk(delta: dict[str, str], finish: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return _event({**head, "choices": [choice]})

        try:
            yield chunk({"role": "assistant", "content": ""})
            while isinstance(event := await answer.events.get(), str):
                yield chunk({"content": event})
            if isinstance(event, Ended):
                if event.text:
                    yield chunk({"content": event.text})
                yield chunk({}, event.finish)
                spent = self._usage(answer, event)
                if usage:
                    yield _event({**head, "choices": [], "usage": spent})
            else:
                yield _event(unexpected(event).body())
            yield "data: [DONE]\n\n"
        finally:
            answer.cancelled = True  # whoever has gone away is written nothing more


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


async def _unless_gone(answer: Answer, http: Request) -> Ended | None:
    """The end of an answer; nothing if its caller has gone away meanwhile. Raises what it failed with."""
    ended = asyncio.ensure_future(answer.events.get())
    gone = asyncio.ensure_future(_gone(http))
    try:
        await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
        event: Event | None = ended.result() if ended.done() else None
    finally:
        answer.cancelled = True
        for task in (ended, gone):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    if isinstance(event, BaseException):
        raise event
    assert not isinstance(event, str)  # pieces are told to those who want them
    return event


async def _gone(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
