"""/detect, /classify and /segment: a picture comes up, what is in it goes down.

A picture is the body of the request (`Content-Type: image/...`), or the first file of a form.

Shape legend: C classes, H, W height and width of the picture as it came.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Request
from PIL import Image
from starlette.datastructures import UploadFile

from .batching import Batcher, QueueFullError
from .conversation import decode
from .errors import Refusal
from .measures import Measures
from .seam import Arrays, Runner, shape_of

Decide = Callable[[str, dict[str, Any], Arrays, tuple[int, int]], Arrays]
"""`decide` of decide.py: (task, facts, outputs, size of the picture) -> the decision."""

PATHS: Final = {
    "DETECTION": "/detect",
    "IMAGE_CLASSIFICATION": "/classify",
    "SEMANTIC_SEGMENTATION": "/segment",
    "INSTANCE_SEGMENTATION": "/segment",
}

_BYTES: Final = {"type": "string", "format": "binary"}
_BODY: Final = {
    "required": True,
    "description": "A picture: as it is, or as the first file of a form.",
    "content": {
        "image/*": {"schema": _BYTES},
        "multipart/form-data": {"schema": {"type": "object", "properties": {"image": _BYTES}}},
    },
}
"""What `body_of` takes, for the pages that FastAPI makes of the routes."""


class Look:
    """One picture for the model: a job of the batcher."""

    cancelled = False

    def __init__(self, inputs: Arrays) -> None:
        self.inputs = inputs
        self.group = shape_of(inputs)
        self.outputs: asyncio.Future[Arrays] = asyncio.get_running_loop().create_future()

    def done(self, outputs: Arrays) -> None:
        self.outputs.get_loop().call_soon_threadsafe(self._settle, outputs)

    def fail(self, error: BaseException) -> None:
        self.outputs.get_loop().call_soon_threadsafe(self._settle, error)

    def _settle(self, result: Arrays | BaseException) -> None:
        if self.outputs.done():  # nobody waits any more
            return
        if isinstance(result, BaseException):
            self.outputs.set_exception(result)
        else:
            self.outputs.set_result(result)


class Eye:
    """Looks at pictures with one model.

    Args:
        runner: of the model.
        decide: reads its outputs.
        facts: `decisions` of the manifest.
        measures: are told what was done.
        max_batch: pictures that are looked at together.
        max_waiting: requests that may wait.
    """

    def __init__(
        self,
        runner: Any,
        decide: Decide,
        facts: dict[str, Any],
        measures: Measures,
        *,
        max_batch: int,
        max_waiting: int,
    ) -> None:
        self._runner: Runner = runner
        self._decide = decide
        self._facts = facts
        self._measures = measures
        self._many: Callable[[Sequence[Arrays]], list[Arrays]] | None = getattr(runner, "together", None)
        self._batcher: Batcher[Look] = Batcher(
            self._run,
            max_batch=max_batch if self._many else 1,
            max_waiting=max_waiting,
            on_batch=measures.batch.observe,
        )
        measures.waiting.set_function(lambda: self._batcher.waiting)

    def close(self) -> None:
        self._batcher.close()

    def _run(self, looks: Sequence[Look]) -> None:
        with self._measures.model_seconds.time():
            items = [look.inputs for look in looks]
            made = self._many(items) if self._many else [self._runner.outputs(item) for item in items]
        for look, outputs in zip(looks, made, strict=True):
            look.done(outputs)

    async def look(self, picture: Image.Image) -> Arrays:
        """The outputs of the model for a picture. Raises Refusal."""
        look = Look(await asyncio.to_thread(self._runner.prepare, [], picture))
        try:
            self._batcher.submit(look)
        except QueueFullError as error:
            self._measures.refused.inc()
            message = "too many requests wait already: try again in a second"
            raise Refusal(message, status=429, code="queue_full") from error
        return await look.outputs

    def routes(self) -> APIRouter:
        router = APIRouter()
        task = self._runner.task

        async def see(
            request: Request,
            threshold: Annotated[float, Query(ge=0, le=1)] = 0.5,
            top: Annotated[int, Query(ge=1, le=1000)] = 5,
        ) -> dict[str, Any]:
            picture = await asyncio.to_thread(decode, await body_of(request), "body")
            outputs, size_px = await self.look(picture), (picture.height, picture.width)
            said = await asyncio.to_thread(
                say, task, self._decide, self._facts, outputs, size_px, threshold, top
            )
            return {"width": picture.width, "height": picture.height, **said}

        router.add_api_route(PATHS[task], see, methods=["POST"], openapi_extra={"requestBody": _BODY})
        return router


def say(
    task: str,
    decide: Decide,
    facts: dict[str, Any],
    outputs: Arrays,
    size_px: tuple[int, int],
    threshold: float = 0.5,
    top: int = 5,
) -> dict[str, Any]:
    """What the outputs of a picture say, as JSON values.

    Args:
        task: of the model.
        decide: reads the outputs.
        facts: `decisions` of the manifest.
        outputs: of the model for the picture.
        size_px: height and width of the picture.
        threshold: the least score of an object.
        top: the most classes of a whole picture.
    """
    labels: list[str] = facts["labels"]
    if task == "IMAGE_CLASSIFICATION":
        sure_C = _softmax(outputs["logits"])
        best = np.argsort(-sure_C, kind="stable")[:top]
        return {"classes": [{"label": labels[label], "score": float(sure_C[label])} for label in best]}
    decision = decide(task, facts, outputs, size_px)
    if task == "SEMANTIC_SEGMENTATION":
        return _map(decision["map"], labels)
    objects = [
        {"label": labels[int(label)], "score": float(score), **_where(decision, index)}
        for index, (label, score) in enumerate(zip(decision["labels"], decision["scores"], strict=True))
        if score >= threshold
    ]
    return {"objects": objects}


def _map(map_HW: npt.NDArray[np.uint8], labels: list[str]) -> dict[str, Any]:
    """The map as a picture whose grey values are places in `labels`, and how much each covers."""
    stream = io.BytesIO()
    Image.fromarray(map_HW).save(stream, "PNG")
    counts_C = np.bincount(map_HW.ravel(), minlength=len(labels))
    share = {name: count / map_HW.size for name, count in zip(labels, counts_C.tolist(), strict=True)}
    encoded = base64.b64encode(stream.getvalue()).decode()
    return {"labels": labels, "share": share, "map": f"data:image/png;base64,{encoded}"}


async def body_of(request: Request) -> bytes:
    """The picture of a request, still encoded. Raises Refusal."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=4) as form:
            files = [each for each in form.values() if isinstance(each, UploadFile)]
            content = await files[0].read() if files else b""
    else:
        content = await request.body()
    if not content:
        message = "send a picture: as the body, or as a file of a form"
        raise Refusal(message, code="no_image", param="body")
    return content


def run_lengths(mask_HW: npt.NDArray[Any]) -> dict[str, Any]:
    """COCO's uncompressed run lengths: column by column, beginning with what is not of the mask."""
    flat = mask_HW.ravel(order="F").astype(bool)
    changes: list[int] = (np.flatnonzero(np.diff(flat)) + 1).tolist()
    counts = np.diff(np.array([0, *changes, flat.size])).tolist()
    return {"size": list(mask_HW.shape), "counts": [0, *counts] if flat.size and flat[0] else counts}


def _where(decision: Arrays, index: int) -> dict[str, Any]:
    """The box of an object, as left, top, right, bottom in pixels, and its mask if it has one."""
    if "boxes" in decision:
        return {"box": [float(each) for each in decision["boxes"][index]]}
    mask_HW = decision["masks"][index]
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    return {"box": [float(each) for each in box], "mask": run_lengths(mask_HW)}


def _softmax(logits_C: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    powers_C = np.exp(logits_C.astype(np.float64) - logits_C.max())
    return powers_C / powers_C.sum()
