"""The golden items asked over HTTP: the server must say what the runtime says without it.

The server runs in this process around the runner that is loaded already, on a free port of loopback.
"""

from __future__ import annotations

import base64
import json
import math
import socket
import threading
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from PIL import Image

from .app import Limits, create_app
from .pictures import PATHS, Decide, say
from .seam import SPEAKS, Runner

_TOKENS: Final = 8  # of an answer
_SECONDS: Final = 600.0  # for one answer
_ROLES: Final = frozenset({"system", "user", "assistant"})


def check(runner: Any, decide: Decide, package: Path) -> dict[str, Any]:
    """What `verify.py` reports of it. Items with roles that the interface does not have are left out, and
    counted.
    """
    lines = (package / "golden" / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
    items: list[dict[str, Any]] = [json.loads(line) for line in lines]
    asked = [item for item in items if all(each["role"] in _ROLES for each in item["messages"])]
    with serving(runner, decide, package) as address:
        equal = [_equal(runner, decide, package, item, address) for item in asked]
    value = sum(equal) / len(equal) if equal else 1.0
    return {
        "kind": "over HTTP",
        "what": f"share of {len(asked)} of {len(items)} items answered as without the server",
        "value": value,
        "limit": 1.0,
        "at_most": False,
        "passed": value == 1.0,
    }


@contextmanager
def serving(
    runner: Any,
    decide: Decide,
    package: Path,
    limits: Limits = Limits(),  # noqa: B008  which is frozen
) -> Generator[str]:
    """Serve a loaded package in a thread meanwhile. Gives the address."""
    app = create_app(lambda: runner, decide, package, limits)
    door = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{door.getsockname()[1]}"
    try:
        _await_ready(address)
        yield address
    finally:
        server.should_exit = True
        thread.join()
        door.close()


def _await_ready(address: str) -> None:
    end = time.monotonic() + _SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{address}/readyz", timeout=_SECONDS).close()  # noqa: S310  our own
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def _equal(runner: Runner, decide: Decide, package: Path, item: dict[str, Any], address: str) -> bool:
    image = package / item["image"] if item["image"] else None
    picture = Image.open(image) if image else None
    inputs = runner.prepare(item["messages"], picture)
    if runner.task in SPEAKS:
        direct = runner.text(runner.write(inputs, _TOKENS))
        request = {"messages": _spoken(item["messages"], image), "max_tokens": _TOKENS}
        said = _post(f"{address}/v1/chat/completions", json.dumps(request).encode(), "application/json")
        return said["choices"][0]["message"]["content"].strip() == direct
    assert picture is not None
    assert image is not None
    facts = json.loads((package / "manifest.json").read_bytes())["decisions"]
    size_px = (picture.height, picture.width)
    expected = say(runner.task, decide, facts, runner.outputs(inputs), size_px)
    found = _post(f"{address}{PATHS[runner.task]}", image.read_bytes(), "image/png")
    return alike(expected, {key: found[key] for key in expected})


def _spoken(messages: list[dict[str, Any]], image: Path | None) -> list[dict[str, Any]]:
    """A conversation as OpenAI's interface has it."""
    url = ""
    if image:
        url = f"data:image/{image.suffix[1:]};base64,{base64.b64encode(image.read_bytes()).decode()}"
    shown = {"type": "image_url", "image_url": {"url": url}}
    return [
        {
            "role": message["role"],
            "content": [
                shown if part["type"] == "image" else {"type": "text", "text": part["text"]}
                for part in message["content"]
            ],
        }
        for message in messages
    ]


def _post(url: str, body: bytes, kind: str) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": kind})  # noqa: S310  our own
    with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310
        return json.loads(response.read())


def alike(one: Any, other: Any) -> bool:
    """Equal, numbers but for the rounding of a batch."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-4)
    return one == other
