"""A runner of a package without a model: it says again what it was told, byte by byte, as often as it can."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.servers import PATIENCE_SECONDS

END = 0


class EchoRunner:
    """Speaks in bytes. `gate` holds it back while it is closed; `batches` counts what it ran together; what
    is `endless` it says for ever.
    """

    task = "VISION_LANGUAGE"
    versions: dict[str, str]
    end_ids = frozenset({END})
    most_at_once = 16

    def __init__(self, endless: str = "") -> None:
        self.versions = {}
        self.context_tokens = 0 if endless else 256
        self._endless = endless.encode()
        self.gate = threading.Event()
        self.gate.set()
        self.at_work = threading.Event()
        self.batches: list[int] = []
        self.fault: Exception | None = None

    def prepare(self, messages: Sequence[Any], image: Image.Image | None) -> dict[str, Any]:
        said = "".join(part["text"] for part in messages[-1]["content"])
        told = said + (f" {image.size}" if image else "")
        ids = np.frombuffer(told.encode(), np.uint8).astype(np.int64)[None]
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    def answer(
        self,
        items: Sequence[dict[str, Any]],
        most_tokens: int,
        choose: Callable[[int, Any], int],
        take: Callable[[int, int], bool],
    ) -> None:
        self.batches.append(len(items))
        self.at_work.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        if self.fault:
            raise self.fault
        wants = dict(enumerate(items))
        for step in range(most_tokens):
            for index, item in list(wants.items()):
                logits_V = np.zeros(256, np.float32)
                spoken = item["input_ids"][0]
                more = step < len(spoken) or (self._endless and self._endless in bytes(spoken.tolist()))
                logits_V[spoken[step % len(spoken)] if more else END] = 9
                if not take(index, choose(index, logits_V)):
                    del wants[index]
            if not wants:
                return

    def text(self, tokens: list[int]) -> str:
        return bytes(tokens).decode(errors="replace").strip()


class BrightRunner:
    """Sees one object, as bright as the picture: a box over all of it."""

    task = "DETECTION"

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.batches: list[int] = []

    def prepare(self, messages: Sequence[Any], image: Image.Image) -> dict[str, Any]:
        return {"pixel_values": np.asarray(image.convert("RGB"), np.float32)[None] / 255}

    def together(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        self.batches.append(len(items))
        return [{"bright": item["pixel_values"].mean(keepdims=True).reshape(1)} for item in items]


def bright(task: str, facts: dict[str, Any], outputs: dict[str, Any], size_px: tuple[int, int]) -> Any:
    """The decision of a `BrightRunner`, as `decide.py` writes them."""
    box = np.array([[0, 0, size_px[1], size_px[0]]], np.float32)
    return {"boxes": box, "scores": outputs["bright"], "labels": np.zeros(1, np.int64)}


def write_package(folder: Path) -> Path:
    """As much of a package as its server reads."""
    facts = {
        "lineage": {"training_job": "projects/a/trainingJobs/echo"},
        "base_model": {"name": "tiny"},
        "decisions": {"labels": ["light"]},
    }
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder
