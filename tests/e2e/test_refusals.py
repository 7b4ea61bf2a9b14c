"""Bad input through the gateway: each gets its documented reason and field, and nothing half-made stays."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import uuid
import zipfile
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import urllib3
from finemesh.chassis.auth import Role, SigningKey
from finemesh.chassis.config import Secret
from finemesh.chassis.s3 import S3Config, S3ObjectStore

from tests.e2e.conftest import RunningMesh
from tests.support.servers import PATIENCE_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MASKS: Final = [[{"size": [4, 6], "counts": "h0"}], [{"size": [4, 6], "counts": "92207"}]]
MASKLET: Final[dict[str, Any]] = {
    "video_id": "dog",
    "video_height": 4.0,
    "video_width": 6.0,
    "masklet": MASKS,
    "masklet_id": [0],
    "masklet_num": 1,
}


@dataclass
class Gate:
    """The gateway of a running mesh, spoken to in JSON."""

    url: str
    data: Path
    s3_port: int

    def token(self, project: str = "demo") -> str:
        key = SigningKey.load(self.data / "secrets" / "jwt.key")
        return key.mint("tester", Role.OPERATOR, [project], ttl_seconds=600)

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str | None = None
    ) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self.token() if token is None else token}"}
        answer = urllib3.request(
            method,
            f"{self.url}/v1/{path}",
            json=body,
            headers=headers,
            retries=False,
            timeout=PATIENCE_SECONDS,
        )
        return answer.status, answer.json()

    def upload(self, filename: str, content: bytes, sent: bytes | None = None) -> str:
        """Announce `content` and put `sent` in its place; the name of the upload."""
        digest = hashlib.sha256(content).hexdigest()
        said = {"filename": filename, "sizeBytes": str(len(content)), "sha256": digest}
        status, upload = self.call("POST", "projects/demo/uploads", said)
        assert status == 200, upload
        put = urllib3.request("PUT", upload["url"], body=content if sent is None else sent, retries=False)
        assert put.status == 200, put.data
        return upload["name"]

    def import_and_wait(self, upload: str) -> dict[str, Any]:
        """The dataset that the upload becomes, at its end: the last event of its watch."""
        dataset_id = f"d-{uuid.uuid4().hex[:8]}"
        path = f"projects/demo/datasets?dataset_id={dataset_id}"
        status, made = self.call("POST", path, {"importedFrom": {"upload": upload}})
        assert status == 200, made
        events = urllib3.request(
            "GET",
            f"{self.url}/v1/{made['name']}:watch",
            headers={"authorization": f"Bearer {self.token()}"},
            retries=False,
            timeout=600,
        )
        assert events.headers["content-type"].startswith("text/event-stream")
        told = [
            json.loads(line[6:]) for line in events.data.decode().splitlines() if line.startswith("data: ")
        ]
        assert len(told) > 1
        return told[-1]


@pytest.fixture(scope="module")
def gate(running_mesh: RunningMesh) -> Gate:
    return Gate(running_mesh.url, running_mesh.data, running_mesh.ports["s3"])


@pytest.fixture
async def objects(gate: Gate) -> AsyncIterator[S3ObjectStore]:
    secrets = gate.data / "secrets"
    config = S3Config(
        endpoint=f"http://127.0.0.1:{gate.s3_port}",
        access_key=(secrets / "s3.access").read_text().strip(),
        secret_key=Secret((secrets / "s3.secret").read_text().strip()),
        bucket="finemesh",
    )
    store = S3ObjectStore(config)
    yield store
    store.close()


def reason_of(status: Mapping[str, Any]) -> str:
    """The reason in a google.rpc.Status."""
    return next(detail["reason"] for detail in status["details"] if "reason" in detail)


def fields_of(status: Mapping[str, Any]) -> list[str]:
    """The fields that a google.rpc.Status calls wrong."""
    found = [detail["fieldViolations"] for detail in status["details"] if "fieldViolations" in detail]
    return [violation["field"] for violations in found for violation in violations]


# What is said of a request


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "reason", "fields"),
    [
        ("GET", "projects/demo/datasets/none", None, 404, "DATASET_NOT_FOUND", []),
        ("GET", "projects/demo/trainingJobs/none", None, 404, "TRAINING_JOB_NOT_FOUND", []),
        ("GET", "projects/demo/runs/none", None, 404, "RUN_NOT_FOUND", []),
        ("GET", "projects/demo/exports/none", None, 404, "EXPORT_NOT_FOUND", []),
        (
            "POST",
            "projects/demo/datasets",
            {"importedFrom": {"upload": "nonsense"}},
            400,
            "MALFORMED_NAME",
            ["dataset.imported_from.upload"],
        ),
        ("POST", "projects/demo/datasets?dataset_id=No!", {}, 400, "MALFORMED_ID", ["dataset_id"]),
        ("GET", "projects/demo/datasets?filter=size%20big", None, 400, "INVALID_FILTER", ["filter"]),
        ("GET", "projects/demo/datasets?order_by=taste", None, 400, "INVALID_ORDER", ["order_by"]),
        ("GET", "projects/demo/datasets?page_token=x", None, 400, "MALFORMED_PAGE_TOKEN", ["page_token"]),
        (
            "POST",
            "projects/demo/uploads",
            {"sizeBytes": "-1", "sha256": "x"},
            400,
            "INVALID_UPLOAD",
            ["upload.filename", "upload.sha256", "upload.size_bytes"],
        ),
        (
            "POST",
            "projects/demo/exports",
            {},
            400,
            "INVALID_EXPORT",
            ["export.format", "export.training_job"],
        ),
        (
            "POST",
            "projects/demo/datasets",
            {"splitFrom": {"dataset": "projects/demo/datasets/none", "trainRatio": -1}},
            400,
            "INVALID_OPTIONS",
            ["dataset.split_from.train_ratio"],
        ),
        (
            "POST",
            "projects/demo/trainingJobs",
            {"spec": {"task": "TASK_LANGUAGE", "lora": {"rank": -1}, "optimization": {"learningRate": -1}}},
            400,
            "INVALID_TRAINING_JOB",
            [
                "training_job.spec.base_model",
                "training_job.spec.dataset",
                "training_job.spec.lora.rank",
                "training_job.spec.optimization.learning_rate",
            ],
        ),
    ],
)
def test_a_refused_request_says_why_and_where(
    gate: Gate, method: str, path: str, body: Any, code: int, reason: str, fields: list[str]
) -> None:
    status, said = gate.call(method, path, body)
    assert (status, reason_of(said)) == (code, reason), said
    assert sorted(fields_of(said)) == fields
    assert len(said["message"]) > 10


def test_nobody_gets_in_without_a_token_or_with_that_of_another_project(gate: Gate) -> None:
    assert gate.call("GET", "projects/demo/datasets", token="nonsense")[0] == 401
    status, said = gate.call("GET", "projects/demo/datasets", token=gate.token("acme"))
    assert (status, reason_of(said)) == (403, "PROJECT_DENIED")


# What becomes of a source


def archive(**files: bytes | tuple[int, bytes]) -> bytes:
    """A ZIP of files by name; a tuple gives the Unix mode too."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            mode, data = content if isinstance(content, tuple) else (stat.S_IFREG | 0o644, content)
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(entry, data)
    return buffer.getvalue()


SOURCES: Final[dict[str, tuple[str, bytes, str]]] = {
    "out of its folder": ("a.zip", archive(**{"../evil.json": b"{}"}), "ARCHIVE_TRAVERSAL"),
    "link": ("a.zip", archive(link=(stat.S_IFLNK | 0o777, b"/etc/passwd")), "ARCHIVE_LINK"),
    "bomb": ("a.zip", archive(**{"zeros.json": bytes(40 << 20)}), "ARCHIVE_BOMB"),
    "empty": ("a.zip", archive(), "UNKNOWN_FORMAT"),
    "not an archive": ("a.zip", b"PK" + bytes(100), "ARCHIVE_UNREADABLE"),
    "truncated": ("a.json", json.dumps(MASKLET).encode()[:-20], "MALFORMED_JSON"),
}


@pytest.mark.parametrize("name", SOURCES)
async def test_a_bad_source_leaves_a_reason_and_nothing_else(
    gate: Gate, objects: S3ObjectStore, name: str
) -> None:
    filename, content, reason = SOURCES[name]
    ended = gate.import_and_wait(gate.upload(filename, content))
    assert ended["state"] == "STATE_FAILED"
    assert reason_of(ended["error"]) == reason, ended["error"]
    assert await objects.list(ended["name"] + "/") == []
    status, said = gate.call("GET", f"{ended['name']}/files")
    assert (status, reason_of(said)) == (400, "DATASET_NOT_READY")


def test_a_faulty_row_is_put_aside_and_the_import_goes_on(gate: Gate) -> None:
    wrong = [{"size": [5, 6], "counts": "n0"}]
    source = json.dumps({**MASKLET, "masklet": [*MASKS, wrong]}).encode()
    ended = gate.import_and_wait(gate.upload("dog.json", source))
    assert ended["state"] == "STATE_SUCCEEDED", ended
    ledger = ended["summary"]["ledger"]
    assert (ledger["inputs"], ledger["kept"], ledger["quarantined"]) == ("3", "2", "1")
    _, said = gate.call("GET", f"{ended['name']}/ledger?filter=disposition+%3D+%22QUARANTINED%22")
    assert "ledgerEntries" in said, said
    [entry] = said["ledgerEntries"]
    assert entry["reason"] == "MASK_SIZE_MISMATCH"


def test_other_bytes_than_announced_are_not_imported(gate: Gate) -> None:
    content = json.dumps(MASKLET).encode()
    ended = gate.import_and_wait(gate.upload("dog.json", content, content.replace(b"dog", b"cat")))
    assert (ended["state"], reason_of(ended["error"])) == ("STATE_FAILED", "UPLOAD_CORRUPT")


def test_one_request_id_makes_one_dataset(gate: Gate) -> None:
    """Eight at once, and once more later; for another request the id is taken."""
    upload = gate.upload("dog.json", json.dumps(MASKLET).encode())
    path = f"projects/demo/datasets?request_id={uuid.uuid4()}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: gate.call("POST", path, {"importedFrom": {"upload": upload}}), range(8))
        )
    again = gate.call("POST", path, {"importedFrom": {"upload": upload}})
    assert {status for status, _ in [*answers, again]} == {200}
    assert len({dataset["name"] for _, dataset in [*answers, again]}) == 1
    status, said = gate.call("POST", path, {"importedFrom": {"upload": upload, "seed": "7"}})
    assert (status, reason_of(said)) == (409, "REQUEST_ID_REUSED")
