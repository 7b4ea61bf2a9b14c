"""The server of packages over HTTP, around runners without a model: what it takes, refuses, runs together."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
from finemesh.finetune.masks import decode
from finemesh.package.shipped.server.app import Limits
from finemesh.package.shipped.server.pictures import run_lengths
from finemesh.package.shipped.server.replay import serving
from PIL import Image
from pycocotools import mask as coco

from tests.support.echo_runner import BrightRunner, EchoRunner, bright, write_package
from tests.support.servers import PATIENCE_SECONDS

CHAT = "/v1/chat/completions"


def picture(width: int, height: int, light: int = 255, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (light, light, light)).save(stream, kind)
    return stream.getvalue()


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def shown(url: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [{"role": "user", "content": parts}]}


@pytest.fixture(scope="module")
def runner() -> EchoRunner:
    return EchoRunner()


@pytest.fixture(scope="module")
def client(runner: EchoRunner, tmp_path_factory: pytest.TempPathFactory) -> Generator[httpx.Client]:
    package = write_package(tmp_path_factory.mktemp("package"))
    limits = Limits(body_bytes=50_000, answer_tokens=64, batch=8, waiting=8)
    with (
        serving(runner, bright, package, limits) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as client,
    ):
        yield client


def content(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def pieces(lines: list[str]) -> list[dict[str, Any]]:
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_an_answer_and_its_stream_say_the_same(client: httpx.Client) -> None:
    asked = said("Grüße, 世界! and more", stop=["more"])
    whole = client.post(CHAT, json=asked).json()
    choice = whole["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Grüße, 世界! and ", "stop")
    assert (
        whole["usage"]["total_tokens"]
        == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"]
    )
    streamed = asked | {"stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", CHAT, json=streamed) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        chunks = pieces([line for line in response.iter_lines() if line])
    deltas = [each["choices"][0]["delta"].get("content", "") for each in chunks if each["choices"]]
    assert "".join(deltas) == choice["message"]["content"]
    assert len([each for each in deltas if each]) > 5
    assert chunks[-1]["usage"] == whole["usage"]
    assert {each["object"] for each in chunks} == {"chat.completion.chunk"}


def test_an_answer_ends_where_it_was_told_to(client: httpx.Client) -> None:
    choice = client.post(CHAT, json=said("abcdef", max_tokens=3)).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("abc", "length")


def test_what_comes_together_is_run_together(client: httpx.Client, runner: EchoRunner) -> None:
    runner.gate.clear()
    runner.at_work.clear()
    before = len(runner.batches)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, CHAT, json=said("first"))
        assert runner.at_work.wait(PATIENCE_SECONDS)
        others = [pool.submit(client.post, CHAT, json=said(f"other {index}")) for index in range(6)]
        await_waiting(client, 6)
        runner.gate.set()
        assert content(first.result()) == "first"
        assert [content(each.result()) for each in others] == [f"other {index}" for index in range(6)]
    assert runner.batches[before:] == [1, 6]


def await_waiting(client: httpx.Client, count: int) -> None:
    while f"serve_waiting_requests {count}.0" not in client.get("/metrics").text:
        pass


def test_beyond_the_queue_requests_are_refused_at_once(client: httpx.Client, runner: EchoRunner) -> None:
    runner.gate.clear()
    runner.at_work.clear()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(client.post, CHAT, json=said("first"))
        assert runner.at_work.wait(PATIENCE_SECONDS)
        waiting = [pool.submit(client.post, CHAT, json=said("waits")) for _ in range(8)]
        await_waiting(client, 8)
        refused = client.post(CHAT, json=said("too much"))
        runner.gate.set()
        assert [content(each.result()) for each in (first, *waiting)] == ["first"] + ["waits"] * 8
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "queue_full"


def test_whoever_goes_away_is_written_nothing_more(tmp_path: Path) -> None:
    """The next answer waits for the end of one that would never end by itself."""
    package, limits = write_package(tmp_path), Limits(answer_tokens=1 << 40, batch=1)
    with (
        serving(EchoRunner(endless="forever"), bright, package, limits) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as client,
    ):
        for stream in (True, False):
            with suppress(httpx.ReadTimeout):
                asked = said("forever", stream=stream)
                with client.stream("POST", CHAT, json=asked, timeout=0.5) as response:
                    assert next(response.iter_lines())
            assert content(client.post(CHAT, json=said("next"))) == "next"


@pytest.mark.parametrize(
    ("asked", "status", "code", "param"),
    [
        (said("x", tools=[]), 400, "unsupported_parameter", "tools"),
        (said("x", n=2), 400, "invalid_value", "n"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        (said("x", model="gpt-5"), 404, "model_not_found", "model"),
        (said("x", max_tokens=65), 400, "max_tokens_too_large", "max_tokens"),
        (said("x" * 256), 400, "context_length_exceeded", "messages"),
        (shown("http://169.254.169.254/x.png"), 400, "invalid_image_url", "messages.0.content"),
        (shown("data:image/png;base64,!!"), 400, "invalid_base64_image", "messages.0.content"),
        (shown("data:image/png;base64,AAAA"), 400, "invalid_image", "messages.0.content"),
        (said("x" * 60_000), 413, "body_too_large", None),
    ],
)
def test_what_is_refused_says_why(
    client: httpx.Client, asked: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    response = client.post(CHAT, json=asked)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["message"]
    assert error["type"] == "invalid_request_error"


def test_a_body_that_is_no_json_is_called_that(client: httpx.Client) -> None:
    response = client.post(CHAT, content=b'{"messages": ', headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_json", None)
    assert error["message"] == "the body is no JSON: Expecting value, at character 13"


def test_a_body_is_cut_off_whatever_its_header_says(client: httpx.Client) -> None:
    response = client.post(CHAT, content=(b" " * 10_000 for _ in range(9)))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


def test_a_picture_is_seen(client: httpx.Client) -> None:
    url = f"data:image/png;base64,{base64.b64encode(picture(7, 5)).decode()}"
    assert content(client.post(CHAT, json=shown(url))) == "what? (7, 5)"


def test_a_fault_of_the_model_is_told_by_an_id_alone(client: httpx.Client, runner: EchoRunner) -> None:
    runner.fault = RuntimeError("secret words")
    try:
        response = client.post(CHAT, json=said("x"))
    finally:
        runner.fault = None
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "secret" not in response.text
    assert response.headers["connection"] == "close"  # as it will be: the next one would be lost in it
    assert content(client.post(CHAT, json=said("again"))) == "again"


def test_metrics_are_read_by_prometheus(client: httpx.Client) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    families = {each.name: each for each in text_string_to_metric_families(client.get("/metrics").text)}
    counted = {tuple(each.labels.values()): each.value for each in families["serve_requests"].samples}
    assert counted[CHAT, "200"] > 0
    client.get("/made/up/path")
    assert not [labels for labels in counted if "made" in labels[0]]
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_pictures_come_as_a_body_or_a_form_and_those_of_one_size_go_together(tmp_path: Path) -> None:
    runner = BrightRunner()
    with (
        serving(runner, bright, write_package(tmp_path), Limits()) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        body = client.post("/detect", content=picture(20, 10), headers={"Content-Type": "image/png"})
        expected = {"label": "light", "score": 1.0, "box": [0.0, 0.0, 20.0, 10.0]}
        assert body.json() == {"width": 20, "height": 10, "objects": [expected]}
        assert client.post("/detect", files={"file": picture(20, 10)}).json() == body.json()
        assert client.post("/detect?threshold=0.9", content=picture(20, 10, 99)).json()["objects"] == []
        assert client.post("/detect").json()["error"]["code"] == "no_image"
        described = client.get("/openapi.json").json()["paths"]["/detect"]["post"]["requestBody"]["content"]
        assert set(described) == {"image/*", "multipart/form-data"}
        for content in (b"GIF89a", picture(20, 10, kind="EPS"), picture(20, 10, kind="TIFF")):
            refused = client.post("/detect", content=content).json()["error"]
            assert refused["code"] == "invalid_image"
            message = "this is no picture in one of the formats JPEG, PNG, WEBP, GIF"
            assert refused["message"] == message
        cut = client.post("/detect", content=picture(20, 10)[:50]).json()["error"]
        assert cut["message"].startswith("this is no picture that can be read: ")
        assert client.post(CHAT, json=said("x")).status_code == 404
        sizes = [(10 + index % 2, 10) for index in range(16)]
        found = list(pool.map(lambda size: client.post("/detect", content=picture(*size)).json(), sizes))
    assert [(each["width"], each["height"]) for each in found] == sizes


def test_masks_are_read_by_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for mask_HW in (rng.random((7, 5)) > 0.5, np.ones((3, 4), bool), np.zeros((3, 4), bool)):
        told = run_lengths(mask_HW)
        packed: Any = coco.frPyObjects(cast("Any", told), *told["size"])
        assert (decode(packed["counts"].decode(), mask_HW.shape) == mask_HW).all()
