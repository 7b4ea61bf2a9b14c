"""What is known of a model on the hub: its config and the headers of its weights, not the weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
from finemesh.client.model_files import model_files
from safetensors.numpy import save_file

COMMIT = "c" * 40
NAME = "owner/tiny"
# In a process of its own: the library reads its address and the place of its cache when it is imported.
READ = """
import json, sys
from finemesh.client.hub_models import cached_files, hub_files
found = hub_files(sys.argv[1]) if sys.argv[2] == "hub" else cached_files(sys.argv[1])
facts = found and [found.config_json, found.processor_json, list(found.weight_headers), found.weight_bytes]
print(json.dumps(facts))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as is asked: https://huggingface.co/docs/hub/api."""

    folder: ClassVar[Path]
    sent: ClassVar[list[int]] = []

    def do_HEAD(self) -> None:
        self.do_GET(with_body=False)

    def do_GET(self, *, with_body: bool = True) -> None:
        files = list(self.folder.iterdir())
        if self.path.startswith(f"/api/models/{NAME}/tree/"):
            listed = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": p.name} for p in files
            ]
            return self._send(json.dumps(listed).encode(), with_body)
        if self.path.startswith(f"/api/models/{NAME}"):
            facts = {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": path.name} for path in files]}
            return self._send(json.dumps(facts).encode(), with_body)
        path = self.folder / self.path.rpartition("/")[2]
        if not self.path.startswith(f"/{NAME}/resolve/") or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return None
        content = path.read_bytes()
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            content = content[int(first) : int(last) + 1]
        return self._send(content, with_body)

    def _send(self, content: bytes, with_body: bool) -> None:
        self.send_response(206 if self.headers.get("Range") else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{len(content)}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)
            self.sent.append(len(content))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  it is named so above
        """Nothing."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "preprocessor_config.json").write_text('{"size": 8}')
    weights = {"a": np.zeros((512, 1024), np.float32), "b": np.zeros((3,), np.float16)}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def hub(model: Path) -> Generator[str]:
    Hub.folder = model
    Hub.sent.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def read(kind: str, home: Path, endpoint: str) -> list[object] | None:
    environment = os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", READ, NAME, kind], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_model_on_the_hub_is_known_without_its_weights(model: Path, hub: str, tmp_path: Path) -> None:
    found = read("hub", tmp_path / "home", hub)
    assert found is not None
    config, processor, headers, size = found
    assert (config, processor) == ('{"model_type": "llama"}', '{"size": 8}')
    assert isinstance(headers, list)
    (header,) = headers
    tensors = {name: each["shape"] for name, each in json.loads(header).items() if name != "__metadata__"}
    assert tensors == {"a": [512, 1024], "b": [3]}
    assert size == 512 * 1024 * 4 + 3 * 2
    assert sum(Hub.sent) < 300_000  # of 2 MB
    # Without its weights it is not in the cache; with them it is, and nothing is asked of the hub.
    assert read("cache", tmp_path / "home", hub) is None
    (snapshot,) = (tmp_path / "home").glob("hub/models--owner--tiny/snapshots/*")
    (snapshot / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    asked = len(Hub.sent)
    whole = read("cache", tmp_path / "home", hub)
    assert whole is not None
    assert len(Hub.sent) == asked
    local = model_files(str(model))
    assert local is not None
    assert whole[2] == list(local.weight_headers)
