"""What of the Hugging Face hub an upload needs, for its own client: https://huggingface.co/docs/hub/api.

Repositories, the question how each file shall come, git-lfs for large ones, and commits. It refuses what the
hub refuses: who has no token that may write, blobs that are not what their digest says, a commit of a file
whose blob never came.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

TOKEN: Final = "hf_of_the_test"
SILENT: Final = "hf_no_answer"  # whoever comes with it gets none
_LFS_JSON: Final = "application/vnd.git-lfs+json"


class Hub(ThreadingHTTPServer):
    """Attributes: private by repository; its files; blobs by SHA-256; the messages of its commits."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.private: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running_hub() -> Generator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _hub(self) -> Hub:
        assert isinstance(self.server, Hub)
        return self.server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.close_connection = self.headers["Authorization"] == f"Bearer {SILENT}"
        if self.close_connection:
            return None
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._say(401, {"error": "Invalid username or password."})
        kind = self.path.rpartition("/")[2] if "/commit/" not in self.path else "commit"
        if "/preupload/" in self.path:
            kind = "preupload"
        ways: dict[str, Callable[[Any], None]] = {
            "create": self._create,
            "validate-yaml": lambda _told: self._say(200, {"errors": [], "warnings": []}),
            "preupload": self._preupload,
            "batch": self._batch,
            "commit": self._commit,
        }
        lines = [json.loads(line) for line in body.splitlines()] if kind == "commit" else json.loads(body)
        return ways[kind](lines)

    def do_GET(self) -> None:
        self._say(404, {"error": f"no such page: {self.path}"})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.path.rpartition("/")[2]
        same = hashlib.sha256(body).hexdigest() == digest
        self._hub.blobs |= {digest: body} if same else {}
        self._say(200 if same else 400, {})

    def _create(self, told: dict[str, Any]) -> None:
        name = f"{told['organization']}/{told['name']}"
        if name in self._hub.private:
            return self._say(409, {"url": f"{self._hub.address}/{name}"})
        self._hub.private[name] = told["visibility"] == "private"
        return self._say(200, {"url": f"{self._hub.address}/{name}"})

    def _preupload(self, told: dict[str, Any]) -> None:
        """Whatever is no text goes by git-lfs."""

        def mode(sample: bytes) -> str:
            return "lfs" if b"\0" in sample or sample.startswith(b"GGUF") else "regular"

        files = [
            {
                "path": each["path"],
                "uploadMode": mode(base64.b64decode(each["sample"])),
                "shouldIgnore": False,
                "oid": None,
            }
            for each in told["files"]
        ]
        self._say(200, {"files": files})

    def _batch(self, told: dict[str, Any]) -> None:
        objects = [
            {
                **each,
                "actions": {}
                if each["oid"] in self._hub.blobs
                else {"upload": {"href": f"{self._hub.address}/blobs/{each['oid']}", "header": {}}},
            }
            for each in told["objects"]
        ]
        self._say(200, {"transfer": "basic", "objects": objects}, _LFS_JSON)

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        made: dict[str, bytes] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                made[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self._hub.blobs:
                    return self._say(400, {"error": f"no blob {value['oid']} of {value['path']}"})
                made[value["path"]] = self._hub.blobs[value["oid"]]
        self._hub.files |= made
        self._hub.commits.append(lines[0]["value"]["summary"])
        oid = hashlib.sha1(b"".join(made.values()), usedforsecurity=False).hexdigest()
        repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        said = {"commitUrl": f"{self._hub.address}/{repository}/commit/{oid}", "commitOid": oid}
        return self._say(200, {**said, "success": True})

    def _say(self, status: int, content: dict[str, Any], kind: str = "application/json") -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
