"""Packages are carried on: to S3, and to what speaks as Ollama and the hub do; what cannot be says why."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from finemesh.client.pushing import PushError, Target, files_of, push
from minio import Minio

from tests.support.hub_server import SILENT, TOKEN, running_hub
from tests.support.servers import PATIENCE_SECONDS, S3Server

pytestmark = pytest.mark.integration
MODELFILE = """FROM ./model.gguf
TEMPLATE \"\"\"{{- range .Messages -}}{{- .Content -}}{{- end -}}\"\"\"
PARAMETER stop "</s>"
PARAMETER stop "\\n###"
PARAMETER num_ctx 2048
PARAMETER temperature 0
"""


class Ollama(ThreadingHTTPServer):
    """Blobs by digest and models made of them, as https://docs.ollama.com/api has it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.models: dict[str, dict[str, object]] = {}


class _Handler(BaseHTTPRequestHandler):
    @property
    def _ollama(self) -> Ollama:
        assert isinstance(self.server, Ollama)
        return self.server

    def do_HEAD(self) -> None:
        self._answer(200 if self.path.removeprefix("/api/blobs/") in self._ollama.blobs else 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/api/blobs/"):
            digest = self.path.removeprefix("/api/blobs/")
            same = digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
            self._ollama.blobs |= {digest: body} if same else {}
            return self._answer(201 if same else 400)
        told = json.loads(body)
        if not set(told["files"].values()) <= self._ollama.blobs.keys():
            return self._answer(400)
        self._ollama.models[told.pop("model")] = told
        return self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def ollama() -> Generator[Ollama]:
    with Ollama() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "golden").mkdir(parents=True)
    files = [{"path": path} for path in ("model.gguf", "Modelfile", "golden/inputs.jsonl")]
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 999)
    (folder / "Modelfile").write_text(MODELFILE)
    (folder / "golden" / "inputs.jsonl").write_text("{}\n")
    (folder / "notes.txt").write_text("of whoever unpacked it: no file of the package, sent to nobody")
    return folder


def test_ollama_gets_the_weights_once_and_is_told_how_to_answer(ollama: Ollama, package: Path) -> None:
    target = Target.of(f"ollama://127.0.0.1:{ollama.server_port}/colours")
    sent: list[str] = []
    assert push(package, target, sent.append) == "colours: ollama run colours"
    assert push(package, target, sent.append)
    assert sent == ["model.gguf", "Modelfile", "Modelfile"]
    told = ollama.models["colours"]
    assert ollama.blobs[told["files"]["model.gguf"]] == (package / "model.gguf").read_bytes()  # pyright: ignore[reportIndexIssue]
    assert told["template"] == "{{- range .Messages -}}{{- .Content -}}{{- end -}}"
    assert told["parameters"] == {"stop": ["</s>", "\n###"], "num_ctx": 2048, "temperature": 0}


def test_s3_gets_every_file_the_manifest_last(
    package: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target.of(f"s3://{s3_server.bucket}/pushed/colours")
    with pytest.raises(PushError, match="AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY must be"):
        push(package, target)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    with pytest.raises(PushError, match="write http://HOST:PORT or https://HOST"):
        push(package, target)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{s3_server.endpoint}")
    reader = Minio(
        endpoint=s3_server.endpoint,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
        secure=False,
    )
    if not reader.bucket_exists(bucket_name=s3_server.bucket):
        reader.make_bucket(bucket_name=s3_server.bucket)
    sent: list[str] = []
    push(package, target, sent.append)
    assert sent[-1] == "manifest.json"
    assert len(sent) == 4
    for name in sent:
        found = reader.get_object(bucket_name=s3_server.bucket, object_name=f"pushed/colours/{name}")
        assert found.read() == (package / name).read_bytes()
        found.close()
        found.release_conn()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PushError, match="did not take"):
        push(package, target)


PUSH = """import pathlib, sys
from finemesh.client.pushing import PushError, Target, push
try:
    print(push(pathlib.Path(sys.argv[1]), Target.of("hub://owner/colours")))
except PushError as error:
    sys.exit(str(error))
"""


def test_the_hub_gets_every_file_in_one_commit_of_a_private_model(package: Path) -> None:
    """By the hub's own client, with the token of the environment: a process of its own, since it reads both
    once.
    """
    with running_hub() as hub:

        def pushed(token: str) -> subprocess.CompletedProcess[str]:
            place = {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
            command = [sys.executable, "-c", PUSH, str(package)]
            environ = {**os.environ, **place, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
            return subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
            )

        refused = pushed("hf_wrong")
        assert refused.returncode == 1
        assert "the hub did not take owner/colours (401): Invalid username or password." in refused.stderr
        assert not hub.private
        assert "the hub did not take owner/colours: Server disconnected" in pushed(SILENT).stderr
        done = pushed(TOKEN)
        assert done.stdout.startswith(f"{hub.address}/owner/colours/commit/"), done.stderr
        sent = ("model.gguf", "Modelfile", "golden/inputs.jsonl", "manifest.json")
        assert hub.files == {name: (package / name).read_bytes() for name in sent}
        assert hub.private == {"owner/colours": True}
        assert hub.commits == ["Upload a package"]


def test_what_cannot_be_pushed_says_why(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    for wrong in ("colours", "ollama://localhost", "ftp://somewhere/colours", "hub://alone"):
        with pytest.raises(PushError, match="is no place: write ollama"):
            Target.of(wrong)
    with pytest.raises(PushError, match="give a folder that `finemesh export download` made"):
        files_of(tmp_path, Target.of("s3://bucket"))
    with pytest.raises(PushError, match="start it, or name its host and port"):
        push(package, Target.of(f"ollama://127.0.0.1:{free_port}/colours"))
    hub = Target.of("hub://owner/colours")
    names = ["Modelfile", "golden/inputs.jsonl", "manifest.json", "model.gguf"]
    assert files_of(package, hub) == names
    (package / "manifest.json.sig").write_text("")
    assert files_of(package, hub) == [*names[:3], "manifest.json.sig", *names[3:]]
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(PushError, match="HF_TOKEN is not set"):
        push(package, hub)
    manifest = package / "manifest.json"
    manifest.write_text(manifest.read_text().replace("Modelfile", "README.md"))
    with pytest.raises(PushError, match=r"lacks README\.md, which its manifest\.json names"):
        files_of(package, hub)
    (package / "README.md").write_text("")
    with pytest.raises(PushError, match="Ollama wants Modelfile, which this package has not"):
        files_of(package, Target.of("ollama://localhost/colours"))
